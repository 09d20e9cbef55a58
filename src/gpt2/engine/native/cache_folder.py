"""The folders of compiled libraries, and the checks that a file in them must pass before it is used.

Files that other users could have written are not used. A library is executed when it is loaded, and a damaged one
ends the process, so each library has a file with its checksum next to it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

FOLDER_VARIABLE = "GPT2_NATIVE_CACHE"  # an environment variable: a folder that takes precedence over the user's cache
USER_FOLDER = "gpt-2-tensorflow"  # folder name in the user's cache
LIBRARY_SUFFIX = ".so"
CHECKSUM_SUFFIX = ".sha256"
FAILURE_SUFFIX = ".failed"
WRITABLE_BY_OTHERS = 0o022  # permission bits of group and others


class NoLibraryError(Exception):
    """The absence of a native library; the message gives the reason."""


def find_libraries(name: str) -> Iterator[Path]:
    """Yield the libraries that may be loaded.

    Args:
        name: The libraries' name without the suffix, or a pattern.

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
        NoLibraryError: There is no cache folder.
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
    """Return the content of a library's checksum file."""
    return hashlib.sha256(library.read_bytes()).hexdigest().encode()


def cache_folders() -> list[Path]:
    """Return the folder that GPT2_NATIVE_CACHE names, if it is set, and the folder in the user's cache.

    Raises:
        NoLibraryError: There is neither folder, or the variable is not an absolute path.
    """
    configured = os.environ.get(FOLDER_VARIABLE, "")
    if configured and not os.path.isabs(configured):
        raise NoLibraryError(f"{FOLDER_VARIABLE} must be an absolute path, not {configured!r}")
    folders = [Path(folder) for folder in (configured, _user_folder()) if folder]
    if not folders:
        raise NoLibraryError(f"there is no home folder for the compiled library; set {FOLDER_VARIABLE} to a folder")
    return folders


def _user_folder() -> str:
    """Return the folder in $XDG_CACHE_HOME or ~/.cache, or an empty string if there is no home folder.

    Other users lose their write permission.
    """
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):  # its specification says to ignore such a value
        cache = os.path.expanduser("~/.cache")
    if not os.path.isabs(cache):
        return ""
    folder = Path(cache, USER_FOLDER)
    with contextlib.suppress(OSError):  # it does not exist, or belongs to another user
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
    """Return the reason why other users could have written a file or folder; empty if they could not."""
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
