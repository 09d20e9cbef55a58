#!/usr/bin/env python3
"""Command: the path of one `/v1/completions` request through src/gpt2: files entered, and returns from file to file.

    python benchmarks/request_path.py [--tokens 1] [--list]

A profiling hook counts in all threads, after a request that warms caches. A return counts if it leads from one file of
src/gpt2 to another one: that is how often a reader who follows the request has to come back to where they were. The
number of all returns, those within a file and those of comprehensions included, is printed after it. A coroutine counts
once for each time that it hands control back, as the hook reports it. Nothing of the server's libraries is counted.
"""

import argparse
import asyncio
import collections
import json
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src"
sys.path.insert(0, str(SRC))

WARM_UP_TOKENS = 200  # that have been decoded before, as on a server that has run for a while
COUNTED = str(SRC / "gpt2") + "/"


def create_app(model_dir):
    """Serve the model in this folder; returns the application and its scheduler."""
    from gpt2 import generate
    from gpt2.server.app import create_app
    from gpt2.server.scheduler import Scheduler
    from gpt2.server.served_model import ServedModel

    model = generate.load(str(model_dir))
    scheduler = Scheduler(model)
    return create_app([ServedModel("model", model, scheduler, "float32")]), scheduler


async def post(app, body):
    """Send one request to the ASGI application and return the status and the parsed answer."""
    data = json.dumps(body).encode()
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"%d" % len(data))]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/completions",
        "raw_path": b"/v1/completions",
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    messages = [{"type": "http.request", "body": data, "more_body": False}]
    sent = []

    async def receive():
        if messages:
            return messages.pop()
        await asyncio.sleep(3600)

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent))


class Profile:
    """Counts returns from functions below src/gpt2 while it is active."""

    def __init__(self):
        self.active = False
        self.files = set()
        self.all_returns = 0
        self.returns = collections.Counter()  # by caller's file, file and function

    def __call__(self, frame, event, _):
        if not self.active or event != "return" or not frame.f_code.co_filename.startswith(COUNTED):
            return
        file = frame.f_code.co_filename.removeprefix(COUNTED)
        caller = frame.f_back.f_code.co_filename if frame.f_back else ""
        self.files.add(file)
        self.all_returns += 1
        if caller.startswith(COUNTED) and caller.removeprefix(COUNTED) != file:
            self.returns[f"{caller.removeprefix(COUNTED)} -> {file}: {frame.f_code.co_qualname}"] += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, default=1, help="new tokens of the request")
    parser.add_argument("--model", type=Path, default=ROOT / "models/shakespeare", help="path of a model directory")
    parser.add_argument(
        "--list", action="store_true", help="list each pair of files with the function and its number of returns"
    )
    arguments = parser.parse_args()
    profile = Profile()
    threading.setprofile(profile)  # for the scheduler's thread, which starts below
    app, scheduler = create_app(arguments.model)
    scheduler.start()

    async def measure():
        body = {"model": "model", "max_tokens": arguments.tokens, "seed": 1}
        await post(app, {**body, "prompt": "JULIET: Good night", "max_tokens": WARM_UP_TOKENS})
        sys.setprofile(profile)
        profile.active = True
        status, answer = await post(app, {**body, "prompt": "ROMEO: I dreamt"})
        profile.active = False
        sys.setprofile(None)
        return status, answer

    status, answer = asyncio.run(measure())
    if arguments.list:
        for edge, count in sorted(profile.returns.items()):
            print(f"{count:5} {edge}")
    print(f"status {status}, {answer['usage']['completion_tokens']} tokens: {answer['choices'][0]['text']!r}")
    files = ", ".join(sorted(profile.files))
    print(
        f"{len(profile.files)} files, {sum(profile.returns.values())} returns from file to file,"
        f" {profile.all_returns} in all: {files}"
    )


if __name__ == "__main__":
    main()
