"""Cancellation of the work for clients that have disconnected."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from fastapi import Request
from starlette.responses import Response

CLIENT_CLOSED_REQUEST = 499  # nginx's status for a client that did not wait for the response


async def respond_unless_gone(work: Coroutine[Any, Any, Response], request: Request) -> Response:
    """Return the response that some work returns, or cancel the work as soon as the client disconnects.

    Args:
        work: The work.
        request: The client's request, whose body has been read.
    """
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(_wait_until_gone(request))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return await tasks[0] if tasks[0].done() else Response(status_code=CLIENT_CLOSED_REQUEST)
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


async def _wait_until_gone(request: Request) -> Any:
    while (await request.receive())["type"] != "http.disconnect":
        pass
