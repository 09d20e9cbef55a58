"""Exceptions of the library; a command turns each into one line on stderr and its exit status."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

FETCH_AGAIN = "delete it and fetch it again"
MAX_NAMES_IN_MESSAGE = 3
SUGGESTION_MARK = "; did you mean "
MIN_SIMILARITY = 0.66  # of a suggestion, as difflib measures it: 1 for equal names
MIN_PREFIX_CHARACTERS = 3  # a shorter beginning of a name does not tell which name was meant
MAX_MISSPELLED_CHARACTERS = 100  # longer ones are not misspelled names


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


def suggest(typed: object, names: Iterable[str], prefix: str = "") -> str:
    """Return the end of a message that suggests the name that was probably meant, or "" if none is similar.

    >>> suggest("flaot32", ["float32", "bfloat16", "int8"])
    '; did you mean float32?'

    Args:
        typed: The unknown name.
        names: The known names.
        prefix: Shown before the name, such as "--" of a flag.
    """
    if not isinstance(typed, str) or not typed or len(typed) > MAX_MISSPELLED_CHARACTERS:
        return ""
    by_key = {_comparable(name): name for name in names if prefix or name != typed}
    key = _comparable(typed)
    longer = [name for name in by_key if len(key) >= MIN_PREFIX_CHARACTERS and name.startswith(key)]
    if key in by_key:
        similar = [key]
    elif len(longer) == 1:
        similar = longer
    else:
        from difflib import get_close_matches  # only mistakes need it

        similar = get_close_matches(key, by_key, 1, MIN_SIMILARITY)
    return f"{SUGGESTION_MARK}{prefix}{printable_name(by_key[similar[0]])}?" if similar else ""


def _comparable(name: str) -> str:
    return name.lower().replace("-", "_")


def check_choice(name: str, value: object, choices: Collection[str], context: str = "") -> None:
    """Check that a value is one of some names.

    Args:
        name: The parameter's name, for the message.
        value: The value to check.
        choices: The allowed values.
        context: Words after the allowed values, such as " for gguf".

    Raises:
        UsageError: The value is another one.
    """
    if value not in choices:
        known = ", ".join(choices)
        raise UsageError(f"{name} must be one of {known}{context}, not {value!r}{suggest(value, choices)}")
