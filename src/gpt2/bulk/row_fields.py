"""A row as the reader of its file format returns it, and the errors that rows of several formats have."""

from __future__ import annotations

import codecs
import dataclasses
from collections.abc import Mapping
from typing import Any

MAX_ROW_CHARACTERS = 1 << 24
MAX_ERROR_CHARACTERS = 300  # a longer message is cut: it quotes a value of the row
# The decoder's error handler. Each byte that is not in the encoding becomes UNDECODABLE_START plus the byte, a
# character that no text has, and later an error of its row. Unlike "surrogateescape", it handles all bytes.
KEEP_UNDECODABLE = "gpt2.keep-undecodable"
UNDECODABLE_START = 0xDC00
UNDECODABLE_END = UNDECODABLE_START + 256


@dataclasses.dataclass(frozen=True)
class RowFields:
    """The fields of a row.

    Attributes:
        values: The values by the names of the columns; as many as could be read if there is an error.
        content: The whole row as text; it counts in the checksum of the input if the row could not be read.
        has_settings: Whether the values may include settings, as rows of JSON lines may.
        error: Reason why the row could not be read.
    """

    values: Mapping[str, Any]
    content: str
    has_settings: bool = False
    error: str = ""


def shorten(message: str) -> str:
    """Return a message without the end of a quoted value that is too long."""
    return message if len(message) <= MAX_ERROR_CHARACTERS else f"{message[:MAX_ERROR_CHARACTERS]}..."


def describe_exception(error: Exception) -> str:
    """Return the message of a row's error for an exception that is not a `GPT2Error`."""
    return shorten(f"an unexpected {type(error).__name__}: {error}")


def length_error(n_characters: int) -> str:
    """Return the error of a row that is too long, or an empty string."""
    return f"more than {MAX_ROW_CHARACTERS} characters" if n_characters >= MAX_ROW_CHARACTERS else ""


def register_undecodable_handler() -> None:
    """Register the decoder's error handler KEEP_UNDECODABLE."""
    codecs.register_error(KEEP_UNDECODABLE, _keep_undecodable)


def _keep_undecodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(UNDECODABLE_START + byte) for byte in error.object[error.start : error.end]), error.end


def encoding_error(text: str, encoding: str) -> str:
    """Return the error of a row with bytes that are not in the encoding, or an empty string."""
    if text.isascii():
        return ""
    codes = map(ord, text)
    index = next((index for index, code in enumerate(codes) if UNDECODABLE_START <= code < UNDECODABLE_END), None)
    if index is None:
        return ""
    byte = ord(text[index]) - UNDECODABLE_START
    return f"not {encoding} at character {index} (byte {byte:#x}); give the file's encoding with --encoding"
