"""Who may ask, and how much: what is checked of every request before anything reads it.

Host: a page elsewhere whose name is made to mean this machine (DNS rebinding) asks with that name. Origin: pages of
other sites. A key, compared in constant time. Size and patience: a body is read whole, or refused, before it is used.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hmac
import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpt2.server.defaults import MOST_BODY
from gpt2.server.errors import ApiError

LOCAL = "localhost"
OPEN = ("/healthz",)  # with a key too
SECURITY = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    b" connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
}


@dataclasses.dataclass(frozen=True)
class AccessLimits:
    """hosts: names besides localhost and IP addresses by which the server may be called. origins: of pages elsewhere
    that may ask. api_key: None for none. body: bytes. patience: seconds for a request's body to come."""

    hosts: Collection[str] = ()
    origins: Collection[str] = ()
    api_key: str | None = None
    body: int = MOST_BODY
    patience: float = 30.0


class RequestFilter:
    """An ASGI application around another one. api: the beginnings of paths that need the key."""

    def __init__(self, app: ASGIApp, limits: AccessLimits, api: Collection[str]) -> None:
        self.app, self.limits, self.api = app, limits, tuple(api)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *SECURITY.items()]}
            await send(message)

        try:
            self._check(scope, Headers(scope=scope))
            body = await self._body(receive, Headers(scope=scope))
        except ApiError as error:
            return await error.response()(scope, receive, secured)
        if body is not None:
            await self.app(scope, _replayed(body, receive), secured)

    def _check(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "")
        if not is_allowed_host(host, self.limits.hosts):
            said = f"this server is not known as {host[:80]!r}; start it with --allow_host to let it be"
            raise ApiError(403, said, code="host_not_allowed")
        origin = headers.get("origin")
        if origin is not None and not self._is_allowed_origin(origin, host):
            said = f"pages of {origin[:80]!r} may not ask; start the server with --allow_origin to let them"
            raise ApiError(403, said, code="origin_not_allowed")
        path = scope["path"]
        if self.limits.api_key is not None and path.startswith(self.api) and scope["method"] != "OPTIONS":
            given = headers.get("authorization", "").partition(" ")
            if given[0].lower() != "bearer" or not _same(given[2].strip(), self.limits.api_key):
                raise ApiError(401, "give the server's key: Authorization: Bearer KEY", code="invalid_api_key")

    def _is_allowed_origin(self, origin: str, host: str) -> bool:
        return origin in self.limits.origins or "*" in self.limits.origins or urlsplit(origin).netloc == host

    async def _body(self, receive: Receive, headers: Headers) -> bytes | None:
        """All of it; None if the client went away."""
        most, length = self.limits.body, headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > most:
            raise _too_large(most)
        parts: list[bytes] = []
        clock = asyncio.get_running_loop().time
        end = clock() + self.limits.patience
        try:
            while True:
                message = await asyncio.wait_for(receive(), end - clock())
                if message["type"] == "http.disconnect":
                    return None
                parts.append(message.get("body", b""))
                if sum(map(len, parts)) > most:
                    raise _too_large(most)
                if not message.get("more_body"):
                    return b"".join(parts)
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise ApiError(408, f"the request did not come within {self.limits.patience:g} seconds") from error


def is_allowed_host(host: str, names: Collection[str]) -> bool:
    """Whether a Host header is localhost, an address, or one of the names; the port does not matter.

    >>> is_allowed_host("127.0.0.1:8000", ()), is_allowed_host("[::1]:8000", ()), is_allowed_host("evil.example", ())
    (True, True, False)
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == LOCAL or name.endswith(f".{LOCAL}") or name in {known.lower() for known in names}:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _same(given: str, key: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8"), key.encode("utf-8"))


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"a request's body is at most {most} bytes")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """What has been read once more, then what comes: that the client has gone away."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
