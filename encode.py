#!/usr/bin/env python3
"""Encode text into a file of token ids."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))  # so that it runs without an installation

from gpt2.cli import command
from gpt2.commands.encode import encode_text

if __name__ == "__main__":
    sys.exit(command.main(encode_text))
