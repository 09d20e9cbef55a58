#!/usr/bin/env python3
"""Download a released model into the models folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))  # so that it runs without an installation

from gpt2.cli import command
from gpt2.commands.download_model import download_model

if __name__ == "__main__":
    sys.exit(command.main(download_model))
