#!/usr/bin/env python3
"""Serve models: a page to write on, and OpenAI's API."""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))  # where src/'s content is if it was moved up
sys.path.insert(0, str(CHECKOUT / "src"))

from gpt2.cli import command
from gpt2.commands.serve import serve

if __name__ == "__main__":
    sys.exit(command.main(serve))
