"""One training run in a folder at a time: a lock that the system takes back when its process ends, however it ends.

Reading the folder needs no lock. File systems that know no locks, as some over a network, keep two runs apart no more.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path

from gpt2.errors import GPT2Error

LOCK_FILE = ".lock"  # in the run's folder; it belongs to a process, not to the run, and copies of the run leave it out


class RunLock:
    """The lock of a run's folder, held while it is entered.

    Entering makes the folder if need be, and leaving removes it if nothing was put into it. Raises GPT2Error that says
    who holds the lock, or that the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / LOCK_FILE
        self.file: int | None = None

    def __enter__(self) -> RunLock:
        with contextlib.ExitStack() as undo:
            try:
                for parent in reversed([self.folder, *self.folder.parents]):
                    if not parent.exists():
                        parent.mkdir(exist_ok=True)
                        undo.callback(_remove_empty, parent)
                self.hold()
            except OSError as error:
                raise GPT2Error(f"the run's folder {self.folder} cannot be written: {error.strerror}") from error
            self.undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_held():
            self.path.unlink(missing_ok=True)
        self._close()
        self.undo.close()

    def hold(self) -> None:
        """Takes the lock, and takes it anew if its file was removed since. Raises GPT2Error or OSError.

        Who held it before may have removed the file just after it was opened here: then it is opened once more.
        """
        while not self._is_held():
            self._close()
            self.folder.mkdir(parents=True, exist_ok=True)
            self.file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _lock(self.file)
            except BlockingIOError:
                who = os.pread(self.file, 200, 0).decode("utf-8", "replace")
                self._close()
                raise GPT2Error(
                    f"{self.folder} is in use by another training run{f' ({who})' if who else ''}; wait for it, end it,"
                    " or give this one another run_name"
                ) from None
            who = f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}"
            with contextlib.suppress(OSError):  # a full disk: who holds it stays unsaid
                os.ftruncate(self.file, 0)
                os.pwrite(self.file, who.encode("utf-8"), 0)

    def _is_held(self) -> bool:
        """Whether the file that is locked is still the one in the folder."""
        try:
            return self.file is not None and os.path.samestat(os.fstat(self.file), self.path.stat())
        except FileNotFoundError:
            return False

    def _close(self) -> None:
        if self.file is not None:
            os.close(self.file)
            self.file = None


def _lock(file: int) -> None:
    """Raises BlockingIOError if another process holds it; where there are no locks, it does nothing."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
