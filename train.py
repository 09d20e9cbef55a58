#!/usr/bin/env python3
"""Train a model on your own text."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))  # so that it runs without an installation

from gpt2.cli import command
from gpt2.commands.train import train

if __name__ == "__main__":
    sys.exit(command.main(train))
