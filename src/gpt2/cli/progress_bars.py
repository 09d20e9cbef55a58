"""Progress bars on stderr, for library functions that report their progress to a callback."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from tqdm import tqdm

WIDTH = 100  # characters
BYTES = "B"
# Titles of bars; FETCHING is formatted with a file's name.
FETCHING = "Fetching {}"
ENCODING = "Encoding"
READING = "Reading"
SCORING = "Scoring"
CONVERTING = "Converting"


@contextlib.contextmanager
def bar(title: str, unit: str = BYTES) -> Iterator[Callable[[int, int | None], None]]:
    """Yield a progress callback, called with (done, total), that draws a bar."""
    with bars(title + "{}", unit) as report:
        yield lambda done, total: report("", done, total)


@contextlib.contextmanager
def bars(title: str, unit: str = BYTES) -> Iterator[Callable[[str, int, int | None], None]]:
    """Yield a progress callback, called with (name, done, total), that draws one bar after another.

    Args:
        title: The bars' title, with {} for the name.
        unit: Unit of `done` and `total`.
    """
    current: dict[str, tqdm] = {}  # the open bar by its name; empty before the first call

    def report(name: str, done: int, total: int | None) -> None:
        if name not in current:
            close()
            description = title.format(name)
            current[name] = tqdm(desc=description, total=total, initial=done, unit=unit, unit_scale=True, ncols=WIDTH)
        current[name].update(done - current[name].n)

    def close() -> None:
        while current:
            current.popitem()[1].close()

    try:
        yield report
    finally:
        close()
