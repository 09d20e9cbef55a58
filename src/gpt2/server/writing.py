"""Between the event loop, where clients are, and a desk's thread, where texts are written."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from gpt2.engine.token_sequence import TokenSequence
from gpt2.generate import TextChunk
from gpt2.server.errors import ApiError
from gpt2.server.scheduler import Busy, Closed, Failed, JobUpdate, Scheduler

Gone = Callable[[], Awaitable[bool]]
T = TypeVar("T")
ENCODERS = ThreadPoolExecutor(2, "encoder")
AT_ONCE = 4096  # characters that are encoded in less time than it takes to hand them to a thread
LOOK = 0.5  # seconds from one look whether the client is still there to the next


@contextlib.asynccontextmanager
async def written(
    desk: Scheduler, texts: Sequence[TokenSequence], patience: float, at_once: bool
) -> AsyncIterator[AsyncIterator[list[TextChunk]]]:
    """The pieces of texts until all have ended; leaving the block early lets them go.

    patience: seconds for all of it. at_once: whether they come when all are there, which takes less time than as they
    are written: for each step of the desk this loop takes a core from it. Raises ApiError: 429 if too many wait, 503 if
    it cannot be done now.
    """
    loop = asyncio.get_running_loop()
    heard: asyncio.Queue[JobUpdate] = asyncio.Queue()

    def tell(told: JobUpdate) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it who listens
            loop.call_soon_threadsafe(heard.put_nowait, told)

    try:
        job = desk.submit(texts, tell, at_once)
    except Busy as error:
        raise ApiError(429, str(error), code="too_many_requests") from error
    except Closed as error:
        raise ApiError(503, str(error), code="shutting_down") from error
    late = JobUpdate([], Failed(f"it was not ready within {patience:g} seconds; ask for less"))
    alarm = loop.call_later(patience, heard.put_nowait, late)
    try:
        yield _pieces(heard, len(texts))
    finally:
        alarm.cancel()
        desk.cancel(job)


async def _pieces(heard: asyncio.Queue[JobUpdate], left: int) -> AsyncIterator[list[TextChunk]]:
    while left:
        told = await heard.get()
        if told.error is not None:
            raise ApiError(503, str(told.error))
        left -= sum(bool(piece.finish_reason) for piece in told.pieces)
        yield told.pieces


async def encoded(size: int, work: Callable[..., T], *arguments: Any) -> T:
    """What a function comes to that turns text of so many characters into ids, in a thread if they are many. A few
    threads do: only one of them has the interpreter at a time."""
    if size <= AT_ONCE:
        return work(*arguments)
    return await asyncio.get_running_loop().run_in_executor(ENCODERS, functools.partial(work, *arguments))


async def unless_gone(work: Awaitable[T], gone: Gone) -> T | None:
    """What the work comes to; None, and the work is cancelled, once the client has gone."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait([task], timeout=LOOK)
            if not task.done() and await gone():
                return None
        return task.result()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
