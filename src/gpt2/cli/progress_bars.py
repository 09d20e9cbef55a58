"""Progress bars on stderr, for library functions that report their progress to a callback."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from tqdm import tqdm

WIDTH = 100  # characters
BYTES = "B"
# Titles of bars; those with {} are formatted with a file's name.
FETCHING = "Fetching {}"
VERIFYING = "Verifying {}"
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
def bars(title: str, unit: str = BYTES) -> Iterator[SuccessiveBars]:
    """Yield a progress callback, called with (name, done, total), that draws one bar after another.

    Args:
        title: The bars' title, with {} for the name.
        unit: Unit of `done` and `total`.
    """
    successive = SuccessiveBars(title, unit)
    try:
        yield successive
    finally:
        successive.close()


class SuccessiveBars:
    """Bars of which one is open at a time."""

    def __init__(self, title: str, unit: str) -> None:
        """Draw nothing yet; the arguments are those of `bars`."""
        self.title = title
        self.unit = unit
        self._name: str | None = None
        self._bar: tqdm | None = None  # the open bar, of `_name`

    def __call__(self, name: str, done: int, total: int | None) -> None:
        """Draw progress, on a new bar if the name is new."""
        title = self.title.format(name)
        if self._bar is None or name != self._name:
            self.close()
            options = {"total": total, "initial": done, "unit": self.unit, "unit_scale": True}
            self._name, self._bar = name, tqdm(desc=title, ncols=WIDTH, **options)
        self._bar.set_description(title, refresh=False)
        self._bar.update(done - self._bar.n)

    def verifying(self, name: str) -> None:
        """Show that the checksums of a file are verified, which takes seconds for a large one.

        If the file was just fetched, the title of its bar shows it; otherwise a line that disappears does.
        """
        title = VERIFYING.format(name)
        if self._bar is not None and name == self._name:
            self._bar.set_description(title)
            return
        self.close()
        self._bar = tqdm(desc=title, bar_format="{desc}", ncols=WIDTH, leave=False)

    def close(self) -> None:
        """Close the open bar."""
        if self._bar is not None:
            if self._name is not None:
                self._bar.set_description(self.title.format(self._name), refresh=False)
            self._bar.close()
        self._name = self._bar = None
