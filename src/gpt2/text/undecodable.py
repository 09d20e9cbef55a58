"""Which encoding a text is in, and bytes that are not in it: read as U+FFFD, and counted."""

from __future__ import annotations

import codecs
import warnings
from collections import Counter

from gpt2.errors import UsageError, summarize_names

REPLACE_AND_COUNT = "gpt2.replace-and-count"
# UTF-32's little-endian mark begins as UTF-16's does. The codecs read the mark, and drop it.
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
MAX_BOM_BYTES = max(map(len, MARKS))  # bytes


class UndecodableCounter:
    """Counts the bytes that were not in the encoding that was expected, text by text: both may be set for the next."""

    def __init__(self, encoding: str, what: str) -> None:
        self.encoding, self.text_name = encoding, what
        self.counts: dict[str, Counter[str]] = {}  # of each encoding, those of each text

    def replace(self, error: UnicodeError) -> tuple[str, int]:
        """An error handler for decoding, as `codecs.register_error` takes it."""
        if not isinstance(error, UnicodeDecodeError):
            raise error
        self.counts.setdefault(self.encoding, Counter())[self.text_name] += error.end - error.start
        return "\ufffd", error.end

    def report(self) -> None:
        """One warning for each encoding, which names the texts."""
        for encoding, counts in self.counts.items():
            said = f"{sum(counts.values())} bytes of {summarize_names(counts)} are not {encoding}; read as U+FFFD"
            warnings.warn(said, stacklevel=2)
        self.counts.clear()


def count_undecodable(encoding: str, what: str) -> UndecodableCounter:
    """Makes the error handler REPLACE_AND_COUNT count into what is returned; `what` is how its report calls the text.

    Raises UsageError for an encoding that Python does not know.
    """
    check_encoding(encoding)
    found = UndecodableCounter(encoding, what)
    codecs.register_error(REPLACE_AND_COUNT, found.replace)
    return found


def check_encoding(encoding: str) -> None:
    """Raises UsageError for an encoding that Python does not know, or that cannot replace what is not in it."""
    try:
        b"a".decode(encoding, "replace")  # codecs.lookup would find base64 too, which decodes no text
    except (LookupError, ValueError):
        raise UsageError(f"encoding must be one that Python knows, such as utf-8, not {encoding!r}") from None


def encoding_from_bom(start: bytes, encoding: str) -> str:
    """The encoding of a text whose first LONGEST_MARK bytes are `start`.

    It is what a byte-order mark says, if UTF-8 is expected and there is one; else `encoding`.
    """
    if codecs.lookup(encoding).name in ("utf-8", "utf-8-sig"):
        return next((name for mark, name in MARKS.items() if start.startswith(mark)), encoding)
    return encoding


def without_surrogates(text: str) -> str:
    """The text with U+FFFD for each unpaired surrogate, which is no character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
