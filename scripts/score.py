#!/usr/bin/env python3
"""Show what a model thinks of a text, token by token."""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))  # where src/'s content is if it was moved up
sys.path.insert(0, str(CHECKOUT / "src"))

from gpt2.cli import command
from gpt2.commands.score import score_text

if __name__ == "__main__":
    sys.exit(command.main(score_text))
