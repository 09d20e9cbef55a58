#!/usr/bin/env python3
"""Run train.py of the parent folder, for users of this path."""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).resolve().parents[1] / "train.py"), run_name="__main__")
