#!/usr/bin/env python3
"""Command: the server under clients that come and go, beside other people's servers of the same weights, in turns.

    python benchmarks/serving.py --model DIR --clients 1,8,32 --pairs 5
    python benchmarks/serving.py --model DIR --clients 8 --pairs 15 --before CHECKOUT_OF_AN_EARLIER_COMMIT
    python benchmarks/serving.py --model DIR --peers transformers llama.cpp --peer-python PEERS/bin/python
    python benchmarks/serving.py --model DIR --peers llama-server --llama-server LLAMA.CPP/build/bin/llama-server

Each of so many clients asks, reads the answer as it is streamed, waits for a moment whose length is exponentially
distributed, and asks again: prompts of 5 to 200 words, texts of 10 to 100 tokens. Each round has prompts of its own,
the same for all servers, so that none finds them in a cache. Tokens per second of all clients, and the median time to a
first token. At one client the same texts by the library itself, `command`, without a server.
--tab: how soon Tab answers, in steps' time, after a word more in a text of some 900 tokens.

Peers: transformers, its `generate` behind FastAPI, one request at a time (float32 whatever ours is); llama.cpp, the
server of llama-cpp-python, one at a time too; llama-server, llama.cpp's own, with a place for each client, so that it
batches. Both read float32 for our float32, Q8_0 for our int8. The model needs GPT-2's vocabulary. The last line is JSON
with everything.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve()
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))
from peers.turns import ratios

WORDS = ["the", "of", "and", "to", "in", "that", "was", "his", "it", "with", "is", "for", "as", "had", "you", "not"]
END_OF_TEXT = "50256"
PAUSE = 0.05  # seconds, on average, from an answer to the next question
OURS, BEFORE, COMMAND = "ours", "before", "command"
TRANSFORMERS, LLAMA, LLAMA_SERVER = "transformers", "llama.cpp", "llama-server"
HUGGINGFACE, GGUF = "huggingface", "gguf"
FORMATS = {TRANSFORMERS: HUGGINGFACE, LLAMA: GGUF, LLAMA_SERVER: GGUF}
GGUF_TYPES = {"float32": "F32", "bfloat16": "BF16", "int8": "Q8_0"}
WINDOW = 1024


def bodies(count, number_of_round=0):
    rng = random.Random(1 + number_of_round)
    for number in range(count):
        prompt = " ".join(rng.choice(WORDS) for _ in range(rng.randint(5, 200)))
        body = {"prompt": prompt, "max_tokens": rng.randint(10, 100), "top_k": 40, "seed": number, "stream": True}
        yield {**body, "logit_bias": {END_OF_TEXT: -100}}  # so that each text has all its tokens


def ask(port, body):
    """Seconds to the first token, and tokens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    start = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise SystemExit(f"port {port} answers {answer.status}: {answer.read()[:200]!r}")
    first, events = None, 0
    for line in answer:
        if line.startswith(b"data: {"):
            first = first or time.perf_counter() - start
            events += 1
    connection.close()
    return first, body["max_tokens"]


def load(port, clients, count, number_of_round):
    """All requests by so many clients: tokens per second, median seconds to a first token."""
    waiting, lock, found = iter(list(bodies(count, number_of_round))), threading.Lock(), []

    def client(number):
        rng = random.Random(number)
        while True:
            with lock:
                body = next(waiting, None)
            if body is None:
                return
            time.sleep(rng.expovariate(1 / PAUSE))
            found.append(ask(port, body))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    firsts = [first for first, _ in found]
    return {"tokens_per_s": sum(tokens for _, tokens in found) / seconds, "first_s": statistics.median(firsts)}


def tab(port, precision, times):
    """One more word at the end of a text of some 900 tokens that was completed a moment ago, as Tab asks for it: how
    many of the steps that follow the first new token takes."""
    rng, found = random.Random(2), []
    text = " ".join(rng.choice(WORDS) for _ in range(890))
    ask(port, {"prompt": text, "max_tokens": 1, "stream": True})
    for number in range(times):
        text += f" {rng.choice(WORDS)}"
        body = {"prompt": text, "max_tokens": 30, "ignore_eos": True, "stream": True, "seed": number}
        start = time.perf_counter()
        first, tokens = ask(port, body)
        step = (time.perf_counter() - start - first) / (tokens - 1)
        found.append({"first_s": first, "steps": first / step})
    middle = {key: statistics.median(one[key] for one in found) for key in found[0]}
    steps = sorted(one["steps"] for one in found)
    print(
        f"a word more, {precision:8}: first token {1000 * middle['first_s']:.0f} ms, {middle['steps']:.2f} steps"
        f" ({steps[0]:.2f}-{steps[-1]:.2f})",
        flush=True,
    )
    return {"tab": True, "precision": precision, "server": OURS, **middle}


def by_library(model, count, number_of_round):
    """The same texts one after the other, with the same pauses, by `stream`."""
    from gpt2 import generate
    from gpt2.request import Request, Sampling

    rng, firsts, tokens, begun = random.Random(0), [], 0, time.perf_counter()
    for body in bodies(count, number_of_round):
        time.sleep(rng.expovariate(1 / PAUSE))
        start, first = time.perf_counter(), None
        for _ in generate.stream(
            model, [Request(body["prompt"], body["max_tokens"], Sampling(top_k=40), body["seed"])]
        ):
            first = first or time.perf_counter() - start
        firsts.append(first)
        tokens += body["max_tokens"]
    return {"tokens_per_s": tokens / (time.perf_counter() - begun), "first_s": statistics.median(firsts)}


@contextlib.contextmanager
def server(name, options, model, precision, clients):
    """Its port, once it answers. clients: as many places as llama-server gets; more would make it slower."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    llama = ["--model", model, "--n_ctx", WINDOW, "--interrupt_requests", "false"]
    places = ["--ctx-size", clients * WINDOW, "--parallel", clients]
    own_llama = ["--model", model, *places, "--threads", os.cpu_count()]
    our_flags = ["--model_name", model, "--precision", precision]
    commands = {
        OURS: [sys.executable, ROOT / "scripts/serve.py", *our_flags],
        BEFORE: [sys.executable, Path(options.before or ".") / "scripts/serve.py", *our_flags],
        TRANSFORMERS: [options.peer_python, HERE.parent / "peers/transformers_server.py", "--model", model],
        LLAMA: [options.peer_python, "-m", "llama_cpp.server", *llama],
        LLAMA_SERVER: [options.llama_server, *own_llama],
    }
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    command = [str(word) for word in [*commands[name], "--port", port]]
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process:
        try:
            for _ in range(600):
                with contextlib.suppress(OSError, SystemExit):
                    ask(port, {**next(bodies(1)), "max_tokens": 1})  # llama-server answers 503 while it loads
                    break
                if process.poll() is not None:
                    log.seek(0)
                    raise SystemExit(f"{name} does not start: {log.read()[-500:].decode(errors='replace')}")
                time.sleep(0.1)
            yield port
        finally:
            process.terminate()


def converted(model, folder, to, precision):
    """The path of the model in a peer's format."""
    path = folder / ("model.gguf" if to == GGUF else "model")
    if not path.exists():
        dtype = GGUF_TYPES[precision] if to == GGUF else "float32"
        command = [sys.executable, ROOT / "scripts/convert.py", model, path, "--to", to, "--dtype", dtype]
        subprocess.run([str(word) for word in command], check=True)
    return path


def measure(options, models, precision, clients):
    """One line for each server."""
    with contextlib.ExitStack() as stack:
        ports = {
            name: stack.enter_context(server(name, options, models[name], precision, clients))
            for name in [OURS, *([BEFORE] if options.before else []), *options.peers]
        }
        own = {
            name: lambda turn, port=port: load(port, clients, options.requests * clients, turn)
            for name, port in ports.items()
        }
        if clients == 1:
            from gpt2 import generate

            model = generate.load(str(options.model), precision=precision)
            own[COMMAND] = lambda turn: by_library(model, options.requests, turn)
        answers = [{name: one(turn) for name, one in own.items()} for turn in range(1 + options.pairs)][1:]
        for name in own:
            found = [row[name] for row in answers]
            middle = {key: statistics.median(one[key] for one in found) for key in found[0]}
            row = {"clients": clients, "precision": precision, "server": name, **middle}
            said = f"{clients:3} clients {precision:8} {name:12} {middle['tokens_per_s']:7.1f} tokens/s"
            if name != OURS:
                seconds = [[{"seconds": 1 / r[which]["tokens_per_s"]} for r in answers] for which in (OURS, name)]
                row["ratio"], row["interval"] = ratios(*seconds)
                said += f"; ours {row['ratio']:.2f} ({row['interval'][0]:.2f}-{row['interval'][1]:.2f}) times"
            print(f"{said}, first token {1000 * middle['first_s']:.0f} ms", flush=True)
            yield row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="a model directory")
    parser.add_argument("--precision", default="float32,int8")
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--requests", type=int, default=4, help="of each client in a round")
    parser.add_argument("--pairs", type=int, default=5, help="rounds, after one for warm-up")
    parser.add_argument(
        "--tab", type=int, default=0, help="measure so many times how soon Tab answers after a word more"
    )
    parser.add_argument("--peers", nargs="*", default=[], choices=list(FORMATS))
    parser.add_argument("--peer-python", help="the Python of transformers and of llama-cpp-python")
    parser.add_argument("--llama-server", help="the program")
    parser.add_argument("--before", help="a checkout of this project at an earlier commit")
    options = parser.parse_args()
    options.clients = [int(count) for count in options.clients.split(",")]
    sys.path.insert(0, str(ROOT / "src"))
    rows = []
    for precision in options.precision.split(","):
        with tempfile.TemporaryDirectory() as temporary:
            models = {OURS: options.model, BEFORE: options.model}
            for name in options.peers:
                models[name] = converted(options.model, Path(temporary), FORMATS[name], precision)
            if options.tab:
                with server(OURS, options, options.model, precision, 1) as port:
                    rows.append(tab(port, precision, options.tab))
            for clients in options.clients:
                rows += measure(options, models, precision, clients)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
