"""The parser of the old commands, which use argparse, with errors in the form of the other commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from gpt2.errors import UsageError
from gpt2.flags import Flag


class RaisingArgumentParser(argparse.ArgumentParser):
    """A parser that raises UsageError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with argparse's message."""
        raise UsageError(f"{message}; {self.prog} --help lists the flags")


def argparse_type(flag: Flag) -> Callable[[str], Any]:
    """Return a function for argparse's `type` that converts a typed string or raises ArgumentTypeError."""
    parse = flag.parse
    assert parse is not None

    def convert(value: str) -> Any:
        if value == "None" and parse is not str:
            return None
        try:
            return parse(value)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be {flag.expects}, not {value!r}") from None

    return convert
