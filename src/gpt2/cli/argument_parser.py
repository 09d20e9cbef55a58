"""The parser of the old commands, which use argparse, with errors in the form of the other commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from gpt2.cli.parsing import suggest_flag, suggest_switch
from gpt2.errors import SUGGESTION_MARK, UsageError
from gpt2.flags import Flag

UNRECOGNIZED = "unrecognized arguments: "  # the start of argparse's message


class RaisingArgumentParser(argparse.ArgumentParser):
    """A parser that raises UsageError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with argparse's message."""
        message, mark, meant = message.partition(SUGGESTION_MARK)
        unknown = message.removeprefix(UNRECOGNIZED)
        flags = [option.lstrip("-") for option in reversed(self._option_string_actions)]  # the first spelling counts
        similar = "" if unknown == message else suggest_flag(unknown.split()[0], flags)
        raise UsageError(f"{message}; {self.prog} --help lists the flags{similar}{mark}{meant}")


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
            similar = suggest_switch(flag, value)
            raise argparse.ArgumentTypeError(f"must be {flag.expects}, not {value!r}{similar}") from None

    return convert
