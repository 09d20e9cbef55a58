"""The folders of compiled libraries, and which files in them may be used: whole ones that only this user or root wrote.

A library is executed when it is loaded, and a damaged one ends the process, so a file with its checksum lies next to
each.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

FOLDER_VARIABLE = "GPT2_NATIVE_CACHE"  # an environment variable: a folder that is used before the user's own
OWN_FOLDER = "gpt-2-tensorflow"  # in the user's cache
LIBRARY_SUFFIX = ".so"
CHECKSUM_SUFFIX = ".sha256"
FAILURE_SUFFIX = ".failed"
WRITABLE_BY_OTHERS = 0o022  # permission bits of group and others


class NoLibraryError(Exception):
    """There is no native library; the message says why."""


def find_libraries(name: str) -> Iterator[Path]:
    """Yield the libraries that may be loaded.

    Args:
        name: Their name without the suffix, or a pattern.

    Raises:
        NoLibraryError: Other users can write to the folder.
        OSError: A file cannot be read.
    """
    for folder in cache_folders():
        if folder.exists():
            _check_permissions(folder)
            yield from (path for path in sorted(folder.glob(name + LIBRARY_SUFFIX)) if _is_sound(path))


def find_trusted_files(name: str) -> Iterator[Path]:
    """Yield the files of this name that only this user and root could have written.

    Raises:
        NoLibraryError: There is no folder.
        OSError: A file cannot be examined.
    """
    for folder in cache_folders():
        path = folder / name
        if path.exists() and not _permission_problem(folder) and not _permission_problem(path):
            yield path


def find_writable_folder() -> Path:
    """Return the folder for new files, and create it if it does not exist.

    Raises:
        NoLibraryError: No folder can be written, or other users can write to it.
        OSError: The folder cannot be examined.
    """
    for folder in cache_folders():
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            _check_permissions(folder)
            return folder
    raise NoLibraryError(f"{folder} cannot be written; set {FOLDER_VARIABLE} to another folder")


def checksum(library: Path) -> bytes:
    """Return the content of the file next to a library that holds its checksum."""
    return hashlib.sha256(library.read_bytes()).hexdigest().encode()


def cache_folders() -> list[Path]:
    """Return the folder that GPT2_NATIVE_CACHE names, if it is set, and the user's own.

    Raises:
        NoLibraryError: There is neither, or the variable is not an absolute path.
    """
    named = os.environ.get(FOLDER_VARIABLE, "")
    if named and not os.path.isabs(named):
        raise NoLibraryError(f"{FOLDER_VARIABLE} must be an absolute path, not {named!r}")
    folders = [Path(folder) for folder in (named, _own_folder()) if folder]
    if not folders:
        raise NoLibraryError(f"there is no home folder for the compiled step; set {FOLDER_VARIABLE} to a folder")
    return folders


def _own_folder() -> str:
    """Return the folder in $XDG_CACHE_HOME or ~/.cache, empty without a home, and remove others' write permission."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):  # its specification says to ignore such a value
        cache = os.path.expanduser("~/.cache")
    if not os.path.isabs(cache):
        return ""
    folder = Path(cache, OWN_FOLDER)
    with contextlib.suppress(OSError):  # it does not exist, or belongs to somebody else
        if folder.stat().st_mode & WRITABLE_BY_OTHERS:
            folder.chmod(0o700)
    return str(folder)


def _check_permissions(folder: Path) -> None:
    if problem := _permission_problem(folder):
        raise NoLibraryError(
            f"{folder} {problem}, so nothing in it is executed; change its owner or permissions, or set"
            f" {FOLDER_VARIABLE} to another folder"
        )


def _permission_problem(path: Path) -> str:
    """Return how other users could have written this file or folder; empty if they could not."""
    status = path.stat()
    if status.st_uid not in (0, os.geteuid()):
        return "belongs to another user"
    return "can be written by other users" if status.st_mode & WRITABLE_BY_OTHERS else ""


def _is_sound(library: Path) -> bool:
    try:
        return not _permission_problem(library) and library.with_suffix(CHECKSUM_SUFFIX).read_bytes() == checksum(
            library
        )
    except OSError:
        return False
