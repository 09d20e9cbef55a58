"""A web server in this process; tests can replace any of its answers with a fault."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Called with the request's handler and the file's content: returns True after answering the request itself, or
# False to have the file sent.
Fault = Callable[[BaseHTTPRequestHandler, bytes], bool]


class FileServer:
    """Serves files with ranges and entity tags.

    Attributes:
        files: The content of each file by its path.
        md5: Whether to send the MD5 of a file.
        ranges: Whether to answer range requests with a range.
        tag: The ETag, with the content's hash in place of {}; "" sends none.
        if_range: Whether to respect the header If-Range.
        date: The Last-Modified header; "" sends none.
        faults: Faults by the path of the file. Each is used once, in order, before the file is served.
        requests: The path and the Range header of each request so far.
        url: The server's address.
    """

    def __init__(self, files: dict[str, bytes], md5: bool) -> None:
        self.files = files
        self.md5 = md5
        self.ranges = True
        self.tag = '"{}"'
        self.if_range = True
        self.date = ""
        self.faults: dict[str, list[Fault]] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path, range_header = handler.path.lstrip("/"), handler.headers.get("Range")
        self.requests.append((path, range_header))
        content = self.files.get(path)
        if content is None:
            return handler.send_error(404)
        if self.faults.get(path) and self.faults[path].pop(0)(handler, content):
            return None
        matching = (None, self.tag_of(content), self.date)
        if range_header and self.if_range and handler.headers.get("If-Range") not in matching:
            range_header = None
        start = first_byte(range_header) if range_header and self.ranges else 0
        if start >= len(content) and range_header:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.send_header("Content-Length", "5")
            handler.end_headers()
            handler.wfile.write(b"sorry")
            return None
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(content) - start))
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.md5:
            name = "x-ms-blob-content-md5" if start else "Content-MD5"
            handler.send_header(name, base64.b64encode(hashlib.md5(content).digest()).decode())
        self.send_version(handler, content)
        handler.end_headers()
        handler.wfile.write(content[start:])
        return None

    def tag_of(self, content: bytes) -> str:
        return self.tag.format(hashlib.md5(content).hexdigest())

    def send_version(self, handler: BaseHTTPRequestHandler, content: bytes) -> None:
        for name, value in (("ETag", self.tag_of(content)), ("Last-Modified", self.date)):
            if value:
                handler.send_header(name, value)


def first_byte(range_header: str) -> int:
    """Return the start of a range without an end."""
    match = re.fullmatch(r"bytes=(\d+)-", range_header)
    assert match, range_header
    return int(match[1])


@contextmanager
def serve(files: dict[str, bytes], md5: bool = True) -> Iterator[FileServer]:
    """Yield a running server of these files."""
    state = FileServer(files, md5)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield state
        server.shutdown()
        thread.join()


def status(code: int) -> Fault:
    """Answer with this HTTP status."""

    def fault(handler: BaseHTTPRequestHandler, content: bytes) -> bool:
        handler.send_error(code)
        return True

    return fault


def hang_up(handler: BaseHTTPRequestHandler, content: bytes) -> bool:
    """Close the connection without an answer."""
    return True


def short_body(sent: int, server: FileServer) -> Fault:
    """Announce the full length, send `sent` bytes and close the connection."""

    def fault(handler: BaseHTTPRequestHandler, content: bytes) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        server.send_version(handler, content)
        handler.end_headers()
        handler.wfile.write(content[:sent])
        return True

    return fault


def other_content(other: bytes, length: bool = True, md5: bytes | None = None) -> Fault:
    """Send another body with status 200; without `length` it ends when the connection closes."""

    def fault(handler: BaseHTTPRequestHandler, content: bytes) -> bool:
        handler.send_response(200)
        if length:
            handler.send_header("Content-Length", str(len(other)))
        if md5 is not None:
            handler.send_header("x-goog-hash", f"crc32c=AAAAAA==,md5={base64.b64encode(md5).decode()}")
        handler.end_headers()
        handler.wfile.write(other)
        return True

    return fault
