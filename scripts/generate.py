#!/usr/bin/env python3
"""Generate a text for each prompt of a file."""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))  # in case the content of src/ was moved up
sys.path.insert(0, str(CHECKOUT / "src"))

from gpt2.cli import command
from gpt2.commands.generate import generate

if __name__ == "__main__":
    sys.exit(command.main(generate))
