"""Download of one URL to one file, with resuming, retries, and checks before the file gets its final name.

urllib3's retries cover the start of a response but not its body. In large files, the connection usually breaks in the
body. Therefore one loop in this module covers both.
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

MD5_BYTES = 16
MAX_ATTEMPTS = 4
CHUNK_BYTES = 1 << 16  # maximum loss when a connection breaks
VERSION_PATTERN = re.compile(r"[\x21-\x7e][\x20-\x7e]*")  # an ETag or a date that can be sent in a header
TIMEOUT_SECONDS = (15, 60)  # for connecting, and between two bytes
RANGE_NOT_SATISFIABLE = 416  # HTTP status: the partial file is already complete

FileCheck = Callable[[Path], str]  # returns a description of the problem, or "" if there is none


class UnavailableError(Exception):
    """The error for a URL that does not provide the file."""


class NotFoundError(UnavailableError):
    """The error for a server that does not have the file."""


class RetryableError(Exception):
    """A failed attempt; another attempt may succeed and resume the download."""


class ResponseInfo(NamedTuple):
    """Information about the file from the headers of a response.

    Attributes:
        resumed: Whether the response continued the partial file instead of starting again.
        size: Size of the whole file in bytes; None if unknown.
        md5: MD5 of the whole file; None if unknown.
    """

    resumed: bool
    size: int | None
    md5: bytes | None


def fetch(
    url: str,
    path: Path,
    find_problem: FileCheck,
    report: ByteProgress = no_callback,
    verifying: Callable[[], object] = no_callback,
) -> None:
    """Download `url` to `path`.

    A partial file of an earlier attempt is resumed if the server confirms that it has the same version of the file.
    Server errors and broken connections are retried.

    Args:
        url: The address of the file.
        path: The final path of the file, in an existing folder.
        find_problem: Called with the path of the downloaded file; returns a description of the problem, or "" if there
            is none. If the server sends size and MD5, they are checked first.
        report: Progress callback: called with (done, total) bytes. If the server does not send the size, total is None.
        verifying: Called when all bytes are received and their checks start.

    Raises:
        UnavailableError: The file could not be downloaded or did not pass the checks.
        GPT2Error: Another process is downloading the file, or it cannot be written.
    """
    try:
        with files.open_exclusive(files.partial_path(path)) as file:
            part = PartialFile(files.partial_path(path), file)
            try:
                _fetch(url, part, find_problem, report, verifying)
                part.finish(path)
            finally:
                part.clean_up()
    except OSError as error:
        raise GPT2Error(f"{path} cannot be written: {error.strerror or error}") from error


class PartialFile:
    """An incomplete download, and a small file alongside it with its version; only one process can open it.

    Attributes:
        path: The path of the incomplete file.
        version: The ETag or date by which the server identifies this version of the file; "" if unknown.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        """Wrap a file that is open for appending at `path`."""
        self.path = path
        self.file = file
        self.finished = False
        self.version = self._read_version()

    @property
    def size(self) -> int:
        """The number of bytes that have been written."""
        self.file.flush()
        return os.fstat(self.file.fileno()).st_size

    def restart(self, version: str = "") -> None:
        """Discard the content and record the version of the content to be written.

        Args:
            version: The ETag or date of the new content; "" if unknown.
        """
        self.file.truncate(0)
        self.version = version
        version_file(self.path).write_text(version, encoding="utf-8")

    def finish(self, path: Path) -> None:
        """Rename the complete file to `path`."""
        files.move_into_place(self.path, path)
        self.finished = True

    def clean_up(self) -> None:
        """Remove an empty partial file, and the version file if it is no longer needed.

        After a finished download, the partial name is left alone, because another process may already use it.
        """
        if not self.finished and not self.size:
            self.path.unlink()
        if self.finished or not self.size:
            version_file(self.path).unlink(missing_ok=True)

    def _read_version(self) -> str:
        with contextlib.suppress(OSError):
            version = version_file(self.path).read_text(encoding="utf-8", errors="replace")
            return version if VERSION_PATTERN.fullmatch(version) else ""
        return ""


def version_file(part: Path) -> Path:
    """Return the path of the file that holds the version of the partial file `part`."""
    return part.with_name(f"{part.name}.version")


def _fetch(
    url: str, part: PartialFile, find_problem: FileCheck, report: ByteProgress, verifying: Callable[[], object]
) -> None:
    failure = ""
    for attempt in range(MAX_ATTEMPTS):
        if attempt:
            time.sleep(2**attempt / 2)
        try:
            info = _receive(url, part, report)
        except RetryableError as error:
            failure = str(error)
            continue
        verifying()
        failure = (
            find_size_mismatch(part.path, info.size)
            or _find_md5_mismatch(part.path, info.md5)
            or find_problem(part.path)
        )
        if not failure:
            return
        part.restart()
        if not info.resumed:  # only resumed files are retried, since they may mix two versions
            raise UnavailableError(failure)
    raise UnavailableError(f"{failure} ({MAX_ATTEMPTS} attempts)")


def _receive(url: str, part: PartialFile, report: ByteProgress) -> ResponseInfo:
    """Send one request and append its body to the partial file.

    Raises:
        RetryableError: The attempt failed, but another one may succeed.
        UnavailableError: The server does not provide the file.
    """
    try:
        with requests.get(url, headers=_request_headers(part), stream=True, timeout=TIMEOUT_SECONDS) as response:
            if response.status_code != RANGE_NOT_SATISFIABLE:
                _check_status(response)
            start = _range_start(response, part)
            if not start:
                part.restart(_version(response))
            info = ResponseInfo(start > 0, _total_size(response, start), _md5(response))
            _append(response, part, start, info.size, report)
    except (requests.exceptions.ChunkedEncodingError, requests.Timeout) as error:
        raise RetryableError(_shorten(error)) from error
    except requests.RequestException as error:
        raise (RetryableError if _was_connected(error) else UnavailableError)(_shorten(error)) from error
    size = part.size
    if info.size is not None and size < info.size:
        raise RetryableError(f"the connection ended after {size} of {info.size} bytes")
    return info


def _request_headers(part: PartialFile) -> dict[str, str]:
    headers = {"Accept-Encoding": "identity"}  # a compressed transfer can neither be resumed nor checked by size
    size = part.size if part.version else 0
    if size:
        headers |= {"Range": f"bytes={size}-", "If-Range": part.version}
    return headers


def _total_size(response: requests.Response, start: int) -> int | None:
    """Return the size of the whole file in bytes, or None if the server does not send it."""
    if response.status_code == RANGE_NOT_SATISFIABLE:  # the body is an error page
        return start
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() else None


def _append(response: requests.Response, part: PartialFile, start: int, size: int | None, report: ByteProgress) -> None:
    done = start
    report(done, size)
    if response.status_code == RANGE_NOT_SATISFIABLE:
        return
    try:
        for chunk in response.iter_content(CHUNK_BYTES):
            part.file.write(chunk)
            done += len(chunk)
            report(done, size)
    except requests.ConnectionError as error:  # requests raises this for a timeout in the middle of a body
        raise RetryableError(_shorten(error)) from error


def _check_status(response: requests.Response) -> None:
    status = f"{response.status_code} {response.reason}"
    if response.status_code >= 500 or response.status_code in (408, 429):
        raise RetryableError(status)
    if response.status_code in (403, 404, 410):  # if listing is forbidden, object stores send 403 for missing files
        raise NotFoundError(status)
    if response.status_code not in (200, 206):
        raise UnavailableError(status)


def _range_start(response: requests.Response, part: PartialFile) -> int:
    """Return the index of the response's first byte in the file, equal to the size of the partial file or 0.

    Raises:
        RetryableError: The response does not continue the partial file. The partial file has been discarded.
    """
    if response.status_code == 200:
        return 0
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", ""))
    size = part.size
    continues = False
    if match and match[1]:
        continues = int(match[1]) == size
    elif match:
        continues = match[2] == str(size) and response.status_code == RANGE_NOT_SATISFIABLE
    header = "ETag" if part.version.startswith('"') else "Last-Modified"
    if not size or not continues or response.headers.get(header, part.version) != part.version:
        part.restart()
        raise RetryableError("the partial file did not match the file on the server")
    return size


def _version(response: requests.Response) -> str:
    """Return a value for `If-Range`: a strong entity tag, otherwise the date of the last change, otherwise ""."""
    tag = response.headers.get("ETag", "")
    version = response.headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag
    return version if VERSION_PATTERN.fullmatch(version) else ""


def _was_connected(error: requests.RequestException) -> bool:
    """Return whether the error is the end of an established connection, rather than an unreachable server."""
    cause = error.args[0] if error.args else error
    return type(error) is requests.ConnectionError and not hasattr(cause, "reason")


def _md5(response: requests.Response) -> bytes | None:
    """Return the MD5 of the whole file from the headers of Azure or Google, or None.

    Content-MD5 is used only in a complete response, because in a partial response it is the MD5 of the range.
    """
    google = re.search(r"md5=([\w+/=]+)", response.headers.get("x-goog-hash", ""))
    plain = response.headers.get("Content-MD5") if response.status_code == 200 else None
    encoded = response.headers.get("x-ms-blob-content-md5") or (google[1] if google else plain) or ""
    with contextlib.suppress(ValueError):
        md5 = base64.b64decode(encoded, validate=True)
        return md5 if len(md5) == MD5_BYTES else None  # some servers send hexadecimal digits
    return None


def find_size_mismatch(path: Path, size: int | None) -> str:
    """Return a message if a file does not have the expected size, or "" if it does.

    Args:
        path: The file.
        size: The expected size in bytes; None accepts any size.
    """
    actual = path.stat().st_size
    return "" if size in (None, actual) else f"it has {actual} bytes instead of {size}"


def _find_md5_mismatch(path: Path, md5: bytes | None) -> str:
    return "" if md5 in (None, hash_file(path, "md5")) else "its MD5 differs from the MD5 that the server sent"


def hash_file(path: Path, algorithm: str) -> bytes:
    """Return the digest of a file.

    Args:
        path: The file.
        algorithm: A name that `hashlib.new` accepts.

    Raises:
        UnreadableFileError: The file cannot be read.
    """
    hasher: Any = hashlib.new(algorithm, usedforsecurity=False)
    with files.reporting_read_errors(path), path.open("rb") as file:
        for chunk in iter(lambda: file.read(CHUNK_BYTES), b""):
            hasher.update(chunk)
    return hasher.digest()


def _shorten(error: requests.RequestException) -> str:
    """Return the cause of an exception of requests, without the names of the wrapping exceptions."""
    cause = error.args[0] if error.args else error
    text = str(getattr(cause, "reason", None) or cause)
    return re.sub(r"^(<.*?>|HTTPS?Connection\(.*?\)): ", "", text)[:200]
