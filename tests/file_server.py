"""A web server in this process whose every answer a test can spoil."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# What a fault may do: answer itself and return True, or return False to let the file be sent.
Fault = Callable[[BaseHTTPRequestHandler, bytes], bool]


class FileServer:
    """Serves `files` (path -> bytes) with ranges and tags; `faults[path]` are used up before the true answers."""

    def __init__(self, files: dict[str, bytes], md5: bool) -> None:
        self.files = files
        self.md5 = md5
        self.ranges = True
        self.tag = '"{}"'  # of the ETag, filled with the content's hash; "" sends none
        self.if_range = True  # whether it heeds that header
        self.date = ""  # of the last change
        self.faults: dict[str, list[Fault]] = {}
        self.requests: list[tuple[str, str | None]] = []  # (path, Range)
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path, asked = handler.path.lstrip("/"), handler.headers.get("Range")
        self.requests.append((path, asked))
        content = self.files.get(path)
        if content is None:
            return handler.send_error(404)
        if self.faults.get(path) and self.faults[path].pop(0)(handler, content):
            return None
        if asked and self.if_range and handler.headers.get("If-Range") not in (None, self.tag_of(content), self.date):
            asked = None
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.ranges else 0
        if start >= len(content) and asked:
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


@contextmanager
def serve(files: dict[str, bytes], md5: bool = True) -> Iterator[FileServer]:
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
    """An answer with this status."""

    def fault(handler: BaseHTTPRequestHandler, content: bytes) -> bool:
        handler.send_error(code)
        return True

    return fault


def hang_up(handler: BaseHTTPRequestHandler, content: bytes) -> bool:
    """No answer."""
    return True


def short_body(sent: int, server: FileServer) -> Fault:
    """The full length announced, so many bytes sent, and the connection closed."""

    def fault(handler: BaseHTTPRequestHandler, content: bytes) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        server.send_version(handler, content)
        handler.end_headers()
        handler.wfile.write(content[:sent])
        return True

    return fault


def other_content(other: bytes, length: bool = True, md5: bytes | None = None) -> Fault:
    """Another body under status 200; without its length it ends when the connection does."""

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
