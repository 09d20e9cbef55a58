"""Text encodings: detection of byte-order marks and counting of undecodable bytes."""

from __future__ import annotations

import codecs
import warnings
from collections import Counter

from gpt2.errors import UsageError, suggest, summarize_names

REPLACE_AND_COUNT = "gpt2.replace-and-count"  # the error handler that `count_undecodable` registers
# UTF-32 comes first, because the mark of UTF-16-LE is a prefix of the mark of UTF-32-LE. These codecs skip the mark.
BOM_ENCODINGS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
MAX_BOM_BYTES = max(map(len, BOM_ENCODINGS))
NOT_OF_TEXT = ("rot_13", "mbcs", "tactis")  # codecs, besides those named _codec, that do not decode text everywhere
# Suggested before other names of the same encodings.
COMMON_ENCODINGS = ("utf-8", "utf-16", "utf-32", "latin-1", "ascii")


class UndecodableCounter:
    """A counter of the bytes that could not be decoded, per encoding and text.

    Assign `encoding` and `text_name` before decoding the next text.
    """

    def __init__(self, encoding: str, text_name: str) -> None:
        """Start counting for a first text.

        Args:
            encoding: The encoding that the text should have.
            text_name: The name of the text in the report.
        """
        self.encoding = encoding
        self.text_name = text_name
        self.counts: dict[str, Counter[str]] = {}  # encoding -> text name -> bytes

    def replace(self, error: UnicodeError) -> tuple[str, int]:
        """Replace and count undecodable bytes: an error handler as `codecs.register_error` takes it."""
        if not isinstance(error, UnicodeDecodeError):
            raise error
        self.counts.setdefault(self.encoding, Counter())[self.text_name] += error.end - error.start
        return "\ufffd", error.end

    def report(self) -> None:
        """Give one warning per encoding, which names the texts, and reset the counts."""
        for encoding, counts in self.counts.items():
            message = f"{sum(counts.values())} bytes of {summarize_names(counts)} are not {encoding}; read as U+FFFD"
            warnings.warn(message, stacklevel=2)
        self.counts.clear()


def count_undecodable(encoding: str, text_name: str) -> UndecodableCounter:
    """Register the error handler REPLACE_AND_COUNT and return its counter.

    Args:
        encoding: The encoding that the text should have.
        text_name: The name of the text in the report.

    Raises:
        UsageError: If Python does not know the encoding.
    """
    check_encoding(encoding)
    counter = UndecodableCounter(encoding, text_name)
    codecs.register_error(REPLACE_AND_COUNT, counter.replace)
    return counter


def check_encoding(encoding: str) -> None:
    """Raise UsageError if Python does not know the encoding or cannot replace undecodable bytes in it."""
    try:
        b"a".decode(encoding, "replace")  # codecs.lookup would also accept base64, which decodes no text
    except (LookupError, ValueError):
        from encodings.aliases import aliases

        of_text = [name for name, codec in aliases.items() if not codec.endswith("_codec") and codec not in NOT_OF_TEXT]
        similar = suggest(encoding, COMMON_ENCODINGS) or suggest(encoding, of_text)
        raise UsageError(f"encoding must be one that Python knows, such as utf-8, not {encoding!r}{similar}") from None


def encoding_from_bom(start: bytes, encoding: str) -> str:
    """Return the encoding of a text: from its byte-order mark if UTF-8 is expected, otherwise the expected one.

    Args:
        start: The first MAX_BOM_BYTES bytes of the text.
        encoding: The expected encoding.
    """
    if codecs.lookup(encoding).name in ("utf-8", "utf-8-sig"):
        return next((name for mark, name in BOM_ENCODINGS.items() if start.startswith(mark)), encoding)
    return encoding


def without_surrogates(text: str) -> str:
    """Return the text with U+FFFD in place of each unpaired surrogate, which is not a character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
