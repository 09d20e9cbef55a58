"""What the library raises; a command turns each into one line on stderr and its exit status."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

FETCH_AGAIN = "delete it and fetch it again"
LISTED = 3  # names that a message holds


class GPT2Error(Exception):
    """Something failed: a file is missing or damaged, a disk is full, a server does not answer (exit status 1)."""


class UsageError(GPT2Error, ValueError):
    """A value was given that is not allowed (exit status 2)."""


class UnreadableFileError(GPT2Error):
    """A file that cannot be read, whatever is in it: a permission, a broken disk, too many open files."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"{path} cannot be read: {error.strerror or error}")


class DamagedFileError(GPT2Error):
    """A file that was read and whose content is wrong."""

    def __init__(self, path: Path, reason: str, advice: str = FETCH_AGAIN) -> None:
        self.reason = reason
        self.what = f"{path} is damaged: {reason}"
        super().__init__(f"{self.what}; {advice}")


def printable_name(name: object) -> str:
    """A file's name for a message of one line: as Python writes it if it holds line ends or bytes that are no text."""
    text = str(name)
    return text if text.isprintable() else repr(text)


def summarize_names(names: Collection[object]) -> str:
    """The first few names for a message, and how many more there are.

    >>> summarize_names(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    said = ", ".join(printable_name(name) for name in list(names)[:LISTED])
    return said if len(names) <= LISTED else f"{said} and {len(names) - LISTED} more"
