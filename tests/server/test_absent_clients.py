"""Clients that leave before their response, or that stay and do not read it."""

import contextlib
import json
import socket
import threading
import time

import httpx
import pytest
from served import serving

from gpt2.request import Request
from gpt2.server import protocol, run
from gpt2.server.app import ServerOptions
from gpt2.server.scheduler import QueueFullError, Scheduler
from gpt2.text_batch import prepare

LONG = {"prompt": "the cat", "max_tokens": 4000, "ignore_eos": True}
LARGE = {**LONG, "logprobs": 20, "n": 4, "max_tokens": 3000}


def post(path, body):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(content) + content


def send(address, request, receive_bytes=None):
    """Connect and send a request; with `receive_bytes`, the system holds few bytes for the client."""
    connection = socket.socket()
    connection.settimeout(30)
    if receive_bytes:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.connect(("127.0.0.1", int(address.rpartition(":")[2])))
    connection.sendall(request)
    return connection


def wait_for(condition, seconds=15.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def count_texts(client, state):
    metrics = client.get("/metrics").text
    return float(metrics.split(f'gpt2_texts_{state}{{model="tiny"}} ')[1].split()[0])


@pytest.fixture
def slow_model(native_tiny_model, monkeypatch):
    """A model whose long texts take a minute."""
    extend = native_tiny_model.backend.extend

    def extend_slowly(*arguments):
        time.sleep(0.015)
        return extend(*arguments)

    monkeypatch.setattr(native_tiny_model.backend, "extend", extend_slowly, raising=False)
    return native_tiny_model


@pytest.mark.parametrize(
    "path, body",
    [
        ("/v1/completions", {**LONG, "stream": True}),
        ("/v1/completions", {**LONG, "stream": True, "n": 3}),
        ("/v1/completions", {**LONG, "stream": True, "echo": True, "logprobs": 5}),
        ("/v1/completions", {**LONG, "stream": True, "prompt": ["the", "cat"]}),
        ("/v1/completions", {**LONG, "stream": True, "stream_options": {"include_usage": True}}),
        ("/v1/completions", LONG),
        ("/autocomplete", b'"the cat"'),
        ("/insight/scores", {"prompt": "the cat"}),
    ],
)
def test_a_client_that_leaves_gives_up_its_place_in_the_queue(slow_model, path, body):
    with (
        serving({"tiny": slow_model}, batch_size=1, queue_size=1) as address,
        httpx.Client(base_url=address, timeout=30) as client,
        client.stream("POST", "/v1/completions", json={**LONG, "stream": True}) as running,
    ):
        lines = running.iter_lines()  # the variable keeps the response open
        assert next(lines)
        with send(address, post(path, body)):
            assert wait_for(lambda: count_texts(client, "queued"))
            assert client.post("/v1/completions", json=LONG).status_code == 429
        assert wait_for(lambda: not count_texts(client, "queued"))
        assert count_texts(client, "writing") == 1
        with send(address, post("/v1/completions", LONG)):  # a patient client gets the place
            assert wait_for(lambda: count_texts(client, "queued"))
        next(lines)


def test_cancelled_jobs_do_not_count_as_waiting(native_tiny_model):
    scheduler = Scheduler(native_tiny_model, batch_size=1, queue_size=2)  # not started: nothing removes the jobs
    sequence = prepare(Request("the cat", 5), native_tiny_model.encoder.encode("the cat"))
    jobs = [scheduler.submit([sequence], print) for _ in range(2)]
    with pytest.raises(QueueFullError):
        scheduler.submit([sequence], print)
    scheduler.cancel(jobs[0])
    assert scheduler.n_queued == 1
    scheduler.submit([sequence], print)
    with pytest.raises(QueueFullError):
        scheduler.submit([sequence], print)


@pytest.fixture
def small_buffers(monkeypatch):
    """Let the system hold few bytes that a client has not read."""
    listen = run.listen

    def listen_with_small_buffers(*arguments):
        listener = listen(*arguments)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return listener

    monkeypatch.setattr(run, "listen", listen_with_small_buffers)


@pytest.fixture
def closed(monkeypatch):
    """An event that is set when the server has closed the connection of a request with a response of a minute."""
    event = threading.Event()
    connection_lost = protocol.LimitedProtocol.connection_lost

    def remember(self, error):
        connection_lost(self, error)
        if self.scope and self.scope["path"] not in ("/metrics", "/healthz"):
            event.set()

    monkeypatch.setattr(protocol.LimitedProtocol, "connection_lost", remember)
    return event


@pytest.mark.parametrize(
    "path, body",
    [
        ("/v1/completions", {**LARGE, "stream": True}),
        ("/v1/completions", {**LARGE, "stream": True, "logprobs": 0, "echo": True}),
        ("/v1/completions", {**LARGE, "stream": True, "n": 32, "logprobs": None, "max_tokens": 4000}),
        ("/v1/completions", {**LARGE, "max_tokens": 100}),
        ("/tokenize", {"prompt": "the cat " * 50_000}),
    ],
)
def test_a_client_that_never_reads_does_not_hold_its_response_beyond_the_timeout(
    native_tiny_model, small_buffers, closed, path, body
):
    with (
        serving({"tiny": native_tiny_model}, ServerOptions(timeout=1.5)) as address,
        httpx.Client(base_url=address, timeout=30) as client,
        contextlib.closing(send(address, post(path, body), receive_bytes=4096)),
    ):
        assert wait_for(lambda: not count_texts(client, "writing") and closed.is_set(), seconds=8)
        assert client.post("/v1/completions", json={"max_tokens": 1}).status_code == 200


def test_a_stream_that_nobody_reads_is_not_generated_beyond_the_timeout(slow_model, small_buffers):
    body = {**LARGE, "stream": True}
    with (
        serving({"tiny": slow_model}, ServerOptions(timeout=2)) as address,
        httpx.Client(base_url=address, timeout=30) as client,
        contextlib.closing(send(address, post("/v1/completions", body), receive_bytes=4096)),
    ):
        assert wait_for(lambda: count_texts(client, "writing") == 4)
        assert wait_for(lambda: count_texts(client, "writing") == 0, seconds=8)


def test_a_client_that_reads_slowly_gets_all_of_its_response(native_tiny_model, small_buffers):
    request = post("/tokenize", {"prompt": "the cat " * 30_000})
    with (
        serving({"tiny": native_tiny_model}, ServerOptions(timeout=0.5)) as address,
        contextlib.closing(send(address, request, receive_bytes=4096)) as connection,
    ):
        received = b""
        end = time.monotonic() + 20
        while b"}" not in received[-1:] and time.monotonic() < end:
            received += connection.recv(1 << 14)
            time.sleep(0.02)
        head, _, content = received.partition(b"\r\n\r\n")
    assert f"content-length: {len(content)}" in head.decode() and json.loads(content)["count"] > 50_000
