"""Properties of byte-level BPE vocabularies that other formats require."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from gpt2.encoder import Encoder, byte_characters
from gpt2.errors import GPT2Error, summarize_names
from gpt2.text.vocabulary import Vocabulary


def require_byte_level(vocabulary: Vocabulary, format_name: str) -> Encoder:
    """Return the vocabulary if it is a byte-level BPE.

    Args:
        vocabulary: The vocabulary of the model.
        format_name: The name of the format, for the error message.

    Raises:
        GPT2Error: The vocabulary is of another kind, which the format does not support.
    """
    if not isinstance(vocabulary, Encoder):
        raise GPT2Error(f"the vocabulary is not a byte-level BPE, the only kind that {format_name} supports for GPT-2")
    return vocabulary


def require_end_of_text(vocabulary: Vocabulary, format_name: str) -> Encoder:
    """Return the vocabulary if it is a byte-level BPE with an end-of-text token.

    Args:
        vocabulary: The vocabulary of the model.
        format_name: The name of the format, for the error message.

    Raises:
        GPT2Error: The vocabulary is of another kind or has no end-of-text token.
    """
    encoder = require_byte_level(vocabulary, format_name)
    if encoder.end_token not in encoder.ids_of:
        raise GPT2Error(f"the vocabulary has no {encoder.end_token} token, which {format_name} needs")
    return encoder


def special_tokens(encoder: Encoder) -> dict[int, str]:
    """Return the texts of the special tokens by id; no merge produces them, so ordinary text never encodes to them."""
    ordinary = {left + right for left, right in encoder.ranks} | set(byte_characters().values())
    ids = sorted(token for piece, token in encoder.ids_of.items() if piece not in ordinary)
    return {token: encoder.bytes_of[token].decode("utf-8", errors="replace") for token in ids}


def warn_of_added_tokens(tokens: Sequence[str], consequence: str) -> None:
    """Warn about added tokens that a format cannot hold, if there are any.

    Args:
        tokens: The texts of the tokens.
        consequence: What happens to their texts, after "the added tokens X".
    """
    if tokens:
        warnings.warn(f"the added tokens {summarize_names(tokens)} {consequence}", stacklevel=3)
