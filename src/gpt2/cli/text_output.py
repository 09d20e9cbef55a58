"""Output of a command's text to stdout or to a file."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator

from gpt2 import files


@contextlib.contextmanager
def open_output(path: str | None) -> Iterator[Callable[[str], object]]:
    """Yield a function that writes text to stdout or to a file.

    The file appears only when it is complete.

    Args:
        path: The path of the file; None is stdout.

    Raises:
        GPT2Error: The file cannot be written.
    """
    if path is None:
        yield sys.stdout.write
        return
    with (
        files.atomic_write(files.expand_path(path)) as file,
        io.TextIOWrapper(file, "utf-8", "replace", newline="\n") as text,
    ):
        yield text.write
