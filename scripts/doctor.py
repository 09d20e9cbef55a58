#!/usr/bin/env python3
"""Command: what this machine computes with, which models are there, and whether its numbers are right."""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))  # where src/'s content is if it was moved up
sys.path.insert(0, str(CHECKOUT / "src"))

from gpt2.cli import command, diagnostics
from gpt2.formats.model_dir import DEFAULT_MODELS_DIR


def examine(models_dir=DEFAULT_MODELS_DIR, threads=None, clear_cache=False):
    """Show versions, processor, devices and models, and compare logits with a plain NumPy computation of them.

    Ends with status 1 if the numbers are wrong: TensorFlow's products have been, on some processors.
    """
    for line in diagnostics.examine(models_dir, threads, clear_cache):
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(command.main(examine))
