"""Command lines that a command suggests to type next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2.installation import script_command

GENERATE_SCRIPT = "src/interactive_conditional_samples.py"
TRAIN_SCRIPT = "train.py"
INSTALLED_GENERATE_COMMAND = "gpt-2-gen"  # `pip install` brings this command, but no scripts
EXAMPLE_PROMPT = "The"


def generate_command(model: Path) -> str:
    """Return the command line that generates text with a model directory."""
    if len(model.parts) == 1:
        model = model.absolute()  # a model of this name in models/ would be used instead
    line = script_command(GENERATE_SCRIPT, *as_arguments({"model_name": model}))
    return line or shlex.join([INSTALLED_GENERATE_COMMAND, str(model), EXAMPLE_PROMPT])


def train_command(settings: Mapping[str, Any]) -> str:
    """Return the command line of train.py with these settings, or an empty string if there is no such script."""
    return script_command(TRAIN_SCRIPT, *as_arguments(settings))


def as_arguments(flags: Mapping[str, Any]) -> list[str]:
    """Return the arguments that give flags their values; values of None are left out.

    >>> as_arguments({"run_name": "run1", "csv_start": "-", "no_header": True, "seed": None})
    ['--run_name', 'run1', '--csv_start=-', '--no_header']
    """
    arguments: list[str] = []
    for name, value in flags.items():
        if value is True:
            arguments.append(f"--{name}")
        elif value is not None:
            text = str(value)
            arguments += [f"--{name}={text}"] if not text or text.startswith("-") else [f"--{name}", text]
    return arguments
