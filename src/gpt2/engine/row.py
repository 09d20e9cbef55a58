"""The former name of `TokenSequence`, for programs that import it from here."""

from gpt2.engine.token_sequence import TokenSequence as Row

__all__ = ["Row"]
