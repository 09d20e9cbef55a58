"""Heavy work in other threads, so that the event loop answers other clients meanwhile.

Python switches between threads within a few milliseconds, except during a single call of a C function. Therefore heavy
work consists of many short calls: `json_pieces` converts a large response to JSON in pieces.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic_core import to_json
from starlette.responses import Response

T = TypeVar("T")
WORKER_THREADS = ThreadPoolExecutor(2, "worker")  # more do not help: only one at a time runs Python
MAX_INLINE_ITEMS = 4096  # characters, tokens or log-probabilities; more are processed in a thread
PIECE_ITEMS = 1024  # of a list, that are converted to JSON together


async def run_offloaded(n_items: int, work: Callable[..., T], *arguments: Any) -> T:
    """Return the result of a function that processes N items; if they are many, it is called in another thread."""
    if n_items <= MAX_INLINE_ITEMS:
        return work(*arguments)
    return await asyncio.get_running_loop().run_in_executor(WORKER_THREADS, functools.partial(work, *arguments))


def render_json(response: BaseModel) -> Response:
    """Return a response as JSON."""
    return Response(b"".join(json_pieces(response)), media_type="application/json")


def json_pieces(value: Any) -> Iterator[bytes]:
    """Yield the JSON of a response, none of whose lists is converted in a single call if it is long.

    >>> b"".join(json_pieces([1, "a"]))
    b'[1,"a"]'

    Args:
        value: A model without aliases, or a value of one of its fields.
    """
    if isinstance(value, BaseModel):
        separator = b"{"
        for name in type(value).model_fields:
            yield separator + to_json(name) + b":"
            yield from json_pieces(getattr(value, name))
            separator = b","
        yield b"}"
    elif isinstance(value, list) and len(value) > PIECE_ITEMS:
        separator = b"["
        for start in range(0, len(value), PIECE_ITEMS):
            yield separator + to_json(value[start : start + PIECE_ITEMS])[1:-1]
            separator = b","
        yield b"]"
    elif isinstance(value, list) and value and isinstance(value[0], BaseModel):
        separator = b"["
        for element in value:
            yield separator
            yield from json_pieces(element)
            separator = b","
        yield b"]"
    else:
        yield to_json(value)
