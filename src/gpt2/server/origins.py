"""Hosts and origins: the names by which a server is called, and the sites of the pages that call it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection

from gpt2.errors import UsageError

ANY_ORIGIN = "*"
NULL_ORIGIN = "null"  # of pages from files, and of sandboxed frames on any website
FILE_ORIGIN = "file://"  # of files in some browsers for applications
DEFAULT_PORTS = {"http": "80", "https": "443"}
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s\[\]:/?#@\\]+)(?::([0-9]{0,5}))?")
ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#@\s]*)/?")


def split_host(host: str) -> tuple[str, str] | None:
    """Return the name and the port in a Host header; None if it is malformed.

    Names are in lower case, without the final dot that ends a complete name.

    >>> split_host("LocalHost.:8000"), split_host("[::1]"), split_host("[")
    (('localhost', '8000'), ('::1', ''), None)
    """
    match = HOST.fullmatch(host.lower())
    return None if match is None else (match[1].strip("[]").removesuffix("."), match[2] or "")


def is_allowed_host(host: str, names: Collection[str]) -> bool:
    """Return whether a Host header is localhost, an IP address or one of the names; the port does not matter.

    >>> is_allowed_host("127.0.0.1:8000", ()), is_allowed_host("[::1]:8000", ()), is_allowed_host("evil.example", ())
    (True, True, False)
    """
    parts = split_host(host)
    if parts is None:
        return False
    hostname = parts[0]
    allowed = [name_parts[0] for name_parts in map(split_host, names) if name_parts is not None]
    if hostname == "localhost" or hostname.endswith(".localhost") or hostname in allowed:
        return True
    try:
        ipaddress.ip_address(hostname)
    except ValueError:
        return False
    return True


def is_same_origin(origin: str, host: str) -> bool:
    """Return whether an Origin header is a site whose pages come from the server that a Host header names.

    >>> is_same_origin("http://localhost.:8000", "localhost:8000"), is_same_origin("http://[", "[")
    (True, False)
    """
    scheme, _, _ = origin.partition("://")
    site = canonical_origin(origin)
    return scheme in DEFAULT_PORTS and site is not None and site == canonical_origin(f"{scheme}://{host}")


def is_allowed_origin(origin: str, allowed: Collection[str]) -> bool:
    """Return whether an Origin header is one of the allowed origins, which are in canonical form."""
    return ANY_ORIGIN in allowed or canonical_origin(origin) in allowed


def canonical_origin(origin: str) -> str | None:
    """Return an origin in lower case, without a final dot, slash or default port; None if it is malformed.

    >>> canonical_origin("https://Example.org.:443/")
    'https://example.org'
    """
    text = origin.lower()
    if text in (ANY_ORIGIN, NULL_ORIGIN):
        return text
    match = ORIGIN.fullmatch(text)
    if match is None or match[0].startswith(FILE_ORIGIN):
        return match and FILE_ORIGIN
    parts = split_host(match[2])
    if parts is None:
        return None
    name, port = parts
    suffix = f":{port}" if port and port != DEFAULT_PORTS.get(match[1]) else ""
    return f"{match[1]}://{f'[{name}]' if ':' in name else name}{suffix}"


def parse_allowed_origin(origin: str) -> str:
    """Return an origin that the user allows, in canonical form.

    Raises:
        UsageError: The text is not an origin.
    """
    canonical = canonical_origin(origin.strip())
    if canonical is None:
        raise UsageError(f"allow_origin must be like https://example.org, * or null, not {origin!r}")
    return canonical
