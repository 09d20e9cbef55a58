"""Compiles the native library for this machine, once, and loads it."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from gpt2 import files, machine
from gpt2.files import unheard

SOURCES = Path(__file__).parent
MAIN = "library.cc"
COMPILERS = ("c++", "g++", "clang++")
OPTIONS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fPIC", "-shared", "-w", "-pthread")
SWITCH = "GPT2_NATIVE"  # an environment variable: 0 leaves everything to TensorFlow
SECONDS = 300  # that a compiler may take


class NoLibrary(Exception):
    """Why there is no native library."""


def load(notify: Callable[[str], None] = unheard) -> ctypes.CDLL:
    """The library, compiled if this is the first time on this machine. Raises NoLibrary.

    notify: told that a compiler is at work, which takes seconds.
    """
    found = _tried(notify)
    if isinstance(found, NoLibrary):
        raise NoLibrary(str(found))
    return found


@functools.cache
def _tried(notify: Callable[[str], None]) -> ctypes.CDLL | NoLibrary:
    """Once in a process: a compiler that fails may take long to do so."""
    try:
        return find(notify)
    except NoLibrary as reason:
        return reason


def find(notify: Callable[[str], None] = unheard) -> ctypes.CDLL:
    """What `load` does when it is first called."""
    if os.environ.get(SWITCH) == "0":
        raise NoLibrary(f"{SWITCH}=0")
    if sys.platform not in ("linux", "darwin"):
        raise NoLibrary(f"not written for {sys.platform}")
    compiler = shutil.which(os.environ.get("CXX", "")) or next(filter(None, map(shutil.which, COMPILERS)), None)
    library = cache_folder() / f"native-{_fingerprint()}.so"
    try:
        if not library.exists():
            if compiler is None:
                raise NoLibrary("there is no C++ compiler")
            notify("compiling the decode step for this machine; this happens once and takes some seconds")
            compile_library(compiler, library)
        return ctypes.CDLL(str(library))
    except (OSError, subprocess.SubprocessError) as error:
        raise NoLibrary(f"{compiler} or the library it made failed: {_reason(error)}") from error


def compile_library(compiler: str, library: Path) -> None:
    """Makes the library, which is there whole or not at all: another process may be doing the same."""
    library.parent.mkdir(parents=True, exist_ok=True)
    with files.written_aside(library) as made:
        command = [compiler, *OPTIONS, str(SOURCES / MAIN), "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS)


def cache_folder() -> Path:
    """Where compiled libraries are kept: $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpt-2-tensorflow"


def _fingerprint() -> str:
    """Of all that the library depends on: a home or an image may move to another machine."""
    sources = [path.read_bytes() for path in sorted(SOURCES.glob("*.*")) if path.suffix in (".h", ".cc")]
    parts = [*sources, repr((OPTIONS, platform.machine(), _cpu())).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _cpu() -> str:
    try:
        info = machine.CPU_INFO.read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    return " ".join(re.findall(r"^(?:flags|Features|model name)\s*:.*", info, re.MULTILINE)[:2])


def _reason(error: Exception) -> str:
    said = getattr(error, "stderr", None) or str(error)
    return next((line for line in str(said).splitlines() if "error" in line), str(said).strip().split("\n")[0])
