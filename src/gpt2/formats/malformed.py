"""The error of readers that process bytes and do not know the path of their file."""

from __future__ import annotations


class MalformedFileError(ValueError):
    """The error for bytes that do not follow their format; the message states the reason.

    Readers that know the path convert this error into a `DamagedFileError`.
    """
