"""uvicorn's protocol with limits on what one connection may cost."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol

from gpt2.server.defaults import TIMEOUT_SECONDS
from gpt2.server.errors import ApiError

HEADER_TIMEOUT_SECONDS = 20.0
STALL_CHECK_SECONDS = 1.0  # between two checks whether a client reads
LINGER_SECONDS = 5.0  # in which a client may read the error before the connection is closed
PARSED_BYTES = 1024  # that are parsed together; in chunks of one byte they take some milliseconds
PARSE_SECONDS = 0.005  # after which other clients are served
MAX_HEADER_BYTES = 1 << 16
MAX_CHUNKS = 1 << 16  # of one body; to parse them takes a few seconds


class LimitedParser(h11.Connection):
    """A parser that rejects bodies in too many chunks, because a small chunk costs as much as a large one.

    Attributes:
        n_chunks: Number of the body's chunks so far.
        rejection: The error that describes the last wrong request.
    """

    n_chunks = 0
    rejection: ApiError

    def next_event(self) -> Any:
        """Return the next event.

        Raises:
            RemoteProtocolError: The request is not HTTP, or it is beyond a limit; `rejection` says what is wrong.
        """
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            self.rejection = ApiError(400, f"the request is not valid HTTP: {error}")
            if error.error_status_hint == 431:
                message = f"the headers are larger than {MAX_HEADER_BYTES} bytes; send fewer or shorter ones"
                self.rejection = ApiError(431, message)
            raise
        if isinstance(event, h11.Request):
            self.n_chunks = 0
        elif isinstance(event, h11.Data):
            self.n_chunks += event.chunk_start
        if self.n_chunks > MAX_CHUNKS:
            self.rejection = ApiError(413, f"the body has more than {MAX_CHUNKS} chunks; send it in larger ones")
            raise h11.RemoteProtocolError(self.rejection.message)
        return event


class LimitedProtocol(H11Protocol):
    """uvicorn's protocol with limits.

    - uvicorn parses all received bytes at once. Here other clients are served after each part of the bytes.
    - uvicorn waits forever for clients that never end their headers. Here they have a timeout.
    - uvicorn waits forever for clients that do not read their response. Here such a connection is closed when the time
      for the request is over.

    Attributes:
        request_timeout: Seconds from the start of a request, after which a client must not stop reading.
        idle_since: Time of the first check without a request; None during a request.
        last_cycle: The request at the last check.
        idle_timer: The next check whether the connection is idle.
        unparsed: The received bytes that have not been parsed yet.
        next_parse: The next call that parses some of them; None if there are none.
        started: Time at which the last request started.
        n_unread: Number of bytes that waited for the client at the last check.
        stall_timer: The next check whether the client reads; None if no bytes wait for it.
        is_rejected: Whether the request was rejected, so that the bytes that still arrive are ignored.
    """

    request_timeout = TIMEOUT_SECONDS
    idle_since: float | None = None
    last_cycle: Any = None
    idle_timer: asyncio.TimerHandle
    next_parse: asyncio.Handle | None = None
    started = 0.0
    n_unread = 0
    stall_timer: asyncio.TimerHandle | None = None
    is_rejected = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Create the protocol of one connection, with uvicorn's arguments."""
        super().__init__(*arguments, **options)
        self.conn = self.parser = LimitedParser(h11.SERVER, MAX_HEADER_BYTES)
        self.unparsed = bytearray()

    def connection_made(self, transport: Any) -> None:
        """Start the checks."""
        super().connection_made(transport)
        self._check_idle()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers.

        A timer holds the connection's memory until it is due, and uvicorn stops its own only if the client closes the
        connection properly.
        """
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        for timer in (self.idle_timer, self.stall_timer, self.next_parse):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse the first of the received bytes, and the others when other clients have been served."""
        if self.is_rejected:
            return
        self.unparsed += data
        if self.next_parse is None:
            self._parse()
        else:
            self.transport.pause_reading()

    def _parse(self) -> None:
        self.next_parse = None
        end = self.loop.time() + PARSE_SECONDS
        while self.unparsed and self.loop.time() < end:
            if self.transport.is_closing() or self.is_rejected:
                return
            data = bytes(self.unparsed[:PARSED_BYTES])
            del self.unparsed[:PARSED_BYTES]
            cycle = self.cycle
            super().data_received(data)
            if self.cycle is not cycle:
                self.started = self.loop.time()
        if self.unparsed:
            self.transport.pause_reading()
            self.next_parse = self.loop.call_soon(self._parse)
        elif not self.flow.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def send_400_response(self, msg: str) -> None:
        """Send the parser's rejection, and ignore the rest of the request.

        The connection is not closed at once: if bytes still arrived, the system would reset it, and the client would
        not get the response.
        """
        self.is_rejected = True
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return self.transport.abort()  # the response has started already
        response = self.parser.rejection.response()
        headers = [*response.raw_headers, CLOSE_HEADER]
        events = h11.Response(status_code=response.status_code, headers=headers), h11.Data(data=bytes(response.body))
        for event in (*events, h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self.transport.write_eof()
        self.transport.resume_reading()
        self.stall_timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def pause_writing(self) -> None:
        """Check regularly whether the client reads its response."""
        super().pause_writing()
        self._stop_stall_timer()
        self._check_stalled()

    def resume_writing(self) -> None:
        """Stop the checks, because the client has read nearly all of its response."""
        super().resume_writing()
        self._stop_stall_timer()

    def _stop_stall_timer(self) -> None:
        if self.stall_timer is not None:
            self.stall_timer.cancel()
            self.stall_timer = None

    def _check_stalled(self) -> None:
        n_unread = self.transport.get_write_buffer_size()
        is_late = self.loop.time() >= self.started + self.request_timeout
        if is_late and self.stall_timer is not None and n_unread >= self.n_unread:
            return self.transport.abort()
        self.n_unread = n_unread
        self.stall_timer = self.loop.call_later(STALL_CHECK_SECONDS, self._check_stalled)

    def _check_idle(self) -> None:
        now = self.loop.time()
        is_new_request = self.cycle is not self.last_cycle  # short requests come and go between two checks
        self.last_cycle = self.cycle
        if is_new_request or (self.cycle is not None and not self.cycle.response_complete):
            self.idle_since = None
        elif self.idle_since is None:
            self.idle_since = now
        elif now - self.idle_since >= HEADER_TIMEOUT_SECONDS:
            return self.transport.close()
        self.idle_timer = self.loop.call_later(HEADER_TIMEOUT_SECONDS / 2, self._check_idle)
