"""A log file that survives a full disk."""

from __future__ import annotations

from pathlib import Path

from gpt2.errors import GPT2Error
from gpt2.files import atomic_write


class AppendedFile:
    """A file that is appended to. Data that cannot be written is retained, and written with the next data.

    Args:
        path: The file, which is replaced.
        content: Its first bytes.

    Raises:
        GPT2Error: The file cannot be written.
    """

    def __init__(self, path: Path, content: bytes = b"") -> None:
        """Write the first bytes."""
        self.path = path
        self.size = len(content)
        self.pending = b""
        with atomic_write(path) as file:
            file.write(content)

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
