"""Exceptions of the library; a command turns each into one line on stderr and its exit status."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

FETCH_AGAIN = "delete it and fetch it again"
MAX_NAMES_IN_MESSAGE = 3


class GPT2Error(Exception):
    """A failure, such as a missing or damaged file, a full disk or an unreachable server (exit status 1)."""


class UsageError(GPT2Error, ValueError):
    """An invalid value of a parameter or flag (exit status 2)."""


class UnreadableFileError(GPT2Error):
    """An unreadable file, for example because of its permissions, a broken disk or too many open files."""

    def __init__(self, path: Path, error: OSError) -> None:
        """Build the message from the system's error."""
        super().__init__(f"{path} cannot be read: {error.strerror or error}")


class DamagedFileError(GPT2Error):
    """A readable file with damaged content.

    Attributes:
        reason: The damage, as a clause such as "it is not UTF-8".
        problem: The message without the advice.
    """

    def __init__(self, path: Path, reason: str, advice: str = FETCH_AGAIN) -> None:
        """Build the message.

        Args:
            path: The file.
            reason: The damage, as a clause.
            advice: The user's next step, as a command.
        """
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
    """Return the first few names and the number of the others, for a message.

    >>> summarize_names(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    listed = ", ".join(printable_name(name) for name in list(names)[:MAX_NAMES_IN_MESSAGE])
    return listed if len(names) <= MAX_NAMES_IN_MESSAGE else f"{listed} and {len(names) - MAX_NAMES_IN_MESSAGE} more"
