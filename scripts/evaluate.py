#!/usr/bin/env python3
"""Measure a model with the paper's tasks or on any text."""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))  # in case the content of src/ was moved up
sys.path.insert(0, str(CHECKOUT / "src"))

from gpt2.cli import command
from gpt2.commands.evaluate import evaluate_model

if __name__ == "__main__":
    sys.exit(command.main(evaluate_model))
