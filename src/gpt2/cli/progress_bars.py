"""Progress bars on stderr, for library functions that report how far they are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from tqdm import tqdm

WIDTH = 100  # characters
FETCHING, ENCODING, READING, SCORING, CONVERTING = "Fetching {}", "Encoding", "Reading", "Scoring", "Converting"
BYTES = "B"


@contextlib.contextmanager
def bar(title: str, unit: str = BYTES) -> Iterator[Callable[[int, int | None], None]]:
    """What is told so many bytes of so many, and shows it; nothing before it is told something."""
    with bars(title + "{}", unit) as report:
        yield lambda done, total: report("", done, total)


@contextlib.contextmanager
def bars(title: str, unit: str = BYTES) -> Iterator[Callable[[str, int, int | None], None]]:
    """The same for one thing after another, each named: a bar for each, whose title is filled with the name."""
    shown: dict[str, tqdm] = {}

    def report(name: str, done: int, total: int | None) -> None:
        if name not in shown:
            close()
            about = title.format(name)
            shown[name] = tqdm(desc=about, total=total, initial=done, unit=unit, unit_scale=True, ncols=WIDTH)
        shown[name].update(done - shown[name].n)

    def close() -> None:
        while shown:
            shown.popitem()[1].close()

    try:
        yield report
    finally:
        close()
