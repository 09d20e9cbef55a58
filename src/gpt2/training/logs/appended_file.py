"""A log file that survives a full disk and its removal."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from pathlib import Path

from gpt2.errors import GPT2Error
from gpt2.files import atomic_write

COPIED_BYTES = 1 << 20  # bytes in memory while a removed file is written again


class AppendedFile:
    """A file that is appended to. Data that cannot be written is retained, and written with the next data.

    Args:
        path: The file, which is replaced.
        content: Its first bytes, in parts.

    Raises:
        GPT2Error: The file cannot be written.
    """

    def __init__(self, path: Path, content: Iterable[bytes] = ()) -> None:
        """Write the first bytes."""
        self.path = path
        self.pending = b""
        self._replace(content)

    def _replace(self, content: Iterable[bytes]) -> None:
        with atomic_write(self.path) as file:
            for part in content:
                file.write(part)
            size = file.tell()
        self.size = size
        # While it is open, its content can be read even after its removal, so that no copy in memory is needed.
        self._content = self.path.open("rb")
        weakref.finalize(self, self._content.close)

    def add(self, data: bytes = b"") -> None:
        """Append data.

        Raises:
            GPT2Error: The data cannot be written now and stays pending.
        """
        self.pending += data
        try:
            with self.path.open("r+b") as file:
                file.truncate(self.size)  # removes the bytes that an earlier attempt wrote before the disk was full
                file.seek(self.size)
                file.write(self.pending)
        except OSError as error:
            raise GPT2Error(f"{self.path} cannot be written: {error.strerror or error}") from error
        self.size += len(self.pending)
        self.pending = b""

    def restore(self) -> None:
        """Write the file again, with its pending data, if it was removed.

        Raises:
            GPT2Error: The file cannot be written.
        """
        if self.path.is_file():
            return
        removed = self._content
        removed.seek(0)
        ends = range(self.size, 0, -COPIED_BYTES)
        self._replace(removed.read(min(COPIED_BYTES, unread)) for unread in ends)
        removed.close()
        if self.pending:
            self.add()
