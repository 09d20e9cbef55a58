"""Command lines that argparse reads, for the commands that always had it; their errors are those of the others."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from gpt2.cli.flags import Flag
from gpt2.errors import UsageError


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; {self.prog} --help lists the flags")


def argparse_type(flag: Flag) -> Callable[[str], Any]:
    """A flag's type as argparse takes it, which says itself what is wrong with a value."""

    def convert(value: str) -> Any:
        if value == "None" and flag.kind is not str:
            return None
        try:
            return flag.kind(value)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be {flag.what}, not {value!r}") from None

    return convert
