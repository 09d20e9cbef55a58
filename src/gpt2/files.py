"""Functions that read files with one-line errors, and write files that are either complete or absent.

This is the only module that creates temporary names, syncs to the disk and renames.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from gpt2.errors import DamagedFileError, GPT2Error, UnreadableFileError

# A progress callback, called with (done, total) bytes; the total is None if it is unknown.
ByteProgress = Callable[[int, "int | None"], object]
MAX_TEXT_FILE_BYTES = 1 << 26  # GPT-2's encoder.json, the largest of these files, has one million bytes
NO_LOCK_ERRNOS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # the file system does not support locks
TEMPORARY_NAME = re.compile(r"\..+\.[0-9a-f]{8}\.part")
UNFINISHED_PREFIX = ".saving-"  # prefix of temporary folders in which several files are written


def no_callback(*_: object) -> None:
    """Do nothing; the default of callback parameters."""


@contextlib.contextmanager
def reporting_read_errors(path: Path) -> Iterator[None]:
    """Turn the system's errors in the block into UnreadableFileError, which names the file."""
    try:
        yield
    except OSError as error:
        raise UnreadableFileError(path, error) from error


def file_fingerprint(path: Path) -> str:
    """Return a string that identifies a file and the version of its content.

    Raises:
        UnreadableFileError: The file cannot be examined.
    """
    with reporting_read_errors(path):
        status = path.stat()
    return f"{os.path.realpath(path)} {status.st_size} {status.st_mtime_ns} {status.st_ino}"


def is_file(path: Path) -> bool:
    """Return whether a regular file has this name.

    Raises:
        UnreadableFileError: The path cannot be examined, for example because of a loop of links.
    """
    return stat.S_ISREG(_mode(path))


def is_folder(path: Path) -> bool:
    """Return whether a folder has this name; raise UnreadableFileError like `is_file`."""
    return stat.S_ISDIR(_mode(path))


def _mode(path: Path) -> int:
    """Return the mode bits of a file or folder, or 0 if it does not exist."""
    try:
        with reporting_read_errors(path):
            return path.stat().st_mode
    except ValueError:  # no file name can contain a null character
        return 0
    except UnreadableFileError as error:
        if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
            return 0
        raise


def read_text(path: Path) -> str:
    """Return the content of a UTF-8 file.

    Raises:
        UnreadableFileError: The file cannot be read.
        DamagedFileError: The file is not UTF-8 or has more than MAX_TEXT_FILE_BYTES.
    """
    with reporting_read_errors(path), path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > MAX_TEXT_FILE_BYTES:
            raise DamagedFileError(path, f"it has more than {MAX_TEXT_FILE_BYTES} bytes, the limit for such files")
        data = file.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DamagedFileError(path, f"it is not UTF-8 at byte {error.start}") from error


def read_json(path: Path) -> Any:
    """Return the value of a JSON file.

    Raises:
        UnreadableFileError: The file cannot be read.
        DamagedFileError: The file is not JSON or is nested too deeply.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(path, f"it cannot be parsed as JSON: {error}") from error


@contextlib.contextmanager
def creating_folder(folder: Path) -> Iterator[None]:
    """Create a folder and its parents; if the block fails, remove the new folders that are empty.

    Raises:
        GPT2Error: The folder cannot be created.
    """
    created: list[Path] = []
    try:
        try:
            created = [path for path in (folder, *folder.parents) if not path.exists()]
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            raise GPT2Error(f"the folder {folder} cannot be created: {getattr(error, 'strerror', error)}") from error
        yield
    except BaseException:
        for path in created:
            with contextlib.suppress(OSError, ValueError):
                path.rmdir()
        raise


def expand_path(path: str) -> Path:
    """Return the path with `~` and $VARIABLES expanded; unknown variables remain unchanged."""
    return Path(os.path.expanduser(os.path.expandvars(path)))


def partial_path(path: Path) -> Path:
    """Return the path of an incomplete file, such as a download, which a later process can resume."""
    return path.with_name(f"{path.name}.part")


@contextlib.contextmanager
def open_exclusive(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for appending, creating it if needed, and lock it against other processes that use this function.

    The lock ends with the block or with the process.

    Raises:
        GPT2Error: Another process has locked the file.
        OSError: The file cannot be written.
    """
    while True:
        with path.open("ab") as file:
            try:
                _lock(file.fileno())
            except BlockingIOError as error:
                raise GPT2Error(f"{path} is being written by another process; wait until that process ends") from error
            if _has_name(file, path):  # otherwise another process has renamed or removed it
                yield file
                return


def _lock(file: int) -> bool:
    """Lock an open file until it is closed or the process ends.

    Args:
        file: The file descriptor.

    Returns:
        Whether the file system supports locks.

    Raises:
        BlockingIOError: Another process has locked the file.
    """
    import fcntl  # does not exist on Windows

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NO_LOCK_ERRNOS:
            raise
        return False
    return True


def _has_name(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sync(path: Path) -> None:
    """Wait until the content of a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def move_into_place(part: Path, path: Path) -> None:
    """Give a complete file its final name, replacing an existing file.

    The file is synced first, because a power failure must not leave a name without its content.

    Raises:
        OSError: The file cannot be synced or renamed.
    """
    _sync(part)
    os.replace(part, path)


def _temporary_name(path: Path) -> Path:
    """Return a new temporary name for a path, after removing the temporary files of killed processes for it."""
    pattern = f".{glob.escape(path.name)}.*.part"
    _remove_unlocked(part for part in path.parent.glob(pattern) if TEMPORARY_NAME.fullmatch(part.name))
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


@contextlib.contextmanager
def temporary_file(path: Path, sync: bool = True) -> Iterator[Path]:
    """Yield the path of an empty file to write to, which is renamed to `path` when the block succeeds.

    An error or Ctrl-C leaves an existing file unchanged. The next call removes the temporary files of killed processes.

    Args:
        path: The final name.
        sync: Whether to wait until the file is on the disk before renaming it. If False, a power failure may leave a
            truncated file, which readers must detect.

    Raises:
        OSError: The file cannot be written.
    """
    part = _temporary_name(path)
    part.touch()
    try:
        with _locked(part):
            yield part
            move_into_place(part, path) if sync else os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to write to, which is renamed to `folder` when the block succeeds.

    Only an empty folder may already have that name.

    Raises:
        OSError: The folder cannot be written.
    """
    part = _temporary_name(folder)
    part.mkdir()
    try:
        with _locked(part):
            yield part
            for path in part.rglob("*"):
                if path.is_file():
                    _sync(path)
            with contextlib.suppress(FileNotFoundError):
                folder.rmdir()
            part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Lock a file or folder; yield False if another process has locked it or the file system has no locks."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            is_locked = _lock(descriptor)
        except OSError:
            is_locked = False
        yield is_locked
    finally:
        os.close(descriptor)


def _remove_unlocked(paths: Iterable[Path]) -> None:
    """Remove the files and folders that no running process has locked."""
    for path in paths:
        with contextlib.suppress(OSError), _locked(path) as is_locked:
            if is_locked:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files and folders of killed processes from a folder; files in use remain."""
    _remove_unlocked(part for part in folder.glob(".*.part") if TEMPORARY_NAME.fullmatch(part.name))


def remove_unfinished(folder: Path) -> None:
    """Remove all temporary files and folders of this module from a folder.

    No other process may be writing in the folder.
    """
    for path in [*folder.glob(f"{UNFINISHED_PREFIX}*"), *folder.glob(".*.part")]:
        if path.name.startswith(UNFINISHED_PREFIX) or (TEMPORARY_NAME.fullmatch(path.name) and path.is_dir()):
            shutil.rmtree(path, ignore_errors=True)
        elif TEMPORARY_NAME.fullmatch(path.name):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file to write to, which gets its name when the block succeeds.

    An error or Ctrl-C leaves an existing file unchanged. If `path` exists and is not a regular file, such as
    /dev/null or a pipe, it is written to directly.

    Raises:
        GPT2Error: The file cannot be written.
    """
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
            return
        with temporary_file(path) as part, part.open("wb") as file:
            yield file
    except OSError as error:
        raise GPT2Error(f"{path} cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def atomic_write_many(folder: Path, last: str) -> Iterator[Path]:
    """Yield a temporary folder for several files, which are moved into `folder` when the block succeeds.

    The next call removes the temporary files of killed processes.

    Args:
        folder: The folder of the files; created if needed.
        last: The name of the file that is moved last. It determines which of the other files are valid. An interruption
            therefore leaves the previous files in use.

    Raises:
        OSError: The files cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_unlocked(folder.glob(f"{UNFINISHED_PREFIX}*"))
    with tempfile.TemporaryDirectory(prefix=UNFINISHED_PREFIX, dir=folder) as temporary, _locked(Path(temporary)):
        yield Path(temporary)
        for part in sorted(Path(temporary).iterdir(), key=lambda path: (path.name == last, path.name)):
            move_into_place(part, folder / part.name)
