"""An application on a socket, from the first request to the last answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from gpt2.errors import GPT2Error
from gpt2.server.app import ServerOptions, create_app
from gpt2.server.served_model import ServedModel

HEADERS = 20.0  # seconds for a request's headers to come
KEPT = 20  # seconds that a connection without a request is kept
BACKLOG = 2048


class HeaderTimeoutProtocol(H11Protocol):
    """uvicorn's, but for clients that never come to the end of a request's headers: it would wait for ever."""

    idle_since: float | None = None
    newest: Any = None  # request, when it was looked last
    next_look: asyncio.TimerHandle

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # A timer keeps the connection's memory till it is due; uvicorn stops its own only where clients end politely.
        self.next_look.cancel()
        self._unset_keepalive_if_required()

    def _look(self) -> None:
        now, cycle = self.loop.time(), self.cycle
        is_new, self.newest = cycle is not self.newest, cycle  # short ones come and go between two looks
        if is_new or (cycle is not None and not cycle.response_complete):
            self.idle_since = None
        elif self.idle_since is None:
            self.idle_since = now
        elif now - self.idle_since >= HEADERS:
            return self.transport.close()
        self.next_look = self.loop.call_later(HEADERS / 2, self._look)


class Server(uvicorn.Server):
    """uvicorn's, which tells when it is ready and ends with status 0 when it is told to stop."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], object]) -> None:
        super().__init__(config)
        self.ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # as in tests: only that one may
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 is any free one. Raises GPT2Error."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.create_server(address, family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise GPT2Error(f"{host} port {port} cannot be listened on: {reason}; give another --port") from error
    listening.set_inheritable(True)
    return listening


def serve(
    served: Sequence[ServedModel],
    listening: socket.socket,
    options: ServerOptions,
    grace: float,
    ready: Callable[[], object],
) -> None:
    """Answers until SIGINT or SIGTERM; what is being written then is finished, for at most `grace` seconds.

    ready: called once requests are answered.
    """
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # of sockets that clients have left
    config = uvicorn.Config(
        create_app(served, options),
        http=HeaderTimeoutProtocol,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEPT,
        timeout_graceful_shutdown=max(1, round(grace)),
    )
    for one in served:
        one.desk.start()
    try:
        asyncio.run(Server(config, ready).serve([listening]))
    finally:
        for one in served:
            one.desk.close(grace)
