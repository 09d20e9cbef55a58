"""Access control and counting: ASGI middleware around the server's application.

`RequestFilter` checks each request before the application sees it:

- The Host header. A page elsewhere can make its own name point to this machine (DNS rebinding), but its requests still
  carry that name.
- The Origin header, which names the site of the page that sends the request.
- The API key, which is compared in constant time.
- The body, which must arrive in time and is read completely, or rejected, before it is used.

`CrossOriginHeaders` and `SecurityHeaders` add headers to the responses, those of the filter included.
`RequestCounter` counts the responses.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hmac
from collections.abc import Collection

from prometheus_client import Counter
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpt2.errors import UsageError
from gpt2.server.defaults import MAX_BODY_BYTES
from gpt2.server.errors import ApiError, quote
from gpt2.server.origins import (
    ANY_ORIGIN,
    NULL_ORIGIN,
    is_allowed_host,
    is_allowed_origin,
    is_same_origin,
    parse_allowed_origin,
)

BODY_TIMEOUT_SECONDS = 30.0
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
FOREIGN_SITES = ("cross-site", "same-site")  # values of Sec-Fetch-Site
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
        origins: Other sites whose pages may send requests; "*" allows all, "null" pages from files.
        api_key: The key that API requests must carry; None if they need no key.
        max_body_bytes: Maximum size of a request's body.
        body_timeout: Seconds within which a request's body must arrive.
    """

    hosts: Collection[str] = ()
    origins: Collection[str] = ()
    api_key: str | None = None
    max_body_bytes: int = MAX_BODY_BYTES
    body_timeout: float = BODY_TIMEOUT_SECONDS

    def __post_init__(self) -> None:
        """Check the origins and the key.

        Raises:
            UsageError: A text is not an origin, the key cannot be sent, or "null" is allowed without a key.
        """
        object.__setattr__(self, "origins", tuple(map(parse_allowed_origin, self.origins)))
        if self.api_key is None and NULL_ORIGIN in self.origins:
            raise UsageError(
                "allow_origin null needs an api_key, because any website can send requests as null from a sandboxed"
                " frame; give --api_key KEY as well"
            )
        if self.api_key is not None:
            object.__setattr__(self, "api_key", self.api_key.strip())  # a key from a file may end with a line break
            if not self.api_key or min(self.api_key) < " ":
                raise UsageError("api_key is empty or has a control character, such as a line break; choose another")


class SecurityHeaders:
    """Middleware that adds security headers to all responses."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request as the application does, with security headers."""

        async def send_with_security_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *SECURITY_HEADERS.items()]}
            await send(message)

        await self.app(scope, receive, send_with_security_headers)


class CrossOriginHeaders(CORSMiddleware):
    """Middleware that adds to each response, errors included, the headers by which an allowed page can read it."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        """Wrap an application; its pages at these origins may read the responses."""
        super().__init__(app, origins, allow_methods=["*"], allow_headers=["*"], expose_headers=["Retry-After"])

    def is_allowed_origin(self, origin: str) -> bool:
        """Return whether the pages of an origin may read the responses."""
        return is_allowed_origin(origin, self.allow_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer preflight requests of allowed origins; the application rejects other origins."""
        origin = Headers(scope=scope).get("origin") if scope["type"] == "http" else None
        middleware = super().__call__ if origin is not None and self.is_allowed_origin(origin) else self.app
        await middleware(scope, receive, send)


class RequestFilter:
    """Middleware that rejects requests beyond the limits."""

    def __init__(
        self, app: ASGIApp, limits: AccessLimits, protected_paths: Collection[str], health_paths: Collection[str] = ()
    ) -> None:
        """Wrap an application.

        Args:
            app: The application.
            limits: The rules by which requests are accepted.
            protected_paths: Prefixes of the paths that need the API key.
            health_paths: The paths that need no Host header, because old health checks send none.
        """
        self.app = app
        self.limits = limits
        self.protected_paths = tuple(protected_paths)
        self.health_paths = health_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject a request with an error, or pass it to the application."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        try:
            self._check_host(scope, headers)
            self._check_origin(scope, headers)
            self._check_key(scope, headers)
            body = await self._read_body(receive, headers)
        except ApiError as error:
            return await error.response()(scope, receive, send)
        if body is not None:
            await self.app(scope, _replay(body, receive), send)

    def _check_host(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "")
        if not host and scope["path"] not in self.health_paths:
            raise ApiError(403, "the request has no Host header; send the server's name", code="host_not_allowed")
        if host and not is_allowed_host(host, self.limits.hosts):
            message = f"the host {quote(host)} is not allowed; start the server with --allow_host"
            raise ApiError(403, message, code="host_not_allowed")

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        """Check that no page of another site sends the request, unless it is allowed.

        Browsers send Origin with each POST request to another site, whatever its Content-Type. Sec-Fetch-Site is a
        second lock.
        """
        origins = self.limits.origins
        origin = headers.get("origin")
        is_foreign = scope["method"] not in SAFE_METHODS and headers.get("sec-fetch-site") in FOREIGN_SITES
        if origin is not None:
            is_same = is_same_origin(origin, headers.get("host", ""))
            is_foreign = not is_same and not is_allowed_origin(origin, origins)
        if is_foreign and ANY_ORIGIN not in origins:
            site = "another site" if origin is None else quote(origin)
            flags = "--allow_origin null --api_key KEY" if origin == NULL_ORIGIN else "--allow_origin"
            message = f"requests from pages of {site} are not allowed; start the server with {flags}"
            raise ApiError(403, message, code="origin_not_allowed")

    def _check_key(self, scope: Scope, headers: Headers) -> None:
        needs_key = scope["path"].startswith(self.protected_paths) and scope["method"] != "OPTIONS"
        if needs_key and self.limits.api_key is not None:
            value = headers.get("authorization", "").encode("latin-1")  # the bytes that were sent
            scheme, _, key = value.partition(b" ")
            if scheme.lower() != b"bearer" or not _is_same_key(key.strip(), self.limits.api_key):
                message = "the API key is missing or wrong; send it as Authorization: Bearer KEY"
                raise ApiError(401, message, code="invalid_api_key")

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


def _is_same_key(key: bytes, api_key: str) -> bool:
    """Compare keys in constant time; clients send characters beyond ASCII in UTF-8 or, as browsers do, in Latin-1."""
    encoded = [api_key.encode("utf-8", "surrogateescape")]  # as in the environment, whatever its encoding
    with contextlib.suppress(UnicodeEncodeError):
        encoded.append(api_key.encode("latin-1"))
    return any([hmac.compare_digest(key, expected) for expected in encoded])


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
