#!/usr/bin/env python3
"""Command: the slowest answer of /healthz while one client sends a heavy request.

    python benchmarks/healthz_under_load.py
    python benchmarks/healthz_under_load.py --rounds 5 --only tokenize
    python benchmarks/healthz_under_load.py --connections 8
    python benchmarks/healthz_under_load.py --checkout CHECKOUT_OF_AN_EARLIER_COMMIT
    python benchmarks/healthz_under_load.py --address 127.0.0.1:8000

Without `--address` the script starts the server of a checkout, by default this one, with models/shakespeare. Each
request is at most as large as `--max_body` allows by default. /healthz is polled every 50 ms, each time on a new
connection, from before the request until its response. A row shows the request, the status and the duration of its
response, and the slowest /healthz. Of several rounds, the row shows the round with the smallest slowest answer, because
other programs on the machine only add to it. The last line is JSON with all rows.
"""

import argparse
import contextlib
import json
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAX_BODY = 1 << 20
POLL_SECONDS = 0.05
WORDS = ["the", "and", "house", "tion", "wonder", "ful"]
EMOJI = "\U0001f600"


def fill(unit, start, end, separator=","):
    """Repeat a unit between start and end, up to the size that a body may have."""
    count = (MAX_BODY - len(start) - len(end)) // (len(unit) + len(separator)) - 1
    return (start + separator.join([unit] * count) + end).encode()


def text_body(text, **fields):
    """A JSON object with as much of a text as a body may have, as UTF-8 that is not escaped."""
    fields = json.dumps(fields)[1:-1]
    room = MAX_BODY - len(fields) - 20
    text = text.encode()[:room].decode("utf-8", "ignore")
    return f'{{"prompt": "{text}"{", " if fields else ""}{fields}}}'.encode()


def numbered(template, start, end):
    """Number the units between start and end, up to the size that a body may have."""
    units, size, number = [], len(start) + len(end), 0
    while size < MAX_BODY - 100:
        units.append(template % number)
        size += len(units[-1]) + 1
        number += 1
    return (start + ",".join(units) + end).encode()


def random_word(letters, n_bytes):
    return "".join(random.Random(1).choices(letters, k=n_bytes))


def post(path, body):
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body


def post_in_chunks(path, body, chunk_bytes=1):
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n"
    parts = [body[start : start + chunk_bytes] for start in range(0, len(body), chunk_bytes)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return head.encode() + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def get_with_headers(lines):
    return b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n" + b"".join(lines) + b"\r\n"


def heavy_requests(n_ctx):
    """Yield the name and the bytes of each request to a model with this context."""
    word = text_body("a" * MAX_BODY)
    emoji = text_body(EMOJI * (MAX_BODY // 4))
    letters = text_body(random_word("abcdefghijklmnopqrstuvwxyz", MAX_BODY))
    syllables = text_body("".join(random.Random(1).choices(WORDS, k=MAX_BODY // 3)))
    emojis = text_body("".join(map(chr, random.Random(1).choices(range(0x1F600, 0x1F640), k=MAX_BODY // 4))))
    texts = {
        "one repeated letter": word,
        "one word of random letters": letters,
        "one word of syllables": syllables,
        "one repeated emoji": emoji,
        "random emoji": emojis,
        "short words": text_body("a b " * (MAX_BODY // 4)),
        "spaces": text_body(" " * MAX_BODY),
        "digits": text_body("7" * MAX_BODY),
        "Chinese": text_body(random_word("".join(map(chr, range(0x4E00, 0x5E00))), MAX_BODY // 3)),
    }
    for name, body in texts.items():
        yield f"tokenize: {name}", post("/tokenize", body)
    for name in ("one word of syllables", "one repeated emoji"):
        yield f"completions: {name}", post("/v1/completions", texts[name])
        for path in ("scores", "next", "layers"):
            yield f"insight/{path}: {name}", post(f"/insight/{path}", texts[name])
        yield f"autocomplete: {name}", post("/autocomplete", texts[name][11:-1])
    yield "detokenize: many ids", post("/detokenize", fill("1", '{"tokens": [', "]}"))
    yield "detokenize: negative ids", post("/detokenize", fill("-1", '{"tokens": [', "]}"))
    yield "insight/next: many ids", post("/insight/next", fill("1", '{"prompt": [', "]}"))
    yield from heavy_json()
    yield from heavy_completions(n_ctx)
    yield from heavy_http(syllables)


def heavy_json():
    for name, unit in {
        "empty lists": "[]",
        "lists of one id": "[1]",
        "empty strings": '""',
        "objects": "{}",
        "ids and strings": '1,""',
        "numbers beyond infinity": "1e999",
        "many ids": "1",
        "numbers of 4,000 digits": "1" * 4000,
        "nulls": "null",
    }.items():
        yield f"completions: prompt of {name}", post("/v1/completions", fill(unit, '{"prompt": [', "]}"))
    yield "insight/next: empty lists", post("/insight/next", fill("[]", '{"prompt": [', "]}"))
    yield "autocomplete: empty lists", post("/autocomplete", fill("[]", "[", "]"))
    yield "completions: stop of numbers", post("/v1/completions", fill("1", '{"stop": [', "]}"))
    yield "completions: stop of strings", post("/v1/completions", fill('"a"', '{"stop": [', "]}"))
    yield "completions: one long stop", post("/v1/completions", fill("a", '{"stop": "', '"}', ""))
    yield "completions: biases", post("/v1/completions", numbered('"%d":1', '{"logit_bias": {', "}}"))
    yield "completions: wrong biases", post("/v1/completions", numbered('"%d":""', '{"logit_bias": {', "}}"))
    biases = ",".join(f'"{token}":0' for token in range(1000))
    yield "completions: biases in range", post("/v1/completions", f'{{"logit_bias": {{{biases}}}}}'.encode())
    yield "completions: unknown fields", post("/v1/completions", numbered('"%x":1', "{", "}"))
    yield "completions: deep lists", post("/v1/completions", b"[" * MAX_BODY)
    yield "completions: deep objects", post("/v1/completions", fill('{"a":', "", "", ""))
    yield "completions: one long number", post("/v1/completions", fill("1", '{"seed": ', "}", ""))


def heavy_completions(n_ctx):
    scored = {"prompt": [[1 + number, *[2] * (n_ctx - 2)] for number in range(128)], "echo": True, "max_tokens": 0}
    written = {"prompt": [[1] * (n_ctx // 2)] * 128, "max_tokens": 40, "logprobs": 20, "ignore_eos": True}
    for name, fields in {
        "128 scored prompts with 5 logprobs": {**scored, "logprobs": 5},
        "128 scored prompts with 20 logprobs": {**scored, "logprobs": 20},
        "128 scored prompts with 20 logprobs, streamed": {**scored, "logprobs": 20, "stream": True},
        "128 texts with 20 logprobs": written,
        "128 texts with 20 logprobs, streamed": {**written, "stream": True},
        "128 long texts": {"prompt": [str(number) + "a" * 8000 for number in range(128)]},
    }.items():
        yield f"completions: {name}", post("/v1/completions", json.dumps(fields).encode())


def heavy_http(body):
    yield "chunks of 1 byte: tokenize", post_in_chunks("/tokenize", body[:100_000] + b'"}')
    yield "chunks of 1 byte: completions", post_in_chunks("/v1/completions", body)
    yield "chunks of 1 byte: wrong path", post_in_chunks("/v1/nothing", body[:300_000])
    yield "chunks of 100 bytes: completions", post_in_chunks("/v1/completions", body, 100)
    yield "one long header", get_with_headers([b"x: " + b"a" * MAX_BODY + b"\r\n"])
    yield "many headers", get_with_headers([b"a:b\r\n"] * (MAX_BODY // 5))
    yield "headers of 60 KB", get_with_headers([b"a:b\r\n"] * 12_000)
    yield "a path of 60 KB", b"GET /" + b"%41" * 20_000 + b" HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
    yield "many requests at once", request * 5000 + request.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")


class Poller(threading.Thread):
    """Polls /healthz until it is stopped, and remembers the slowest answer."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.address = address
        self.slowest = 0.0
        self.stopping = threading.Event()

    def run(self):
        while not self.stopping.is_set():
            start = time.perf_counter()
            with socket.create_connection(self.address, timeout=120) as connection:
                connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                answer = connection.recv(100)
            seconds = time.perf_counter() - start
            if b" 200 " not in answer:
                raise SystemExit(f"/healthz answers {answer!r}")
            self.slowest = max(self.slowest, seconds)
            self.stopping.wait(max(0, POLL_SECONDS - seconds))


def send_request(address, request, limit):
    """Send a request, read its response to the end, and return its status; the server may close before the end."""
    end = time.monotonic() + limit
    start = b""
    with socket.create_connection(address, timeout=limit) as connection, contextlib.suppress(OSError):
        sender = threading.Thread(target=_send_all, args=(connection, request), daemon=True)
        sender.start()
        while time.monotonic() < end:
            part = connection.recv(1 << 20)
            if not part:
                break
            start = (start + part)[:100]
    return start.split(b" ")[1].decode() if start.startswith(b"HTTP/") else "closed"


def _send_all(connection, request):
    with contextlib.suppress(OSError):
        connection.sendall(request)


def measure(address, request, connections, limit):
    """Return the slowest /healthz while a request is sent on some connections, a status, and the whole duration."""
    poller = Poller(address)
    poller.start()
    time.sleep(3 * POLL_SECONDS)
    start = time.perf_counter()
    with ThreadPoolExecutor(connections) as threads:
        statuses = list(threads.map(lambda _: send_request(address, request, limit), range(connections)))
    seconds = time.perf_counter() - start
    time.sleep(3 * POLL_SECONDS)
    poller.stopping.set()
    poller.join(130)
    return poller.slowest, max(statuses), seconds


@contextlib.contextmanager
def serving(checkout, model):
    command = [sys.executable, str(Path(checkout) / "scripts" / "serve.py"), "--model_name", model, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if " on http://" in line:
                break
        else:
            raise SystemExit("the server did not start")
        threading.Thread(target=process.stderr.read, daemon=True).start()  # it must not fill the pipe
        host, _, port = line.split(" on http://")[1].split(";")[0].rpartition(":")
        try:
            yield host, int(port)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def find_n_ctx(address):
    with urllib.request.urlopen(f"http://{address[0]}:{address[1]}/v1/models") as response:
        return json.load(response)["data"][0]["n_ctx"]


def measure_all(address, only, connections, rounds, limit):
    rows = {}
    for name, request in heavy_requests(find_n_ctx(address)):
        if only not in name:
            continue
        slowest, status, seconds = min(measure(address, request, connections, limit) for _ in range(rounds))
        rows[name] = {"healthz": round(slowest, 3), "status": status, "seconds": round(seconds, 2)}
        print(f"{name:50} {status:>7} {seconds:8.2f} s {slowest:8.3f} s", flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", help="host:port of a running server")
    parser.add_argument("--checkout", default=ROOT, help="the checkout whose server is started")
    parser.add_argument("--model", default="shakespeare")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--connections", type=int, default=1, help="connections that send the request at once")
    parser.add_argument("--only", default="", help="measure the requests whose names contain this")
    parser.add_argument("--limit", type=float, default=60, help="seconds after which a client gives up")
    arguments = parser.parse_args()
    if arguments.address:
        host, _, port = arguments.address.rpartition(":")
        server = contextlib.nullcontext((host, int(port)))
    else:
        server = serving(arguments.checkout, arguments.model)
    print(f"{'request':50} {'status':>7} {'response':>10} {'/healthz':>10}")
    with server as address:
        rows = measure_all(address, arguments.only, arguments.connections, arguments.rounds, arguments.limit)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
