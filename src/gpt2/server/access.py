"""Access control and counting: ASGI middleware around the server's application.

`RequestFilter` checks each request before the application sees it:

- The Host header. A page elsewhere can make its own name point to this machine (DNS rebinding), but its requests still
  carry that name.
- The Origin header, which names the site of the page that sends the request.
- The API key, which is compared in constant time.
- The body, which must arrive in time and is read completely, or rejected, before it is used.

`RequestCounter` counts the responses.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hmac
import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from prometheus_client import Counter
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpt2.server.defaults import MAX_BODY_BYTES
from gpt2.server.errors import ApiError

BODY_TIMEOUT_SECONDS = 30.0
MAX_QUOTED_CHARACTERS = 80  # of a header, in an error message
SECURITY_HEADERS = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    b" connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
}


@dataclasses.dataclass(frozen=True)
class AccessLimits:
    """The rules by which requests are accepted.

    Attributes:
        hosts: Names by which the server may be addressed, in addition to localhost and IP addresses.
        origins: Other sites whose pages may send requests; "*" allows all.
        api_key: The key that API requests must carry; None if they need no key.
        max_body_bytes: Maximum size of a request's body.
        body_timeout: Seconds within which a request's body must arrive.
    """

    hosts: Collection[str] = ()
    origins: Collection[str] = ()
    api_key: str | None = None
    max_body_bytes: int = MAX_BODY_BYTES
    body_timeout: float = BODY_TIMEOUT_SECONDS


class RequestFilter:
    """Middleware that rejects requests beyond the limits, and adds security headers to all responses."""

    def __init__(self, app: ASGIApp, limits: AccessLimits, protected_paths: Collection[str]) -> None:
        """Wrap an application.

        Args:
            app: The application.
            limits: The rules by which requests are accepted.
            protected_paths: Prefixes of the paths that need the API key.
        """
        self.app = app
        self.limits = limits
        self.protected_paths = tuple(protected_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject a request with an error, or pass it to the application."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_with_security_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *SECURITY_HEADERS.items()]}
            await send(message)

        headers = Headers(scope=scope)
        try:
            self._check_headers(scope, headers)
            body = await self._read_body(receive, headers)
        except ApiError as error:
            return await error.response()(scope, receive, send_with_security_headers)
        if body is not None:
            await self.app(scope, _replay(body, receive), send_with_security_headers)

    def _check_headers(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "")
        if not is_allowed_host(host, self.limits.hosts):
            message = f"the host {host[:MAX_QUOTED_CHARACTERS]!r} is not allowed; start the server with --allow_host"
            raise ApiError(403, message, code="host_not_allowed")
        origin = headers.get("origin")
        if origin is not None and not self._is_allowed_origin(origin, host):
            shown = origin[:MAX_QUOTED_CHARACTERS]
            message = f"requests from pages of {shown!r} are not allowed; start the server with --allow_origin"
            raise ApiError(403, message, code="origin_not_allowed")
        needs_key = scope["path"].startswith(self.protected_paths) and scope["method"] != "OPTIONS"
        if needs_key and self.limits.api_key is not None:
            scheme, _, key = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not _is_same_key(key.strip(), self.limits.api_key):
                message = "the API key is missing or wrong; send it as Authorization: Bearer KEY"
                raise ApiError(401, message, code="invalid_api_key")

    def _is_allowed_origin(self, origin: str, host: str) -> bool:
        return origin in self.limits.origins or "*" in self.limits.origins or urlsplit(origin).netloc == host

    async def _read_body(self, receive: Receive, headers: Headers) -> bytes | None:
        """Return the request's body; None if the client has disconnected."""
        max_bytes = self.limits.max_body_bytes
        timeout = self.limits.body_timeout
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > max_bytes:
            raise _too_large(max_bytes)
        body = bytearray()
        clock = asyncio.get_running_loop().time
        end = clock() + timeout
        try:
            while True:
                message = await asyncio.wait_for(receive(), end - clock())
                if message["type"] == "http.disconnect":
                    return None
                body += message.get("body", b"")
                if len(body) > max_bytes:
                    raise _too_large(max_bytes)
                if not message.get("more_body"):
                    return bytes(body)
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise ApiError(408, f"the body did not arrive within {timeout:g} seconds; send it again") from error


def is_allowed_host(host: str, names: Collection[str]) -> bool:
    """Return whether a Host header is localhost, an IP address or one of the names; the port does not matter.

    >>> is_allowed_host("127.0.0.1:8000", ()), is_allowed_host("[::1]:8000", ()), is_allowed_host("evil.example", ())
    (True, True, False)
    """
    try:
        hostname = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if hostname == "localhost" or hostname.endswith(".localhost") or hostname in {name.lower() for name in names}:
        return True
    try:
        ipaddress.ip_address(hostname)
    except ValueError:
        return False
    return True


def _is_same_key(key: str, api_key: str) -> bool:
    return hmac.compare_digest(key.encode("utf-8"), api_key.encode("utf-8"))


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(413, f"the body is larger than {max_bytes} bytes; send a smaller one")


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that delivers the body again, and then the messages of `receive`."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again


class RequestCounter:
    """Middleware that counts responses by path and status; unknown paths are counted together."""

    def __init__(self, app: ASGIApp, counter: Counter) -> None:
        """Wrap an application.

        Args:
            app: The application.
            counter: A counter with the labels path and status.
        """
        self.app = app
        self.counter = counter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request as the application does, and count the response."""

        async def count_and_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = scope.get("route")
                self.counter.labels(getattr(route, "path", "other"), message["status"]).inc()
            await send(message)

        await self.app(scope, receive, count_and_send)
