"""Files that are there whole or not at all: the only place that makes temporary names, syncs and renames."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from gpt2.errors import GPT2Error

ByteCount = Callable[[int, "int | None"], object]  # is told how many bytes are done, and of how many if that is known
UNFINISHED = ".saving-"  # how the name of a folder begins in which several files are being written


def unheard(*_: object) -> None:
    """For callers who want to be told nothing."""


def part_of(path: Path) -> Path:
    """Where a file is kept from one process to the next until it is complete, as a download is."""
    return path.with_name(f"{path.name}.part")


def put(part: Path, path: Path) -> None:
    """Gives a complete file its name, in place of another one.

    Waits until it is on the disk: a power failure must not leave a name without its content. Raises OSError.
    """
    with part.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)


@contextlib.contextmanager
def made_folder(path: Path) -> Iterator[None]:
    """A folder, made with those above it if it is not there; what was made goes if the block fails with nothing in it.

    Raises GPT2Error if it cannot be made.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GPT2Error(f"the folder {path} cannot be made: {error.strerror}") from error
    try:
        yield
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A path for something else to write to, which becomes `path` when the block ends well.

    An error or Ctrl-C leaves what was there before. Raises OSError.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        put(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which gets its name when the block ends well.

    An error or Ctrl-C leaves what was there before. What is no regular file, such as /dev/null or a pipe, stays what
    it is and is written to. Raises GPT2Error if it cannot be written.
    """
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
            return
        with written_aside(path) as part, part.open("wb") as file:
            yield file
    except OSError as error:
        raise GPT2Error(f"{path} cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def replacing_together(folder: Path, last: str) -> Iterator[Path]:
    """A folder for several files, which are moved into `folder` when the block ends well, the one called `last` last.

    That one says which of the others count, so that whatever happens in between leaves those before in use. Raises
    OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder) as temporary:
        yield Path(temporary)
        for part in sorted(Path(temporary).iterdir(), key=lambda path: (path.name == last, path.name)):
            put(part, folder / part.name)


def remove_unfinished(folder: Path) -> None:
    """Removes what a process that was killed inside `replacing_together` has left."""
    for path in folder.glob(f"{UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)
