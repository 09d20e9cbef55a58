"""Conversion of typed strings to values; each function raises ValueError for a string that it does not accept."""

from __future__ import annotations

import ast
import contextlib
import re


def parse_texts(value: str) -> tuple[str, ...]:
    """Return one string, or the strings of a list in Python's or JSON's notation, as a tuple."""
    if value.startswith("["):
        with contextlib.suppress(ValueError, SyntaxError):
            values = ast.literal_eval(value)
            if isinstance(values, list) and all(isinstance(v, str) for v in values):
                return tuple(values)
    return (value,)


SWITCH_VALUES = {"true": True, "false": False}


def parse_switch(value: str) -> bool:
    """Return the typed value of a switch, such as `false` in `--no_cache=false`."""
    try:
        return SWITCH_VALUES[value.lower()]
    except KeyError:
        raise ValueError from None


def parse_byte_size(value: str) -> int:
    """Return the number of bytes of a size such as 5GB, 500MB or 1000, which must be at least 1."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([KMG]?)B?", value.strip(), re.IGNORECASE)
    size = int(float(match[1]) * 1000 ** " KMG".index(match[2].upper() or " ")) if match else 0
    if size < 1:
        raise ValueError
    return size


def parse_urls(value: str) -> tuple[str, ...]:
    """Return the URLs of a comma-separated list."""
    return tuple(value.split(","))


class ByteSize(int):
    """A number of bytes that `--help` shows as it was written, such as 5GB."""

    def __new__(cls, text: str) -> ByteSize:
        """Return the size; raise ValueError if the text is not a size."""
        size = super().__new__(cls, parse_byte_size(text))
        size.text = text
        return size

    text: str

    def __str__(self) -> str:
        """Return the size as it was written."""
        return self.text
