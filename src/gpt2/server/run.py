"""Running an application on a socket, from the first request to the last response."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

import uvicorn

from gpt2.errors import GPT2Error
from gpt2.server.app import ServerOptions, create_app
from gpt2.server.protocol import LimitedProtocol
from gpt2.server.served_model import ServedModel

KEEP_ALIVE_SECONDS = 20  # for a connection without a request
BACKLOG_CONNECTIONS = 2048  # that the system holds until they are accepted


class Server(uvicorn.Server):
    """uvicorn's server, which reports when it is ready and ends with status 0 after a signal."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], object]) -> None:
        """Create a server that calls `on_ready` once it answers requests."""
        super().__init__(config)
        self.on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to answer requests."""
        await super().startup(sockets)
        if self.started:
            self.on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM within the block, without raising them again after it."""
        if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
            yield
            return
        previous = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address; port 0 is any free port.

    Raises:
        GPT2Error: The address is unknown or in use.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(address, family=family, backlog=BACKLOG_CONNECTIONS)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise GPT2Error(f"cannot listen on {host} port {port}: {reason}; choose another --port") from error
    listener.set_inheritable(True)
    return listener


def serve(
    models: Sequence[ServedModel],
    listener: socket.socket,
    options: ServerOptions,
    grace: float,
    on_ready: Callable[[], object],
) -> None:
    """Answer requests until SIGINT or SIGTERM, then finish the running requests.

    Args:
        models: The models; the first one is the default.
        listener: The socket, see `listen`.
        options: The application's options.
        grace: Maximum time in seconds for the running requests to finish.
        on_ready: Called once requests are answered.
    """
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of sockets that clients have closed
    config = uvicorn.Config(
        create_app(models, options),
        http=type("Protocol", (LimitedProtocol,), {"request_timeout": options.timeout}),
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(grace)),
    )
    for served in models:
        served.scheduler.start()
    try:
        asyncio.run(Server(config, on_ready).serve([listener]))
    finally:
        for served in models:
            served.scheduler.close(grace)
