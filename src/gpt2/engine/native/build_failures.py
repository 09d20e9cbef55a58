"""Failures of compilers: their causes, and records of failures that would occur again at every start.

A compiler that rejects the sources is not tried again until it or the sources change, because it may take long to fail.
A failure that may pass, such as a full disk or a killed compiler, is not recorded.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2 import files
from gpt2.engine.native.cache_folder import FAILURE_SUFFIX

if TYPE_CHECKING:  # needed only to compile
    from subprocess import SubprocessError

FULL_DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# Errors of the system that may pass. A missing file, such as a header, may be installed.
PASSING_ERRNOS = (
    *FULL_DISK_ERRNOS,
    *(errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.EIO, errno.EFBIG, errno.EBUSY, errno.ETXTBSY),
    *(errno.ENOENT, errno.EACCES, errno.ESTALE, errno.ETIMEDOUT),
)
ZIG_FULL_DISK = ("NoSpaceLeft", "DiskQuota", "ReadOnlyFileSystem")  # Zig has its own names of the system's errors
ZIG_PASSING = ("OutOfMemory", "SystemResources", "FdQuotaExceeded", "FileNotFound", "AccessDenied", "InputOutput")
MEMORY_OR_SIGNAL = (
    r"\b[Kk]illed\b",
    r"\bsignal\b",
    "died with",
    "timed out",
    "out of memory",
    "memory exhausted",
    "bad_alloc",
)
FULL_DISK = re.compile("|".join([*map(re.escape, map(os.strerror, FULL_DISK_ERRNOS)), *ZIG_FULL_DISK]))
PASSING = re.compile(
    "|".join([FULL_DISK.pattern, *map(re.escape, map(os.strerror, PASSING_ERRNOS)), *ZIG_PASSING, *MEMORY_OR_SIGNAL])
)
SHELL_SIGNALS = 128  # a shell's exit status is this plus the number of the signal that ended the command


def describe(error: SubprocessError) -> str:
    """Return the cause of a compiler's failure in one line."""
    if (timeout := getattr(error, "timeout", None)) is not None:
        return f"timed out after {timeout:g} seconds"
    output = _output(error).strip()
    line = next((line for line in output.splitlines() if "error" in line), output.split("\n")[0])
    if number := _signal_number(error):
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(number).name}{f': {line}' if line else ''}"
    return line or f"exit status {getattr(error, 'returncode', 'unknown')} without a message"


def may_pass(error: SubprocessError) -> bool:
    """Return whether a compiler may succeed later with the same sources: unless it has found an error in them."""
    if not hasattr(error, "returncode") or _signal_number(error):
        return True
    output = _output(error)
    return "error" not in output or names_passing_cause(output)


def names_passing_cause(message: str) -> bool:
    """Return whether a message names a cause that may pass, such as a lack of memory."""
    return PASSING.search(message) is not None


def names_full_disk(message: str) -> bool:
    """Return whether a message says that a disk is full or cannot be written."""
    return FULL_DISK.search(message) is not None


def _output(error: SubprocessError) -> str:
    return str(getattr(error, "stderr", None) or getattr(error, "stdout", None) or "")


def _signal_number(error: SubprocessError) -> int:
    """Return the number of the signal that ended a compiler, or 0."""
    status = getattr(error, "returncode", 0)
    return -status if status < 0 else max(0, status - SHELL_SIGNALS)


def recall(path: Path) -> str:
    """Return the recorded failure, or an empty string; a record of a failure that may pass is removed.

    Earlier versions recorded every failure.
    """
    try:
        reason = path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
    if reason and not names_passing_cause(reason):
        return reason
    with contextlib.suppress(OSError):
        path.unlink()
    return ""


def remember(path: Path, reason: str) -> None:
    """Record a failure, and remove the records that belong to other versions of the sources.

    Args:
        path: The record, whose name is that of the library.
        reason: The failure, in one line.
    """
    version = path.name.rpartition("-")[0]
    with contextlib.suppress(OSError):
        for other in path.parent.glob(f"*{FAILURE_SUFFIX}"):
            if not other.name.startswith(version):
                other.unlink(missing_ok=True)
        with files.temporary_file(path, sync=False) as part:  # never half of it
            part.write_text(reason, encoding="utf-8")


def forget(folder: Path) -> None:
    """Remove all records from a folder.

    Raises:
        OSError: A record cannot be removed.
    """
    for path in folder.glob(f"*{FAILURE_SUFFIX}"):
        path.unlink()
