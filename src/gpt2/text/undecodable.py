"""Bytes that are not in the expected encoding: read as U+FFFD, and counted."""

from __future__ import annotations

import codecs
import warnings

from gpt2.errors import UsageError

REPLACE_AND_COUNT = "gpt2.replace-and-count"


class Undecodable:
    """Counts the bytes that were not in the encoding that was expected."""

    def __init__(self, encoding: str, what: str) -> None:
        self.encoding, self.what = encoding, what
        self.count = 0

    def replace(self, error: UnicodeError) -> tuple[str, int]:
        """An error handler for decoding, as `codecs.register_error` takes it."""
        if not isinstance(error, UnicodeDecodeError):
            raise error
        self.count += error.end - error.start
        return "\ufffd", error.end

    def report(self) -> None:
        if self.count:
            warnings.warn(f"{self.count} bytes of {self.what} are not {self.encoding}; read as U+FFFD", stacklevel=2)
        self.count = 0


def count_undecodable(encoding: str, what: str) -> Undecodable:
    """Makes the error handler REPLACE_AND_COUNT count into what is returned; `what` is how its report calls the text.

    Raises UsageError for an encoding that Python does not know.
    """
    found = Undecodable(encoding, what)
    codecs.register_error(REPLACE_AND_COUNT, found.replace)
    try:
        b"a".decode(encoding, REPLACE_AND_COUNT)  # codecs.lookup would find base64 too, which decodes no text
    except (LookupError, ValueError):
        raise UsageError(f"encoding must be one that Python knows, such as utf-8, not {encoding!r}") from None
    found.count = 0
    return found
