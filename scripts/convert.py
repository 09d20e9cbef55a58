#!/usr/bin/env python3
"""Write a model in another format."""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))  # in case the content of src/ was moved up
sys.path.insert(0, str(CHECKOUT / "src"))

from gpt2.cli import command
from gpt2.commands.convert import convert

if __name__ == "__main__":
    sys.exit(command.main(convert))
