"""Intel's matrix unit (AMX), for tests on any processor: what is compiled for it finds its instructions carried out."""

import ctypes
import os
import subprocess
from pathlib import Path

import pytest

from gpt2 import devices
from gpt2.engine.native import build

HERE = Path(__file__).parents[1] / "engine"
FOR_THEM = ("-mamx-tile", "-mamx-bf16")
OPTIONS = (*FOR_THEM, "-include", str(HERE / "tiles_allowed.h"))


def need_compiler(command):
    """Skips a test whose compiler knows them not, or by other names than ours."""
    macros = [*command, build.NATIVE_OPTION, *FOR_THEM, "-dM", "-E", "-x", "c++", os.devnull]
    if "__AMX_BF16__" not in subprocess.run(macros, capture_output=True, text=True).stdout:
        pytest.skip("this compiler is older than the matrix unit")


def carry_out(command, library):
    """From here on this process can do what the unit does. library: where to leave what it takes."""
    if devices.AMX_FLAG not in devices.cpu_flags():
        options = ["-std=c++17", "-O2", build.NATIVE_OPTION, "-shared", "-fPIC"]
        subprocess.run([*command, *options, HERE / "tiles_by_signal.cc", "-o", library], check=True)
        ctypes.CDLL(str(library))
