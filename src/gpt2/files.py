"""Files: read with what is wrong said in one line, and written so that they are there whole or not at all.

The only place that makes temporary names, syncs and renames.
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

ByteProgress = Callable[
    [int, "int | None"], object
]  # is told how many bytes are done, and of how many if that is known
LARGEST_TEXT = 1 << 26  # bytes; of what is read at once, the largest is GPT-2's encoder.json with a million
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # what file systems say that have none
PART = re.compile(r"\..+\.[0-9a-f]{8}\.part")
UNFINISHED = ".saving-"  # how the name of a folder begins in which several files are being written


def no_callback(*_: object) -> None:
    """For callers who want to be told nothing."""


@contextlib.contextmanager
def reporting_read_errors(path: Path) -> Iterator[None]:
    """Raises Unreadable, naming the file, for what the system says while it is read."""
    try:
        yield
    except OSError as error:
        raise UnreadableFileError(path, error) from error


def file_fingerprint(path: Path) -> str:
    """Which file it is, and which of the contents that it has had. Raises Unreadable."""
    with reporting_read_errors(path):
        found = path.stat()
    return f"{os.path.realpath(path)} {found.st_size} {found.st_mtime_ns} {found.st_ino}"


def is_file(path: Path) -> bool:
    """Whether there is a file of this name. Raises Unreadable where that cannot be known, as in a loop of links."""
    return stat.S_ISREG(_mode(path))


def is_folder(path: Path) -> bool:
    """Whether there is a folder of this name. Raises Unreadable where that cannot be known, as in a loop of links."""
    return stat.S_ISDIR(_mode(path))


def _mode(path: Path) -> int:
    try:
        with reporting_read_errors(path):
            return path.stat().st_mode
    except ValueError:  # no name can hold a null character
        return 0
    except UnreadableFileError as error:
        if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
            return 0
        raise


def read_text(path: Path) -> str:
    """All of a file of UTF-8. Raises Unreadable, and Damaged for what is no such text or far too long."""
    with reporting_read_errors(path), path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > LARGEST_TEXT:
            raise DamagedFileError(path, f"it has more than {LARGEST_TEXT} bytes, which no file of its name needs")
        data = file.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DamagedFileError(path, f"it is not UTF-8 at byte {error.start}") from error


def read_json(path: Path) -> Any:
    """What a file of JSON says. Raises Unreadable, and Damaged for what is no JSON or nested too deep."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(path, f"it is not JSON that can be read: {error}") from error


@contextlib.contextmanager
def creating_folder(folder: Path) -> Iterator[None]:
    """Makes a folder, with those above it; if the block fails, those that it made and that are empty go again.

    Raises GPT2Error if it cannot be made.
    """
    made: list[Path] = []
    try:
        try:
            made = [path for path in (folder, *folder.parents) if not path.exists()]
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            raise GPT2Error(f"the folder {folder} cannot be made: {getattr(error, 'strerror', error)}") from error
        yield
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError, ValueError):
                path.rmdir()
        raise


def expand_path(path: str) -> Path:
    """The path with `~` and $VARIABLES in it expanded; those that stand for nothing stay as they are."""
    return Path(os.path.expanduser(os.path.expandvars(path)))


def partial_path(path: Path) -> Path:
    """Where a file is kept from one process to the next until it is complete, as a download is."""
    return path.with_name(f"{path.name}.part")


@contextlib.contextmanager
def open_exclusive(path: Path) -> Iterator[IO[bytes]]:
    """A file to append to, made if need be, which no other process has open by this means.

    A process that dies gives it back. Raises GPT2Error if another one has it, OSError if it cannot be written.
    """
    while True:
        with path.open("ab") as file:
            try:
                _lock(file.fileno())
            except BlockingIOError as error:
                raise GPT2Error(f"{path} is being written by another process; wait until that has ended") from error
            if _is_called(file, path):  # else another process has renamed or removed it since it was opened
                yield file
                return


def _lock(file: int) -> bool:
    """Takes an open file until it is closed, or its process ends; returns whether there are locks where it lies.

    Raises BlockingIOError if another process has it.
    """
    import fcntl  # Windows has none

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


def _is_called(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def move_into_place(part: Path, path: Path) -> None:
    """Gives a complete file its name, in place of another one.

    Waits until it is on the disk: a power failure must not leave a name without its content. Raises OSError.
    """
    with part.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)


@contextlib.contextmanager
def temporary_file(path: Path, on_disk: bool = True) -> Iterator[Path]:
    """A path for something else to write to, which becomes `path` when the block ends well.

    on_disk: not before it is there; without it a power failure may leave a file that is torn, which whoever reads it
    has to find out.

    An error or Ctrl-C leaves what was there before; what a process that was killed left of it is removed by the next.
    Raises OSError.
    """
    name = glob.escape(path.name)
    _remove_abandoned(part for part in path.parent.glob(f".{name}.*.part") if PART.fullmatch(part.name))
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")  # PART knows it again
    part.touch()
    try:
        with _held(part):
            yield part
            move_into_place(part, path) if on_disk else os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """The same for a new folder: an empty one to write files and folders into, which becomes `folder` when the block
    ends well; nothing but an empty folder may have that name. Raises OSError."""
    name = glob.escape(folder.name)
    _remove_abandoned(part for part in folder.parent.glob(f".{name}.*.part") if PART.fullmatch(part.name))
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")  # PART knows it again
    part.mkdir()
    try:
        with _held(part):
            yield part
            for path in part.rglob("*"):
                if path.is_file():
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
            with contextlib.suppress(FileNotFoundError):
                folder.rmdir()
            part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def _held(path: Path) -> Iterator[bool]:
    """Holds a file or folder; whether no other process did so, False too where that cannot be known."""
    number = os.open(path, os.O_RDONLY)
    try:
        try:
            alone = _lock(number)
        except OSError:
            alone = False
        yield alone
    finally:
        os.close(number)


def _remove_abandoned(paths: Iterable[Path]) -> None:
    """Removes what no process holds any more."""
    for path in paths:
        with contextlib.suppress(OSError), _held(path) as alone:
            if alone:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def remove_abandoned(folder: Path) -> None:
    """Removes what processes that were killed inside `written_aside` have left, and no other."""
    _remove_abandoned(part for part in folder.glob(".*.part") if PART.fullmatch(part.name))


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which gets its name when the block ends well.

    An error or Ctrl-C leaves what was there before. What is no regular file, such as /dev/null or a pipe, stays what
    it is and is written to. Raises GPT2Error if it cannot be written.
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
    """A folder for several files, which are moved into `folder` when the block ends well, the one called `last` last.

    That one says which of the others count, so that whatever happens in between leaves those before in use. What a
    process that was killed left is removed by the next. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder.glob(f"{UNFINISHED}*"))
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder) as temporary, _held(Path(temporary)):
        yield Path(temporary)
        for part in sorted(Path(temporary).iterdir(), key=lambda path: (path.name == last, path.name)):
            move_into_place(part, folder / part.name)


class AppendedFile:
    """A file that is appended to. What finds no room is kept, and written with what comes next."""

    def __init__(self, path: Path, content: bytes = b"") -> None:
        """Begins it with this content. Raises GPT2Error if it cannot be written."""
        self.path, self.size, self.waiting = path, len(content), b""
        with atomic_write(path) as file:
            file.write(content)

    def add(self, data: bytes = b"") -> None:
        """Raises GPT2Error if it cannot be written now."""
        self.waiting += data
        try:
            with self.path.open("r+b") as file:
                file.truncate(self.size)  # what a full disk took of an earlier attempt
                file.seek(self.size)
                file.write(self.waiting)
        except OSError as error:
            raise GPT2Error(f"{self.path} cannot be written: {error.strerror or error}") from error
        self.size, self.waiting = self.size + len(self.waiting), b""


def remove_unfinished(folder: Path) -> None:
    """Removes what a process that was killed inside `replacing_together`, `written_aside` or `replacing` has left."""
    for path in [*folder.glob(f"{UNFINISHED}*"), *folder.glob(".*.part")]:
        if path.name.startswith(UNFINISHED) or (PART.fullmatch(path.name) and path.is_dir()):
            shutil.rmtree(path, ignore_errors=True)
        elif PART.fullmatch(path.name):
            path.unlink(missing_ok=True)
