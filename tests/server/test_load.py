"""The command under load: clients that hang up, large and slow ones, and many at once whose answers must be right.

The long ones are slow: pytest -m slow tests/server; LOAD_SECONDS sets how long the mixed load lasts, 60 by default.
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
from gpt2.server.run import HEADERS, HeaderTimeoutProtocol

COMMAND = Path(__file__).resolve().parents[2] / "scripts" / "serve.py"
LOAD_SECONDS = float(os.environ.get("LOAD_SECONDS", "60"))
WORDS = ["the", "cat", "sat", "on", "mat", "log", "dog"]


@contextlib.contextmanager
def command(*flags):
    """The command as a process, and its URL."""
    arguments = [sys.executable, str(COMMAND), "--port", "0", *flags]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        assert " on http://" in line, line
        try:
            yield process, line.split(" on ")[1].split(";")[0]
        finally:
            process.terminate()
            process.wait(60)


def memory(process):
    return psutil.Process(process.pid).memory_info().rss


def connection(url):
    return socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30)


def request(body, length=None):
    head = f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length or len(body)}\r\n\r\n"
    return head.encode() + body


def test_the_command_from_its_start_to_its_end(tiny_dir):
    with command("--model_name", str(tiny_dir)) as (process, url):
        assert url.startswith("http://127.0.0.1:")
        answer = httpx.post(f"{url}/v1/completions", json={"prompt": "the cat", "max_tokens": 3})
        assert answer.status_code == 200
        with httpx.stream(
            "POST",
            f"{url}/v1/completions",
            json={"prompt": "the", "max_tokens": 1500, "ignore_eos": True, "stream": True},
        ) as streamed:
            lines = streamed.iter_lines()
            next(lines)
            process.terminate()  # what is being written is finished
            assert list(lines)[-2:] == ["data: [DONE]", ""]
        assert process.wait(30) == 0
        assert process.stderr.read() == "stopped\n"


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--model_name", "none"], "model 'none' is neither"),
        (["--port", "70000"], "port must be below 65536"),
        (["--host", "256.1.1.1"], "256.1.1.1 port 0 cannot be listened on"),
        (["--precision", "int4"], "precision must be one of"),
        (["--timeout", "0"], "timeout must be a number from 0.1"),
    ],
)
def test_what_the_command_refuses(tiny_dir, flags, said):
    arguments = [sys.executable, str(COMMAND), "--port", "0", "--model_name", str(tiny_dir), *flags]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert ended.returncode in (1, 2) and said in ended.stderr and ended.stderr.count("\n") == 1


def hang_up(url, number):
    """In one of the ways in which clients do."""
    body = json.dumps({"prompt": "the cat", "max_tokens": 500, "ignore_eos": True, "stream": number % 2 == 0}).encode()
    with connection(url) as client:
        if number % 4 == 0:
            client.sendall(request(body)[:40])
        elif number % 4 == 1:
            client.sendall(request(body[:10], len(body)))
        else:
            client.sendall(request(body))
            client.recv(50)


def wait_until_idle(url):
    for _ in range(300):
        if "gpt2_texts_writing" in (said := httpx.get(f"{url}/metrics").text):
            values = [float(line.split()[-1]) for line in said.splitlines() if line.startswith(("gpt2_texts_",))]
            if not any(values):
                return
        time.sleep(0.1)
    raise AssertionError("texts are still being written that nobody waits for")


class Clock:
    """A loop in which time passes when it is told to."""

    now = 0.0

    def time(self):
        return self.now

    def call_later(self, _seconds, _call):
        return None


def test_a_connection_that_is_in_use_is_not_closed_between_two_requests():
    """However often it happens to be looked at in between."""
    protocol, closed = HeaderTimeoutProtocol.__new__(HeaderTimeoutProtocol), []
    protocol.loop, protocol.transport = Clock(), SimpleNamespace(close=lambda: closed.append(protocol.loop.now))
    for _ in range(10):
        protocol.cycle = SimpleNamespace(response_complete=True)  # of a request that was answered since the last look
        protocol._look()
        protocol.loop.now += HEADERS / 2
    last = protocol.loop.now - HEADERS / 2
    while not closed and protocol.loop.now < last + 10 * HEADERS:
        protocol._look()
        protocol.loop.now += HEADERS / 2
    assert last + HEADERS <= closed[0] <= last + 2 * HEADERS


@pytest.mark.slow
def test_a_thousand_clients_that_hang_up(tiny_dir):
    with command("--model_name", str(tiny_dir)) as (process, url), ThreadPoolExecutor(50) as threads:
        list(threads.map(lambda number: hang_up(url, number), range(1000)))
        wait_until_idle(url)
        before = memory(process)
        list(threads.map(lambda number: hang_up(url, number), range(1000)))
        wait_until_idle(url)
        assert memory(process) < 1.05 * before
        answer = httpx.post(f"{url}/v1/completions", json={"prompt": "the cat", "max_tokens": 3})
        assert answer.status_code == 200


def test_fifty_megabytes_are_refused(tiny_dir):
    with command("--model_name", str(tiny_dir)) as (process, url):
        before = memory(process)
        large = b'{"prompt": "' + b"x" * 50_000_000 + b'"}'
        with contextlib.suppress(httpx.WriteError, httpx.ReadError):  # the server need not read it to the end
            assert httpx.post(f"{url}/v1/completions", content=large).status_code == 413
        parts = (large[at : at + 65536] for at in range(0, len(large), 65536))
        with contextlib.suppress(httpx.WriteError, httpx.ReadError):
            assert httpx.post(f"{url}/v1/completions", content=parts).status_code == 413
        assert memory(process) < before + 20_000_000
        assert httpx.get(f"{url}/healthz").status_code == 200


def mixed(rng):
    prompt = " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 20)))
    return {
        "prompt": prompt,
        "max_tokens": rng.randint(1, 60),
        "seed": rng.randrange(50),
        "top_k": 10,
        "ignore_eos": True,
    }


@pytest.mark.slow
def test_memory_is_flat_and_every_answer_right_under_mixed_load(tiny_dir):
    model = generate.load(str(tiny_dir))
    bodies = [mixed(random.Random(number)) for number in range(300)]
    requests = [Request(b["prompt"], b["max_tokens"], Sampling(top_k=10), b["seed"]) for b in bodies]
    expected = list(generate.generate(model, requests, 32))
    rng, checked, memories = random.Random(1), 0, []
    with command("--model_name", str(tiny_dir), "--queue", "200") as (process, url):
        with httpx.Client(base_url=url, timeout=60) as client, ThreadPoolExecutor(16) as threads:

            def ask(number):
                if rng.random() < 0.1:
                    hang_up(url, number)
                body = {**bodies[number], "stream": number % 2 == 0}
                said = client.post("/v1/completions", json=body)
                assert said.status_code == 200
                if not body["stream"]:
                    return said.json()["choices"][0]["text"] == expected[number]
                events = [line.removeprefix("data: ") for line in said.text.splitlines() if line]
                return "".join(json.loads(event)["choices"][0]["text"] for event in events[:-1]) == expected[number]

            end = time.monotonic() + LOAD_SECONDS
            while time.monotonic() < end:
                some = [rng.randrange(300) for _ in range(200)]
                assert all(threads.map(ask, some))
                checked += len(some)
                wait_until_idle(url)
                memories.append(memory(process))
        assert checked >= 200
    settled = memories[len(memories) // 5 :]
    assert max(settled) < 1.05 * settled[0]
