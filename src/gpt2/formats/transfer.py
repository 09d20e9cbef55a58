"""One URL -> one file: resumed, retried, and under its name only when it is whole and what was asked for.

The retries are not urllib3's: those cover the answer's beginning, not its body, and what breaks off in the body of a
large file is what a download must go on from. One loop does both.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import requests

from gpt2 import files
from gpt2.errors import GPT2Error
from gpt2.files import ByteProgress, no_callback

MD5_SIZE = 16  # bytes
ATTEMPTS = 4
CHUNK_BYTES = 1 << 16  # bytes; what a broken connection costs at most
VERSION = re.compile(r"[\x21-\x7e][\x20-\x7e]*")  # an ETag or a date, as a header can hold it
TIMEOUTS = (15, 60)  # seconds to connect, and without a byte


class UnavailableError(Exception):
    """This URL does not give the file."""


class NotFoundError(UnavailableError):
    """The server has no such file."""


class RetryableError(Exception):
    """It failed this time; another attempt may go on from there."""


class Received(NamedTuple):
    """What came from a server, and what it said of the whole file."""

    resumed: bool
    size: int | None  # bytes
    md5: bytes | None


def fetch(url: str, path: Path, problem: Callable[[Path], str], report: ByteProgress = no_callback) -> None:
    """Downloads `url` to `path`, going on from a part that is there if the server says that it is of the same version.

    problem: says what is wrong with the downloaded file, or nothing; size and MD5, where the server sends them, are
    checked besides. report: told how many bytes are there, of how many if the server says so. Server errors and broken
    connections are tried again; raises Unavailable when that does not help, GPT2Error if another process downloads the
    file or if it cannot be written.
    """
    try:
        with files.open_exclusive(files.partial_path(path)) as file:
            part = PartialFile(files.partial_path(path), file)
            try:
                _fetch(url, part, problem, report)
                part.finish(path)
            finally:
                part.tidy()
    except OSError as error:
        raise GPT2Error(f"{path} cannot be written: {error.strerror or error}") from error


class PartialFile:
    """What is there of a file, and beside it which version of the file that is; one process at a time has it."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self.file = file  # that appends
        self.finished = False
        self.version = self._known()  # what the server called it, or "" if that is not known

    @property
    def size(self) -> int:
        self.file.flush()
        return os.fstat(self.file.fileno()).st_size

    def clear(self, version: str = "") -> None:
        """Starts anew, with this version."""
        self.file.truncate(0)
        self.version = version
        version_file(self.path).write_text(version, encoding="utf-8")

    def finish(self, path: Path) -> None:
        files.move_into_place(self.path, path)
        self.finished = True

    def tidy(self) -> None:
        """Leaves nothing where nothing came; of what is finished, the name may be another process's part by now."""
        if not self.finished and not self.size:
            self.path.unlink()
        if self.finished or not self.size:
            version_file(self.path).unlink(missing_ok=True)

    def _known(self) -> str:
        with contextlib.suppress(OSError):
            version = version_file(self.path).read_text(encoding="utf-8", errors="replace")
            return version if VERSION.fullmatch(version) else ""
        return ""


def version_file(part: Path) -> Path:
    """The file that says of which version a part is."""
    return part.with_name(f"{part.name}.version")


def _fetch(url: str, part: PartialFile, problem: Callable[[Path], str], report: ByteProgress) -> None:
    failure = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(2**attempt / 2)
        try:
            sent = _receive(url, part, report)
        except RetryableError as error:
            failure = str(error)
            continue
        failure = find_size_mismatch(part.path, sent.size) or _wrong_md5(part.path, sent.md5) or problem(part.path)
        if not failure:
            return
        part.clear()
        if not sent.resumed:  # else the part may have been of another file
            raise UnavailableError(failure)
    raise UnavailableError(f"{failure} ({ATTEMPTS} attempts)")


def _receive(url: str, part: PartialFile, report: ByteProgress) -> Received:
    have = part.size if part.version else 0
    # Compressed on the way, a file could not be resumed, nor its length be checked.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-", "If-Range": part.version} if have else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUTS) as response:
            if response.status_code != 416:
                _check_status(response)
            start = _range_start(response, part)
            if not start:
                part.clear(_version(response))
            length = "0" if response.status_code == 416 else response.headers.get("Content-Length", "")
            sent = Received(start > 0, start + int(length) if length.isdigit() else None, _md5(response))
            _append(response, part, start, sent.size, report)
    except (requests.exceptions.ChunkedEncodingError, requests.Timeout) as error:
        raise RetryableError(_in_short(error)) from error
    except requests.RequestException as error:
        raise (RetryableError if _broke_off(error) else UnavailableError)(_in_short(error)) from error
    have = part.size
    if sent.size is not None and have < sent.size:
        raise RetryableError(f"the connection ended after {have} of {sent.size} bytes")
    return sent


def _append(response: requests.Response, part: PartialFile, start: int, size: int | None, report: ByteProgress) -> None:
    done = start
    report(done, size)
    if response.status_code == 416:  # nothing comes after what is there
        return
    try:
        for chunk in response.iter_content(CHUNK_BYTES):
            part.file.write(chunk)
            done += len(chunk)
            report(done, size)
    except requests.ConnectionError as error:  # how requests reports silence in the middle of a body
        raise RetryableError(_in_short(error)) from error


def _check_status(response: requests.Response) -> None:
    status = f"{response.status_code} {response.reason}"
    if response.status_code >= 500 or response.status_code in (408, 429):
        raise RetryableError(status)
    if response.status_code in (403, 404, 410):  # object stores say 403 where listing is forbidden
        raise NotFoundError(status)
    if response.status_code not in (200, 206):
        raise UnavailableError(status)


def _range_start(response: requests.Response, part: PartialFile) -> int:
    """Where the bytes begin that come; those before are in the part. Raises TryAgain if these do not fit together."""
    if response.status_code == 200:
        return 0
    said = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", ""))
    have = part.size
    fits = said and (int(said[1]) == have if said[1] else said[2] == str(have) and response.status_code == 416)
    header = "ETag" if part.version.startswith('"') else "Last-Modified"
    if not have or not fits or response.headers.get(header, part.version) != part.version:
        part.clear()
        raise RetryableError("the part that was there did not fit the file")
    return have


def _version(response: requests.Response) -> str:
    """What `If-Range` may name the file by: a strong entity tag or, for want of one, the date of its last change."""
    tag = response.headers.get("ETag", "")
    version = response.headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag
    return version if VERSION.fullmatch(version) else ""


def _broke_off(error: requests.RequestException) -> bool:
    """Whether a connection ended that had been made; what cannot be reached at all is not tried again."""
    cause = error.args[0] if error.args else error
    return type(error) is requests.ConnectionError and not hasattr(cause, "reason")


def _md5(response: requests.Response) -> bytes | None:
    """The MD5 of the whole file as Azure and Google send it; of a range, Content-MD5 would be the range's."""
    google = re.search(r"md5=([\w+/=]+)", response.headers.get("x-goog-hash", ""))
    plain = response.headers.get("Content-MD5") if response.status_code == 200 else None
    encoded = response.headers.get("x-ms-blob-content-md5") or (google[1] if google else plain) or ""
    with contextlib.suppress(ValueError):
        md5 = base64.b64decode(encoded, validate=True)
        return md5 if len(md5) == MD5_SIZE else None  # some servers send it in hexadecimal digits
    return None


def find_size_mismatch(path: Path, size: int | None) -> str:
    actual = path.stat().st_size
    return "" if size in (None, actual) else f"it has {actual} bytes instead of {size}"


def _wrong_md5(path: Path, md5: bytes | None) -> str:
    return "" if md5 in (None, hash_file(path, "md5")) else "its MD5 is not the one that the server gave"


def hash_file(path: Path, algorithm: str) -> bytes:
    hasher: Any = hashlib.new(algorithm, usedforsecurity=False)
    with files.reporting_read_errors(path), path.open("rb") as file:
        for chunk in iter(lambda: file.read(CHUNK_BYTES), b""):
            hasher.update(chunk)
    return hasher.digest()


def _in_short(error: requests.RequestException) -> str:
    """The cause of an exception of requests, without the names of the layers that passed it on."""
    cause = error.args[0] if error.args else error
    text = str(getattr(cause, "reason", None) or cause)
    return re.sub(r"^(<.*?>|HTTPS?Connection\(.*?\)): ", "", text)[:200]
