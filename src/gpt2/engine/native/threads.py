"""Things done in threads side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(work: Callable[[Item], Result], items: Collection[Item], most: int) -> list[Result]:
    """What `work` makes of each item, in their order, in at most so many threads.

    The one that calls is among them, so that nothing fails where the system grants no other. Raises what `work` raised,
    of several items that fail the first one's; no other begins then. concurrent.futures would do the same and brings
    logging, which takes a while to import.
    """
    results: list[Any] = [None] * len(items)
    errors: dict[int, BaseException] = {}
    waiting, lock = iter(enumerate(items)), threading.Lock()

    def run() -> None:
        for place, item in _each(waiting, lock):
            try:
                results[place] = work(item)
            except BaseException as error:  # Ctrl-C is one
                errors[place] = error
            if errors:
                return

    others = [threading.Thread(target=run, daemon=True) for _ in range(min(most, len(items)) - 1)]
    started = [thread for thread in others if _starts(thread)]
    try:
        run()
    except BaseException as error:  # between two items
        errors[len(items)] = error
    for thread in started:
        thread.join()
    if errors:
        raise errors[min(errors)]
    return results


def _each(iterator: Iterator[Item], lock: threading.Lock) -> Iterator[Item]:
    """The items that are left, of which each goes to one thread only."""
    nothing: Any = object()
    while True:
        with lock:
            item = next(iterator, nothing)
        if item is nothing:
            return
        yield item


def _starts(thread: threading.Thread) -> bool:
    try:
        thread.start()
    except RuntimeError:  # the system has no more of them
        return False
    return True
