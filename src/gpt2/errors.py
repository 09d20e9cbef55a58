"""Exceptions of the library; a command turns each into one line on stderr and its exit status."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

FETCH_AGAIN = "delete it and fetch it again"
MAX_NAMES_IN_MESSAGE = 3


class GPT2Error(Exception):
    """A failure: a file is missing or damaged, a disk is full, a server does not respond (exit status 1)."""


class UsageError(GPT2Error, ValueError):
    """A value that is not allowed (exit status 2)."""


class UnreadableFileError(GPT2Error):
    """A file that cannot be read, whatever its content: a permission, a broken disk, too many open files."""

    def __init__(self, path: Path, error: OSError) -> None:
        """Describe the system's error."""
        super().__init__(f"{path} cannot be read: {error.strerror or error}")


class DamagedFileError(GPT2Error):
    """A file that could be read and whose content is wrong.

    Attributes:
        reason: What is wrong with the content.
        problem: The message without the advice.
    """

    def __init__(self, path: Path, reason: str, advice: str = FETCH_AGAIN) -> None:
        """Describe the damage and what to do about it."""
        self.reason = reason
        self.problem = f"{path} is damaged: {reason}"
        super().__init__(f"{self.problem}; {advice}")


def printable_name(name: object) -> str:
    """Return a file name that fits on one line of a message.

    A name with line breaks or bytes that are not text is returned as a Python string literal.
    """
    text = str(name)
    return text if text.isprintable() else repr(text)


def summarize_names(names: Collection[object]) -> str:
    """Return the first few names for a message, and how many more there are.

    >>> summarize_names(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    listed = ", ".join(printable_name(name) for name in list(names)[:MAX_NAMES_IN_MESSAGE])
    return listed if len(names) <= MAX_NAMES_IN_MESSAGE else f"{listed} and {len(names) - MAX_NAMES_IN_MESSAGE} more"
