"""The command under load: clients that disconnect, large and slow requests, and many requests at the same time.

Some tests are slow: pytest -m slow tests/server; LOAD_SECONDS is the duration of the mixed load, 60 by default.
"""

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx
import psutil
import pytest

from gpt2 import generate
from gpt2.request import Request, Sampling
from gpt2.server.protocol import HEADER_TIMEOUT_SECONDS, LimitedProtocol

COMMAND = Path(__file__).resolve().parents[2] / "scripts" / "serve.py"
LOAD_SECONDS = float(os.environ.get("LOAD_SECONDS", "60"))
WORDS = ["the", "cat", "sat", "on", "mat", "log", "dog"]


@contextlib.contextmanager
def serve_command(*flags):
    """Run the command, and yield its process and its URL."""
    arguments = [sys.executable, str(COMMAND), "--port", "0", *flags]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        assert " on http://" in line, line
        try:
            yield process, line.split(" on ")[1].split(";")[0]
        finally:
            process.terminate()
            process.wait(60)


def resident_bytes(process):
    return psutil.Process(process.pid).memory_info().rss


def connect(url):
    return socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30)


def raw_request(body, length=None):
    head = f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length or len(body)}\r\n\r\n"
    return head.encode() + body


def test_the_command_from_its_start_to_its_end(tiny_dir):
    with serve_command("--model_name", str(tiny_dir)) as (process, url):
        assert url.startswith("http://127.0.0.1:")
        response = httpx.post(f"{url}/v1/completions", json={"prompt": "the cat", "max_tokens": 3})
        assert response.status_code == 200
        with httpx.stream(
            "POST",
            f"{url}/v1/completions",
            json={"prompt": "the", "max_tokens": 1500, "ignore_eos": True, "stream": True},
        ) as streamed:
            lines = streamed.iter_lines()
            next(lines)
            process.terminate()  # the running request is finished
            assert list(lines)[-2:] == ["data: [DONE]", ""]
        assert process.wait(30) == 0
        assert process.stderr.read() == "stopped\n"


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--model_name", "none"], "model 'none' is neither"),
        (["--port", "70000"], "port must be below 65536"),
        (["--host", "256.1.1.1"], "cannot listen on 256.1.1.1 port 0"),
        (["--precision", "int4"], "precision must be one of"),
        (["--timeout", "0"], "timeout must be a number from 0.1"),
    ],
)
def test_the_command_rejects_wrong_flags(tiny_dir, flags, message):
    arguments = [sys.executable, str(COMMAND), "--port", "0", "--model_name", str(tiny_dir), *flags]
    process = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert process.returncode in (1, 2) and message in process.stderr and process.stderr.count("\n") == 1


def hang_up(url, number):
    """Disconnect in one of the ways in which clients do."""
    body = json.dumps({"prompt": "the cat", "max_tokens": 500, "ignore_eos": True, "stream": number % 2 == 0}).encode()
    with connect(url) as client:
        if number % 4 == 0:
            client.sendall(raw_request(body)[:40])
        elif number % 4 == 1:
            client.sendall(raw_request(body[:10], len(body)))
        else:
            client.sendall(raw_request(body))
            client.recv(50)


def wait_until_idle(url):
    for _ in range(300):
        if "gpt2_texts_writing" in (metrics := httpx.get(f"{url}/metrics").text):
            values = [float(line.split()[-1]) for line in metrics.splitlines() if line.startswith(("gpt2_texts_",))]
            if not any(values):
                return
        time.sleep(0.1)
    raise AssertionError("texts of disconnected clients are still being generated")


class Clock:
    """An event loop whose time the test sets."""

    now = 0.0

    def time(self):
        return self.now

    def call_later(self, _seconds, _call):
        return None


def test_a_connection_in_use_is_not_closed_between_two_requests():
    """Even if each check happens to fall between two requests."""
    protocol = LimitedProtocol.__new__(LimitedProtocol)
    closed = []
    protocol.loop = Clock()
    protocol.transport = SimpleNamespace(close=lambda: closed.append(protocol.loop.now))
    for _ in range(10):
        protocol.cycle = SimpleNamespace(response_complete=True)  # a request that has ended since the last check
        protocol._check_idle()
        protocol.loop.now += HEADER_TIMEOUT_SECONDS / 2
    last = protocol.loop.now - HEADER_TIMEOUT_SECONDS / 2
    while not closed and protocol.loop.now < last + 10 * HEADER_TIMEOUT_SECONDS:
        protocol._check_idle()
        protocol.loop.now += HEADER_TIMEOUT_SECONDS / 2
    assert last + HEADER_TIMEOUT_SECONDS <= closed[0] <= last + 2 * HEADER_TIMEOUT_SECONDS


@pytest.mark.slow
def test_a_thousand_clients_that_disconnect(tiny_dir):
    with serve_command("--model_name", str(tiny_dir)) as (process, url), ThreadPoolExecutor(50) as threads:
        list(threads.map(lambda number: hang_up(url, number), range(1000)))
        wait_until_idle(url)
        before = resident_bytes(process)
        list(threads.map(lambda number: hang_up(url, number), range(1000)))
        wait_until_idle(url)
        assert resident_bytes(process) < 1.05 * before
        response = httpx.post(f"{url}/v1/completions", json={"prompt": "the cat", "max_tokens": 3})
        assert response.status_code == 200


def test_fifty_megabytes_are_rejected(tiny_dir):
    with serve_command("--model_name", str(tiny_dir)) as (process, url):
        before = resident_bytes(process)
        large = b'{"prompt": "' + b"x" * 50_000_000 + b'"}'
        with contextlib.suppress(httpx.WriteError, httpx.ReadError):  # the server may not read it to the end
            assert httpx.post(f"{url}/v1/completions", content=large).status_code == 413
        parts = (large[start : start + 65536] for start in range(0, len(large), 65536))
        with contextlib.suppress(httpx.WriteError, httpx.ReadError):
            assert httpx.post(f"{url}/v1/completions", content=parts).status_code == 413
        assert resident_bytes(process) < before + 20_000_000
        assert httpx.get(f"{url}/healthz").status_code == 200


def random_body(rng):
    prompt = " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 20)))
    return {
        "prompt": prompt,
        "max_tokens": rng.randint(1, 60),
        "seed": rng.randrange(50),
        "top_k": 10,
        "ignore_eos": True,
    }


@pytest.mark.slow
def test_memory_stays_flat_and_texts_are_right_under_mixed_load(tiny_dir):
    model = generate.load(str(tiny_dir))
    bodies = [random_body(random.Random(number)) for number in range(300)]
    requests = [Request(b["prompt"], b["max_tokens"], Sampling(top_k=10), b["seed"]) for b in bodies]
    expected = list(generate.generate(model, requests, 32))
    rng = random.Random(1)
    n_checked = 0
    memory_bytes = []
    with serve_command("--model_name", str(tiny_dir), "--queue", "200") as (process, url):
        with httpx.Client(base_url=url, timeout=60) as client, ThreadPoolExecutor(16) as threads:

            def send_request(number):
                if rng.random() < 0.1:
                    hang_up(url, number)
                body = {**bodies[number], "stream": number % 2 == 0}
                response = client.post("/v1/completions", json=body)
                assert response.status_code == 200
                if not body["stream"]:
                    return response.json()["choices"][0]["text"] == expected[number]
                events = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
                return "".join(json.loads(event)["choices"][0]["text"] for event in events[:-1]) == expected[number]

            end = time.monotonic() + LOAD_SECONDS
            while time.monotonic() < end:
                numbers = [rng.randrange(300) for _ in range(200)]
                assert all(threads.map(send_request, numbers))
                n_checked += len(numbers)
                wait_until_idle(url)
                memory_bytes.append(resident_bytes(process))
        assert n_checked >= 200
    settled = memory_bytes[len(memory_bytes) // 5 :]
    assert max(settled) < 1.05 * settled[0]
