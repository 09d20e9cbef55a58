"""Compiles the native library for this machine, once, and loads it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from gpt2 import devices, files
from gpt2.engine.native import cache_folder
from gpt2.engine.native.cache_folder import NoLibrary
from gpt2.files import no_callback

SOURCES = Path(__file__).parent
MAIN = "library.cc"
COMPILERS = ("c++", "g++", "clang++")
ZIG = "ziglang"  # a package that carries a compiler, Clang under another name: the extra `compiler`
ZIG_CACHE = "ZIG_GLOBAL_CACHE_DIR"  # an environment variable of Zig's
NO_COMPILER = f"there is no C++ compiler; pip install {ZIG} brings one"
# For this processor; of the two, Clang has long had one for ARM and the other for x86.
NATIVE = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
OPTIONS = (
    "-std=c++17",
    "-O3",
    NATIVE,
    "-fno-math-errno",
    "-ffp-contract=off",
    "-fPIC",
    "-fvisibility=hidden",  # or GCC makes a template's thread_local one for all libraries of a process
    "-shared",
    "-w",
    "-pthread",
)
WITHOUT_TILES = "-U__AMX_BF16__"  # what pairs.h goes by; there is no kernel for Intel's matrix unit then
SWITCH = "GPT2_NATIVE"  # an environment variable: 0 leaves everything to TensorFlow
SECONDS = 1800  # that a compiler may take; Zig compiles its C++ library too


def load(notify: Callable[[str], None] = no_callback) -> ctypes.CDLL:
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


def find(notify: Callable[[str], None] = no_callback) -> ctypes.CDLL:
    """What `load` does when it is first called."""
    if os.environ.get(SWITCH) == "0":
        raise NoLibrary(f"{SWITCH}=0")
    if sys.platform not in ("linux", "darwin"):
        raise NoLibrary(f"not written for {sys.platform}")
    name, found = f"native-{_fingerprint()}", []
    try:
        for compiler in compilers():
            found.append(compiler)
            if library := _kept(f"{name}-{_identity(compiler)}"):
                return library
        if found:
            return _first_compiled(found, name, notify)
        if library := _kept(f"{name}-*"):
            return library
        raise NoLibrary(NO_COMPILER)
    except OSError as error:
        raise NoLibrary(str(error)) from error


def _kept(name: str) -> ctypes.CDLL | None:
    """The first library of this name, or of all that match it, that can be loaded. Raises NoLibrary, OSError."""
    for library in cache_folder.libraries(name):
        with contextlib.suppress(OSError):  # whole, but made where libraries are others
            return ctypes.CDLL(str(library))
    return None


def compilers() -> Iterator[str]:
    """Those that there are, in the order in which they are tried: $CXX alone, or the usual ones and Zig last."""
    if chosen := shutil.which(os.environ.get("CXX", "")):
        yield chosen
        return
    different: dict[str, str] = {}
    for found in filter(None, map(shutil.which, COMPILERS)):
        different.setdefault(os.path.realpath(found), found)
    yield from different.values()
    package = importlib.util.find_spec(ZIG)
    if package and package.origin:
        yield from filter(None, [shutil.which(Path(package.origin).with_name("zig"))])


def _first_compiled(compilers: list[str], name: str, notify: Callable[[str], None]) -> ctypes.CDLL:
    """By the first of the compilers that can; raises NoLibrary with what the first said if none can, OSError."""
    reasons = []
    for compiler in compilers:
        try:
            return _compiled(compiler, cache_folder.writable() / f"{name}-{_identity(compiler)}", notify)
        except NoLibrary as reason:
            reasons.append(reason)
    raise reasons[0]


def _compiled(compiler: str, library: Path, notify: Callable[[str], None]) -> ctypes.CDLL:
    """A new one, unless the same was tried before in vain, which takes as long. Raises NoLibrary, OSError."""
    library, failure = library.with_suffix(cache_folder.LIBRARY), library.with_suffix(cache_folder.FAILURE)
    try_again = f"; to try again, delete {failure}"
    if failure.exists():
        raise NoLibrary(failure.read_text(encoding="utf-8", errors="replace") + try_again)
    import subprocess  # once in a machine's life

    takes = "a minute or more" if _is_zig(compiler) else "some seconds"
    notify(f"compiling the decode step for this machine; this happens once and takes {takes}")
    try:
        compile_library(compiler, library)
    except subprocess.SubprocessError as error:
        reason = f"{compiler} failed: {_reason(error)}"
    else:
        try:
            return ctypes.CDLL(str(library))
        except OSError as error:
            reason = f"what {compiler} made cannot be loaded: {error}"
    failure.write_text(reason, encoding="utf-8")
    raise NoLibrary(reason + try_again)


def try_again() -> None:
    """Forgets which compilers have failed."""
    _tried.cache_clear()
    with contextlib.suppress(OSError, NoLibrary):
        for path in cache_folder.folders():
            for failure in path.glob(f"*{cache_folder.FAILURE}"):
                failure.unlink()


def compile_library(compiler: str, library: Path) -> None:
    """Makes the library and its checksum, which are there whole or not at all: another process may be doing the same.

    Raises subprocess.SubprocessError, OSError.
    """
    import subprocess
    import tempfile

    with files.atomic_write_many(library.parent, last=library.with_suffix(cache_folder.CHECKSUM).name) as temporary:
        made = temporary / library.name
        with tempfile.TemporaryDirectory(dir=temporary) as cache:  # or Zig leaves some 60 MB lying about
            command = [*command_of(compiler), *options(), str(SOURCES / MAIN), "-o", str(made)]
            environment = {ZIG_CACHE: cache, **os.environ}
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS, env=environment)
        made.chmod(0o755)  # whatever the umask is
        made.with_suffix(cache_folder.CHECKSUM).write_bytes(cache_folder.checksum(made))


def options() -> list[str]:
    """What compilers are told on this machine. They ask the processor, which does not know what the system allows."""
    return [*OPTIONS] if devices.is_amx_permitted() else [*OPTIONS, WITHOUT_TILES]


def command_of(compiler: str) -> list[str]:
    """How a compiler is called: Zig is told that it is one, and to leave its own C++ library's names out."""
    return [compiler, "c++", "-s"] if _is_zig(compiler) else [compiler]


def _is_zig(compiler: str) -> bool:
    return Path(compiler).stem == "zig"


def _fingerprint() -> str:
    """Of all that the library depends on but the compiler: a home or an image may move to another machine."""
    sources = [path.read_bytes() for path in sorted(SOURCES.glob("*.*")) if path.suffix in (".h", ".cc")]
    parts = [*sources, repr((options(), platform.machine(), _cpu(), platform.libc_ver())).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _identity(compiler: str) -> str:
    """Of a compiler's version; to ask it would take longer than all else. An image keeps whole seconds only."""
    path = os.path.realpath(compiler)
    found = os.stat(path)
    return hashlib.sha256(repr((path, found.st_size, int(found.st_mtime))).encode()).hexdigest()[:8]


def _cpu() -> str:
    try:
        info = devices.CPU_INFO_FILE.read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    return " ".join(re.findall(r"^(?:flags|Features|model name)\s*:.*", info, re.MULTILINE)[:2])


def _reason(error: Exception) -> str:
    said = getattr(error, "stderr", None) or str(error)
    return next((line for line in str(said).splitlines() if "error" in line), str(said).strip().split("\n")[0])
