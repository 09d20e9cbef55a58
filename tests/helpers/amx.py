"""Intel's matrix unit (AMX) for tests on any processor: code compiled for it runs with emulated instructions."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from gpt2 import devices
from gpt2.engine.native import build

SOURCES = Path(__file__).parents[1] / "engine"
OPTIONS = ("-mamx-tile", "-mamx-bf16")
EMULATION_OPTIONS = (*OPTIONS, "-include", str(SOURCES / "tiles_allowed.h"))


def require_compiler(command: Sequence[str]) -> None:
    """Skip the test if the compiler does not know the matrix unit by the names that the library uses."""
    macros = [*command, build.NATIVE_OPTION, *OPTIONS, "-dM", "-E", "-x", "c++", os.devnull]
    if "__AMX_BF16__" not in subprocess.run(macros, capture_output=True, text=True).stdout:
        pytest.skip("this compiler is older than the matrix unit")


def emulate(command: Sequence[str], library: Path) -> None:
    """Emulate the matrix unit in this process from now on, unless the processor has one.

    Args:
        command: The command of a C++ compiler.
        library: Where the compiled emulator is written to.
    """
    if devices.AMX_FLAG not in devices.cpu_flags():
        options = ["-std=c++17", "-O2", build.NATIVE_OPTION, "-shared", "-fPIC"]
        subprocess.run([*command, *options, SOURCES / "tiles_by_signal.cc", "-o", library], check=True)
        ctypes.CDLL(str(library))
