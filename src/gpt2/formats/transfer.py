"""One URL -> one file: resumed, retried, verified, and under its name only when it is whole and right."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import requests

from gpt2 import files
from gpt2.files import ByteCount, unheard

ATTEMPTS = 4
CHUNK = 1 << 16  # bytes; what a broken connection costs at most
TIMEOUTS = (15, 60)  # seconds to connect, and without a byte


class Unavailable(Exception):
    """This URL does not give the file."""


class NotFound(Unavailable):
    """The server has no such file."""


class TryAgain(Exception):
    """It failed this time; another attempt may go on from there."""


class Sent(NamedTuple):
    """What came from a server, and what it said of the whole file."""

    resumed: bool
    size: int | None  # bytes
    md5: bytes | None


def fetch(url: str, path: Path, problem: Callable[[Path], str], report: ByteCount = unheard) -> None:
    """Downloads `url` to `path`, going on from a part that is there.

    problem: says what is wrong with the downloaded file, or nothing; size and MD5, where the server sends them, are
    checked besides. report: told how many bytes are there, of how many if the server says so. Server errors and broken
    connections are tried again; raises Unavailable when that does not help.
    """
    part, failure = files.part_of(path), ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(2**attempt / 2)
        try:
            sent = _receive(url, part, report)
        except TryAgain as error:
            failure = str(error)
            continue
        failure = wrong_size(part, sent.size) or _wrong_md5(part, sent.md5) or problem(part)
        if not failure:
            files.put(part, path)
            return
        part.unlink()
        if not sent.resumed:  # else the part may have been of another file
            raise Unavailable(failure)
    raise Unavailable(f"{failure} ({ATTEMPTS} attempts)")


def _receive(url: str, part: Path, report: ByteCount) -> Sent:
    have = part.stat().st_size if part.exists() else 0
    # Compressed on the way, a file could not be resumed, nor its length be checked.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUTS) as response:
            if response.status_code == 416:
                return _at_the_end(response, part)
            _check_status(response)
            start = _range_start(response)
            if start not in (0, have):
                raise TryAgain(f"it sent the bytes from {start} instead of those from {have}")
            length = response.headers.get("Content-Length", "")
            sent = Sent(start > 0, start + int(length) if length.isdigit() else None, _md5(response))
            _append(response, part, start, sent.size, report)
    except (requests.exceptions.ChunkedEncodingError, requests.Timeout) as error:
        raise TryAgain(_in_short(error)) from error
    except requests.RequestException as error:
        raise Unavailable(_in_short(error)) from error
    if sent.size is not None and part.stat().st_size < sent.size:
        raise TryAgain(f"the connection ended after {part.stat().st_size} of {sent.size} bytes")
    return sent


def _append(response: requests.Response, part: Path, start: int, size: int | None, report: ByteCount) -> None:
    with part.open("ab" if start else "wb") as file:
        report(start, size)
        try:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                report(file.tell(), size)
        except requests.ConnectionError as error:  # how requests reports silence in the middle of a body
            raise TryAgain(_in_short(error)) from error


def _check_status(response: requests.Response) -> None:
    status = f"{response.status_code} {response.reason}"
    if response.status_code >= 500 or response.status_code in (408, 429):
        raise TryAgain(status)
    if response.status_code in (403, 404, 410):  # object stores say 403 where listing is forbidden
        raise NotFound(status)
    if response.status_code not in (200, 206):
        raise Unavailable(status)


def _range_start(response: requests.Response) -> int:
    if response.status_code == 200:
        return 0
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _at_the_end(response: requests.Response, part: Path) -> Sent:
    """The server has nothing after what is there: the part is whole, or was never one of this file."""
    match = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("Content-Range", ""))
    if match and int(match[1]) == part.stat().st_size:
        return Sent(True, int(match[1]), None)
    part.unlink()
    raise TryAgain("the part that was there did not fit the file")


def _md5(response: requests.Response) -> bytes | None:
    """The MD5 of the whole file as Azure and Google send it; of a range, Content-MD5 would be the range's."""
    google = re.search(r"md5=([\w+/=]+)", response.headers.get("x-goog-hash", ""))
    plain = response.headers.get("Content-MD5") if response.status_code == 200 else None
    encoded = response.headers.get("x-ms-blob-content-md5") or (google[1] if google else plain)
    return base64.b64decode(encoded) if encoded else None


def wrong_size(path: Path, size: int | None) -> str:
    actual = path.stat().st_size
    return "" if size in (None, actual) else f"it has {actual} bytes instead of {size}"


def _wrong_md5(path: Path, md5: bytes | None) -> str:
    return "" if md5 in (None, digest(path, "md5")) else "its MD5 is not the one that the server gave"


def digest(path: Path, algorithm: str) -> bytes:
    hasher: Any = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(CHUNK), b""):
            hasher.update(chunk)
    return hasher.digest()


def _in_short(error: requests.RequestException) -> str:
    """The cause of an exception of requests, without the names of the layers that passed it on."""
    cause = error.args[0] if error.args else error
    text = str(getattr(cause, "reason", None) or cause)
    return re.sub(r"^(<.*?>|HTTPS?Connection\(.*?\)): ", "", text)[:200]
