"""Functions that compile the native library once for this machine, and load it."""

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
from gpt2.engine.native.cache_folder import NoLibraryError
from gpt2.errors import SUGGESTION_MARK, UsageError, suggest
from gpt2.files import no_callback
from gpt2.installation import install_command

SOURCE_FOLDER = Path(__file__).parent
MAIN_SOURCE = "library.cc"
COMPILERS = ("c++", "g++", "clang++")
COMPILER_REQUIREMENT = ZIG = "ziglang"  # the package of the extra `compiler`, which contains Clang
ZIG_CACHE_VARIABLE = "ZIG_GLOBAL_CACHE_DIR"
# Selects this machine's processor. Older versions of Clang support only the first option on ARM, the second on x86.
NATIVE_OPTION = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
OPTIONS = (
    "-std=c++17",
    "-O3",
    NATIVE_OPTION,
    "-fno-math-errno",
    "-ffp-contract=off",
    "-fPIC",
    "-fvisibility=hidden",  # otherwise all libraries of a process share a template's thread_local with GCC
    "-shared",
    "-w",
    "-pthread",
)
WITHOUT_TILES = "-U__AMX_BF16__"  # the macro that pairs.h checks: without it there is no kernel for Intel's AMX
SWITCH_VARIABLE = "GPT2_NATIVE"  # an environment variable: 0 disables the native library
SWITCH_WORDS = {"false": "0", "off": "0", "no": "0", "true": "1", "on": "1", "yes": "1"}  # for a suggestion
TRY_AGAIN = "; the next start tries again"  # ends the message about a failure that may pass
COMPILER_TIMEOUT = 1800  # seconds; Zig compiles its C++ library as well


class FullDiskError(NoLibraryError):
    """The failure of a compiler that could not write its files."""


def load(notify: Callable[[str], None] = no_callback) -> ctypes.CDLL:
    """Return the library, compiled if this is its first use on this machine.

    Args:
        notify: Called with a line before compiling, which takes seconds.

    Raises:
        NoLibraryError: There is no library for this machine.
    """
    library = _find_once(notify)
    if isinstance(library, NoLibraryError):
        raise NoLibraryError(str(library))
    return library


@functools.cache
def _find_once(notify: Callable[[str], None]) -> ctypes.CDLL | NoLibraryError:
    """Return the result or error of `find`, called once per process because a failing compiler may take long."""
    try:
        return find(notify)
    except NoLibraryError as error:
        return error


def find(notify: Callable[[str], None] = no_callback) -> ctypes.CDLL:
    """Return the library like `load`, but without remembering the result.

    Args:
        notify: Called with a line before compiling, which takes seconds.

    Raises:
        NoLibraryError: There is no library for this machine.
    """
    _check_switch()
    if sys.platform not in ("linux", "darwin"):
        raise NoLibraryError(f"it does not support {sys.platform} yet")
    name = f"native-{_fingerprint()}"
    available = []
    try:
        for compiler in find_compilers():
            available.append(compiler)
            if library := _load_compiled(f"{name}-{_compiler_identity(compiler)}"):
                return library
        if available:
            return _compile_with_first(available, name, notify)
        if library := _load_compiled(f"{name}-*"):
            return library
        raise NoLibraryError(f"there is no C++ compiler; install one with: {install_command(COMPILER_REQUIREMENT)}")
    except OSError as error:
        raise NoLibraryError(str(error)) from error


def _check_switch() -> None:
    switch = os.environ.get(SWITCH_VARIABLE, "")
    if switch == "0":
        raise NoLibraryError(f"{SWITCH_VARIABLE}=0")
    if switch not in ("", "1"):
        similar = (value for word, value in SWITCH_WORDS.items() if switch.lower() == word or suggest(switch, [word]))
        meant = next(similar, None)
        advice = f"{SUGGESTION_MARK}{meant}?" if meant else ""
        raise UsageError(
            f"the environment variable {SWITCH_VARIABLE} must be 0 (off), 1 or unset, not {switch!r}{advice}"
        )


def _load_compiled(name: str) -> ctypes.CDLL | None:
    """Return the first loadable library whose name matches a name or pattern, or None."""
    for library in cache_folder.find_libraries(name):
        with contextlib.suppress(OSError):  # the file is complete, but needs other system libraries
            return ctypes.CDLL(str(library))
    return None


def find_compilers() -> Iterator[str]:
    """Yield the compilers in the order in which they are tried: $CXX alone, or the usual ones and Zig last."""
    if chosen := shutil.which(os.environ.get("CXX", "")):
        yield chosen
        return
    by_real_path: dict[str, str] = {}
    for path in filter(None, map(shutil.which, COMPILERS)):
        by_real_path.setdefault(os.path.realpath(path), path)
    yield from by_real_path.values()
    package = importlib.util.find_spec(ZIG)
    if package and package.origin:
        yield from filter(None, [shutil.which(Path(package.origin).with_name("zig"))])


def _compile_with_first(compilers: list[str], name: str, notify: Callable[[str], None]) -> ctypes.CDLL:
    """Return the library from the first compiler that succeeds.

    Raises:
        NoLibraryError: No compiler succeeds; the error is the first compiler's.
    """
    errors = []
    for compiler in compilers:
        try:
            return _compile_in_first_folder(compiler, name, notify)
        except NoLibraryError as error:
            errors.append(error)
    raise errors[0]


def _compile_in_first_folder(compiler: str, name: str, notify: Callable[[str], None]) -> ctypes.CDLL:
    """Return the library, compiled into the first folder that has space for it.

    Raises:
        NoLibraryError: The compiler fails, or no folder can be written; the error is that of the first folder.
    """
    first_error: NoLibraryError | None = None
    try:
        for folder in cache_folder.find_library_folders():
            try:
                return _compile_and_load(compiler, folder / f"{name}-{_compiler_identity(compiler)}", notify)
            except FullDiskError as error:
                first_error = first_error or error
            except OSError as error:
                reason = f"{error.strerror or error} ({error.filename or folder})"
                first_error = first_error or NoLibraryError(f"the library cannot be compiled: {reason}{TRY_AGAIN}")
    except NoLibraryError as error:
        first_error = first_error or error
    raise first_error or NoLibraryError(f"no folder can be written; {cache_folder.ANOTHER_FOLDER}")


def _compile_and_load(compiler: str, path: Path, notify: Callable[[str], None]) -> ctypes.CDLL:
    """Compile and load the library, unless the same compiler has failed before for a reason that does not pass.

    Raises:
        FullDiskError: The compiler reports a full disk.
        NoLibraryError: The compiler fails, or has failed before.
        OSError: A file cannot be written.
    """
    from gpt2.engine.native import build_failures  # needed only once on a machine, as subprocess

    library = path.with_suffix(cache_folder.LIBRARY_SUFFIX)
    failure = path.with_suffix(cache_folder.FAILURE_SUFFIX)
    advice = f"; to try again, delete {failure}"
    if reason := build_failures.recall(failure):
        raise NoLibraryError(reason + advice)
    import subprocess

    duration = "a minute or more" if _is_zig(compiler) else "a few seconds"
    notify(f"compiling the decode step for this machine; this happens once and takes {duration}")
    try:
        compile_library(compiler, library)
    except subprocess.SubprocessError as error:
        reason = f"{compiler} failed: {build_failures.describe(error)}"
        passes = build_failures.may_pass(error)
    else:
        try:
            return ctypes.CDLL(str(library))
        except OSError as error:
            reason = f"the library that {compiler} compiled cannot be loaded: {error}"
            passes = build_failures.names_passing_cause(reason)
    if build_failures.names_full_disk(reason):
        raise FullDiskError(reason + TRY_AGAIN)
    if passes:
        raise NoLibraryError(reason + TRY_AGAIN)
    build_failures.remember(failure, reason)
    raise NoLibraryError(reason + advice)


def forget_failures() -> None:
    """Delete the records of failed compilers."""
    from gpt2.engine.native import build_failures

    _find_once.cache_clear()
    with contextlib.suppress(OSError, NoLibraryError):
        for folder in cache_folder.all_folders():
            build_failures.forget(folder)


def compile_library(compiler: str, library: Path) -> None:
    """Compile the library and write it with its checksum, both or neither.

    Another process may do the same at the same time.

    Raises:
        subprocess.SubprocessError: The compiler fails.
        OSError: A file cannot be written.
    """
    import subprocess
    import tempfile

    with files.atomic_write_many(library.parent, last=library.with_suffix(cache_folder.CHECKSUM_SUFFIX).name) as folder:
        output = folder / library.name
        with tempfile.TemporaryDirectory(dir=folder) as cache:  # Zig would leave 60 MB behind
            command = [*compiler_command(compiler), *compiler_options()]
            command += [str(SOURCE_FOLDER / MAIN_SOURCE), "-o", str(output)]
            # Messages in English, in which causes are recognized.
            environment = {ZIG_CACHE_VARIABLE: cache, **os.environ, "LC_ALL": "C"}
            subprocess.run(
                command,
                check=True,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=COMPILER_TIMEOUT,
                env=environment,
            )
        output.chmod(0o755)  # whatever the umask is
        output.with_suffix(cache_folder.CHECKSUM_SUFFIX).write_bytes(cache_folder.checksum(output))


def compiler_options() -> list[str]:
    """Return the compiler's options on this machine.

    Compilers query the processor, which does not report whether the system permits AMX.
    """
    return [*OPTIONS] if devices.is_amx_permitted() else [*OPTIONS, WITHOUT_TILES]


def compiler_command(compiler: str) -> list[str]:
    """Return the command that runs a compiler.

    Zig needs arguments to act as a C++ compiler and to strip the symbols of its C++ library.
    """
    return [compiler, "c++", "-s"] if _is_zig(compiler) else [compiler]


def _is_zig(compiler: str) -> bool:
    return Path(compiler).stem == "zig"


def _fingerprint() -> str:
    """Return a hash of everything that the library depends on, except the compiler.

    It includes the processor, because a home folder or an image may move to another machine.
    """
    sources = [path.read_bytes() for path in sorted(SOURCE_FOLDER.glob("*.*")) if path.suffix in (".h", ".cc")]
    parts = [*sources, repr((compiler_options(), platform.machine(), _processor(), platform.libc_ver())).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _compiler_identity(compiler: str) -> str:
    """Return a hash of the compiler's path, size and time, since querying its version would take too long.

    The time is in whole seconds, because container images do not store fractions.
    """
    path = os.path.realpath(compiler)
    status = os.stat(path)
    return hashlib.sha256(repr((path, status.st_size, int(status.st_mtime))).encode()).hexdigest()[:8]


def _processor() -> str:
    try:
        info = devices.CPU_INFO_FILE.read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    return " ".join(re.findall(r"^(?:flags|Features|model name)\s*:.*", info, re.MULTILINE)[:2])
