"""Byte-level BPE vocabularies as other formats describe them."""

from __future__ import annotations

from gpt2.encoder import END_OF_TEXT, Encoder, byte_characters
from gpt2.errors import GPT2Error
from gpt2.text.vocabulary import Vocabulary


def require_byte_level(vocabulary: Vocabulary, format_name: str) -> Encoder:
    """Return the vocabulary if it is a byte-level BPE.

    Raises:
        GPT2Error: It is another kind of vocabulary, which the format cannot hold.
    """
    if not isinstance(vocabulary, Encoder):
        raise GPT2Error(
            f"the vocabulary is not a byte-level BPE, and {format_name} can hold no other kind with this model"
        )
    return vocabulary


def require_end_of_text(vocabulary: Vocabulary, format_name: str) -> Encoder:
    """Return the vocabulary if it is a byte-level BPE with an end-of-text token.

    Raises:
        GPT2Error: It is not, and the format needs one.
    """
    encoder = require_byte_level(vocabulary, format_name)
    if END_OF_TEXT not in encoder.ids_of:
        raise GPT2Error(f"the vocabulary has no {END_OF_TEXT} token, which {format_name} needs")
    return encoder


def special_tokens(encoder: Encoder) -> dict[int, str]:
    """Return id -> text of the tokens that no merge makes, so that encoding ordinary text never gives them."""
    ordinary = {left + right for left, right in encoder.ranks} | set(byte_characters().values())
    ids = sorted(token for piece, token in encoder.ids_of.items() if piece not in ordinary)
    return {token: encoder.bytes_of[token].decode("utf-8", errors="replace") for token in ids}
