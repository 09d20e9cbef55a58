"""A lock that allows one training run in a folder at a time.

The operating system releases the lock when its process ends, however it ends. Reading the folder needs no lock. On file
systems without locks, such as some network file systems, the lock has no effect.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path

from gpt2.errors import GPT2Error

LOCK_FILE = ".lock"  # in the run's folder; it belongs to a process and not to the run, so copies of the run omit it
MAX_HOLDER_BYTES = 200  # of the lock file's text that an error message quotes


class RunLock:
    """A context manager that holds the lock of a run's folder.

    Entering creates the folder if it does not exist, and leaving removes it again if it is empty. Entering raises
    GPT2Error, which names the process that holds the lock or says that the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        """Prepare the lock of `folder` without taking it."""
        self.folder = folder
        self.path = folder / LOCK_FILE
        self.file: int | None = None

    def __enter__(self) -> RunLock:
        """Create the folder and take the lock."""
        with contextlib.ExitStack() as undo:
            try:
                for parent in reversed([self.folder, *self.folder.parents]):
                    if not parent.exists():
                        parent.mkdir(exist_ok=True)
                        undo.callback(_remove_if_empty, parent)
                self.hold()
            except OSError as error:
                raise GPT2Error(f"the run's folder {self.folder} cannot be written: {error.strerror}") from error
            self.undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Release the lock and remove the folders that were created and stayed empty."""
        if self._is_held():
            self.path.unlink(missing_ok=True)
        self._close()
        self.undo.close()

    def hold(self) -> None:
        """Take the lock, or take it again if its file was removed.

        Raises:
            GPT2Error: Another process holds the lock.
            OSError: The folder cannot be written.
        """
        # The previous holder can remove the file between our open and our lock: then open the new file.
        while not self._is_held():
            self._close()
            self.folder.mkdir(parents=True, exist_ok=True)
            self.file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _lock(self.file)
            except BlockingIOError:
                holder = os.pread(self.file, MAX_HOLDER_BYTES, 0).decode("utf-8", "replace")
                self._close()
                raise GPT2Error(
                    f"{self.folder} is in use by another training run{f' ({holder})' if holder else ''}; wait for"
                    " that run, end it, or give this run another run_name"
                ) from None
            holder = f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}"
            with contextlib.suppress(OSError):  # on a full disk the lock still works, without the holder's name
                os.ftruncate(self.file, 0)
                os.pwrite(self.file, holder.encode("utf-8"), 0)

    def _is_held(self) -> bool:
        """Return whether the locked file is still the one in the folder."""
        try:
            return self.file is not None and os.path.samestat(os.fstat(self.file), self.path.stat())
        except FileNotFoundError:
            return False

    def _close(self) -> None:
        if self.file is not None:
            os.close(self.file)
            self.file = None


def _lock(file: int) -> None:
    """Lock an open file; do nothing on systems and file systems without locks.

    Raises:
        BlockingIOError: Another process holds the lock.
    """
    try:
        import fcntl  # Windows does not have it
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
