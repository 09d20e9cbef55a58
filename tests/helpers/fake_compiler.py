"""A stand-in for a C++ compiler."""

from __future__ import annotations

import os
from pathlib import Path


class FakeCompiler:
    """A shell script that stands in for a compiler and counts its runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def set_script(self, *lines: str) -> None:
        self.path.write_text("\n".join(["#!/bin/sh", 'echo >> "$0.runs"', "for out; do :; done", *lines, ""]))
        self.path.chmod(0o755)
        os.utime(self.path, (1, 1))

    @property
    def runs(self) -> int:
        log = Path(f"{self.path}.runs")
        return len(log.read_text()) if log.exists() else 0
