"""What others call the parts of a byte-level BPE vocabulary."""

from __future__ import annotations

from gpt2.encoder import END_OF_TEXT, Encoder, byte_characters
from gpt2.errors import GPT2Error
from gpt2.text.vocabulary import Vocabulary


def require_byte_level(vocabulary: Vocabulary, to: str) -> Encoder:
    """The vocabulary, if it is one. Raises GPT2Error for what the format `to` cannot hold."""
    if not isinstance(vocabulary, Encoder):
        raise GPT2Error(f"the vocabulary is not a byte-level BPE, and {to} can hold no other with this model")
    return vocabulary


def require_end_of_text(vocabulary: Vocabulary, to: str) -> Encoder:
    """The same, for a format that needs a token for the end of a text."""
    encoder = require_byte_level(vocabulary, to)
    if END_OF_TEXT not in encoder.ids_of:
        raise GPT2Error(f"the vocabulary has no {END_OF_TEXT} token, which {to} needs")
    return encoder


def special_tokens(encoder: Encoder) -> dict[int, str]:
    """Ids that text never becomes by itself, since no merge makes them, and their text."""
    made = {left + right for left, right in encoder.ranks} | set(byte_characters().values())
    ids = sorted(i for piece, i in encoder.ids_of.items() if piece not in made)
    return {i: encoder.bytes_of[i].decode("utf-8", errors="replace") for i in ids}
