"""A parallel map over a few items that works even if the system grants no thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(work: Callable[[Item], Result], items: Collection[Item], max_threads: int) -> list[Result]:
    """Return the results of calling `work` with each item, in the items' order.

    The calling thread works as well, so that the map succeeds if the system grants no other thread. concurrent.futures
    would do the same, but it imports logging, which is slow.

    Args:
        work: Called with one item at a time in each thread.
        items: The items.
        max_threads: Maximum number of threads that work.

    Raises:
        BaseException: The error of the first item that failed; no further item is started after an error.
    """
    results: list[Any] = [None] * len(items)
    errors: dict[int, BaseException] = {}
    pending = iter(enumerate(items))
    lock = threading.Lock()

    def run() -> None:
        for index, item in _take_each(pending, lock):
            try:
                results[index] = work(item)
            except BaseException as error:  # including Ctrl-C
                errors[index] = error
            if errors:
                return

    others = [threading.Thread(target=run, daemon=True) for _ in range(min(max_threads, len(items)) - 1)]
    started = [thread for thread in others if _try_to_start(thread)]
    try:
        run()
    except BaseException as error:  # raised between two items
        errors[len(items)] = error
    for thread in started:
        thread.join()
    if errors:
        raise errors[min(errors)]
    return results


def _take_each(iterator: Iterator[Item], lock: threading.Lock) -> Iterator[Item]:
    """Yield the remaining items, each in one thread only."""
    nothing: Any = object()
    while True:
        with lock:
            item = next(iterator, nothing)
        if item is nothing:
            return
        yield item


def _try_to_start(thread: threading.Thread) -> bool:
    try:
        thread.start()
    except RuntimeError:  # the system grants no more threads
        return False
    return True
