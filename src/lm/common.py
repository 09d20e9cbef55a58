"""transformer-lm's names for its special tokens, for programs that import them from here."""

from gpt2.text.sentencepiece import END_OF_LINE, END_OF_TEXT, WORD_START
from gpt2.text.sentencepiece import UNKNOWN_TOKEN as UNK

__all__ = ["END_OF_LINE", "END_OF_TEXT", "UNK", "WORD_START"]
