"""The text that `--help` prints."""

from __future__ import annotations

import inspect
import sys
import textwrap
from pathlib import Path
from typing import Any

from gpt2.cli.declarations import Command, flags_of, parameters_of
from gpt2.cli.parsing import required_names
from gpt2.cli.values import parse_switch

WIDTH = 92  # characters of a flag's description


def help_text(command: Command) -> str:
    """Return the command's docstring and its flags in positional order."""
    parameters = parameters_of(command)
    flags = flags_of(command)
    required = required_names(parameters)
    words = ["usage:", Path(sys.argv[0]).name, *(name.upper() for name in parameters if name in required)]
    lines = [" ".join([*words, "[--FLAG VALUE ...]"]), "", inspect.getdoc(command) or "", ""]
    lines.append("flags, in positional order:")
    for name, parameter in parameters.items():
        flag = flags[name]
        lines.append(f"  --{name}" if flag.parse is parse_switch else f"  --{name}={name.upper()}")
        description = f"{flag.help} ({flag.expects}{_default_text(parameter.default)})"
        lines += [" " * 8 + line for line in textwrap.wrap(description, WIDTH)]
    return "\n".join(lines)


def _default_text(default: Any) -> str:
    if default is inspect.Parameter.empty:
        return "; required"
    if default is False or default in (None, "", ()):
        return ""
    return f"; default {', '.join(default) if isinstance(default, tuple) else default}"
