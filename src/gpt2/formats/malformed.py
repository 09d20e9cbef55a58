"""The error of readers that process bytes without knowing the path of their file."""

from __future__ import annotations


class MalformedFileError(ValueError):
    """Bytes that do not follow their format; the message states the reason.

    Readers that know the path convert this error into a `DamagedFileError`.
    """
