"""The error of readers that know only bytes, not which file they come from."""

from __future__ import annotations


class MalformedFileError(ValueError):
    """Bytes that do not follow their format; the message says why.

    Readers that know the path raise `DamagedFileError` from it.
    """
