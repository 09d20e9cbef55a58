"""The folders of compiled libraries, and the checks that a file in them must pass before it is used.

They are the folder that GPT2_NATIVE_CACHE names, the user's cache and, if neither can be written, a private folder
among the temporary files. Files that other users could have written are not used. A library is executed when it is
loaded, and a damaged one ends the process, so each library has a file with its checksum next to it.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

FOLDER_VARIABLE = "GPT2_NATIVE_CACHE"  # an environment variable: a folder that takes precedence over the user's cache
USER_FOLDER = "gpt-2-tensorflow"  # folder name in the user's cache
LIBRARY_SUFFIX = ".so"
CHECKSUM_SUFFIX = ".sha256"
FAILURE_SUFFIX = ".failed"
WRITABLE_BY_OTHERS = 0o022  # permission bits of group and others
ACCESSIBLE_BY_OTHERS = 0o077
ANOTHER_FOLDER = f"set {FOLDER_VARIABLE} to a folder that can be written"  # advice in error messages


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
            yield from _sound_libraries(folder, name)
    for folder in _existing_private_folders():
        yield from _sound_libraries(folder, name)


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


def find_writable_folder() -> Path | None:
    """Return the cache folder for new files, created if it does not exist; None if no cache folder can be written.

    Raises:
        NoLibraryError: Other users can write to the folder.
        OSError: The folder cannot be examined.
    """
    for folder in cache_folders():
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            _check_permissions(folder)
            return folder
    return None


def find_library_folders() -> Iterator[Path]:
    """Yield the folders for a new library in the order in which they are tried: the cache, then a private folder.

    Raises:
        NoLibraryError: Other users can write to the cache, or could replace the private folder.
        OSError: A folder cannot be examined or created.
    """
    if folder := find_writable_folder():
        yield folder
    yield private_folder()


def private_folder() -> Path:
    """Return a folder among the temporary files that only this user can access.

    All of the user's processes share it, so that the library is compiled once. If another user has taken its name, this
    process gets a new folder, which is removed at exit.

    Raises:
        NoLibraryError: Other users could replace the folder, or no temporary folder can be written.
    """
    try:
        folder = _shared_private_folder()
        if _is_replaceable(folder):
            raise NoLibraryError(f"other users can replace files in {folder.parent}; {ANOTHER_FOLDER}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        return folder if _is_private(folder) else _new_private_folder()
    except OSError as error:
        raise NoLibraryError(f"no temporary folder can be written: {error}; {ANOTHER_FOLDER}") from error


def _existing_private_folders() -> list[Path]:
    with contextlib.suppress(OSError):
        folder = _shared_private_folder()
        if _is_private(folder) and not _is_replaceable(folder):
            return [folder]
    return []


def _shared_private_folder() -> Path:
    """Return the path of the user's private folder, which may not exist or may belong to another user."""
    return Path(tempfile.gettempdir(), f"{USER_FOLDER}-{os.geteuid()}")


@functools.cache
def _new_private_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"{USER_FOLDER}-"))  # only this user can access it
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _is_private(folder: Path) -> bool:
    """Return whether a path is a folder, and not a link to one, that only this user can access."""
    status = folder.lstat()
    is_own = status.st_uid == os.geteuid() and not status.st_mode & ACCESSIBLE_BY_OTHERS
    return is_own and stat.S_ISDIR(status.st_mode)


def _is_replaceable(folder: Path) -> bool:
    """Return whether other users could rename a folder: its parent is theirs, or is open to them and not sticky."""
    status = folder.parent.stat()
    is_foreign = status.st_uid not in (0, os.geteuid())
    return is_foreign or bool(status.st_mode & WRITABLE_BY_OTHERS and not status.st_mode & stat.S_ISVTX)


def checksum(library: Path) -> bytes:
    """Return the content of a library's checksum file."""
    return hashlib.sha256(library.read_bytes()).hexdigest().encode()


def cache_folders() -> list[Path]:
    """Return the folder that GPT2_NATIVE_CACHE names, if it is set, and the user's cache, if there is a home folder.

    Raises:
        NoLibraryError: The variable is not an absolute path.
    """
    configured = os.environ.get(FOLDER_VARIABLE, "")
    if configured and not os.path.isabs(configured):
        raise NoLibraryError(f"{FOLDER_VARIABLE} must be an absolute path, not {configured!r}")
    return [Path(folder) for folder in (configured, _user_folder()) if folder]


def all_folders() -> list[Path]:
    """Return all existing folders that may hold libraries.

    Raises:
        NoLibraryError: GPT2_NATIVE_CACHE is not an absolute path.
        OSError: A folder cannot be examined.
    """
    return [*(folder for folder in cache_folders() if folder.exists()), *_existing_private_folders()]


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


def _sound_libraries(folder: Path, name: str) -> Iterator[Path]:
    return (path for path in sorted(folder.glob(name + LIBRARY_SUFFIX)) if _is_sound(path))


def _is_sound(library: Path) -> bool:
    try:
        return not _permission_problem(library) and library.with_suffix(CHECKSUM_SUFFIX).read_bytes() == checksum(
            library
        )
    except OSError:
        return False
