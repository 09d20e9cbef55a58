"""Compiles the ops for this machine, once, and loads them into TensorFlow."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import tensorflow as tf

SOURCES = Path(__file__).parent
MAIN = "ops.cc"
COMPILERS = ("c++", "g++", "clang++")
OPTIONS = ("-O3", "-march=native", "-fno-math-errno", "-fPIC", "-shared", "-w", "-pthread")
SWITCH = "GPT2_NATIVE"  # an environment variable: 0 leaves everything to TensorFlow
SECONDS = 300  # that a compiler may take


class Unavailable(Exception):
    """Why there are no native ops."""


def unheard(line: str) -> None:
    """For callers who want no notice."""


@functools.cache
def ops(notify: Callable[[str], None] = unheard) -> ModuleType:
    """The ops, compiled if this is the first time on this machine. Raises Unavailable.

    notify: told that a compiler is at work, which takes seconds.
    """
    if os.environ.get(SWITCH) == "0":
        raise Unavailable(f"{SWITCH}=0")
    if sys.platform not in ("linux", "darwin"):
        raise Unavailable(f"not written for {sys.platform}")
    compiler = shutil.which(os.environ.get("CXX", "")) or next(filter(None, map(shutil.which, COMPILERS)), None)
    library = cache_folder() / f"ops-{_fingerprint()}.so"
    try:
        if not library.exists():
            if compiler is None:
                raise Unavailable("there is no C++ compiler")
            notify("compiling the decode step for this machine; this happens once and takes some seconds")
            compile_ops(compiler, library)
        return tf.load_op_library(str(library))
    except (OSError, subprocess.SubprocessError, tf.errors.OpError) as error:
        raise Unavailable(f"{compiler} or the library it made failed: {_reason(error)}") from error


def compile_ops(compiler: str, library: Path) -> None:
    """Writes the library under a temporary name first: another process may be doing the same."""
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as temporary:
        made = Path(temporary, library.name)
        command = [compiler, *tf.sysconfig.get_compile_flags(), *OPTIONS, str(SOURCES / MAIN), "-o", str(made)]
        subprocess.run(
            [*command, *tf.sysconfig.get_link_flags()], check=True, capture_output=True, text=True, timeout=SECONDS
        )
        os.replace(made, library)


def cache_folder() -> Path:
    """Where compiled ops are kept: $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpt-2-tensorflow"


def _fingerprint() -> str:
    """Of all that the library depends on: a home or an image may move to another machine."""
    sources = [path.read_bytes() for path in sorted(SOURCES.glob("*.*")) if path.suffix in (".h", ".cc")]
    parts = [*sources, repr((OPTIONS, tf.__version__, platform.machine(), _cpu())).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _cpu() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    return " ".join(re.findall(r"^(?:flags|Features|model name)\s*:.*", info, re.MULTILINE)[:2])


def _reason(error: Exception) -> str:
    said = getattr(error, "stderr", None) or getattr(error, "message", None) or str(error)
    return next((line for line in str(said).splitlines() if "error" in line), str(said).strip().split("\n")[0])
