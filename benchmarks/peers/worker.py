"""An engine's process in benchmarks/decoding.py: JSON requests as lines of stdin, JSON answers as lines of stdout.

    python ENGINE.py convert WEIGHTS_FOLDER FOLDER PRECISION    the checkpoint -> the engine's own format
    python ENGINE.py serve FOLDER PRECISION THREADS             {"decode": 128, "batch": 8} -> {"seconds": ...}
                                                                {"prefill": 512} -> {"seconds": ..., "token": ...}
                                                                {"score": 4096, "window": 1024} -> {..., "nats": ...}
                                                                {"bulk": 64, "batch": 32} -> {..., "tokens": ...}
    python ENGINE.py first FOLDER PRECISION THREADS             prints the first token's id and ends

An engine is a class with two methods: `decoding(tokens, batch)` returns a function that makes so many decode steps for
a batch whose prompt is PROMPT, and is all that is timed; `next_token(ids)` returns the id that follows a prompt. Some
have a third, for benchmarks/scoring.py: `scoring(ids, window)` returns a function that scores each id but the first, in
windows of that many fed ids, and returns the nats of all if it adds them up; or, for benchmarks/bulk.py, a fourth:
`bulk(prompts, lengths, batch)` returns a function that writes so many new ids, greedily, for each of the prompts, in
batches of whatever `batch` is to the engine, and returns how many it has written. An engine that is a command, and
takes its own time, has `timed(request)` instead, which returns seconds. Works with Python 3.7 too, because TensorFlow 1
does.
"""

import json
import os
import random
import re
import resource
import sys
import time

import numpy as np

PROMPT = [464]  # one id: an engine that can only be timed as a whole then makes exactly one step per new token
WEIGHTS, HPARAMS = "weights.npz", "hparams.json"


def read_checkpoint(folder):
    """The checkpoint's weights by their names, matrices [inputs, outputs], and its hparams."""
    with open(os.path.join(folder, HPARAMS)) as file:
        hparams = json.load(file)
    variables = np.load(os.path.join(folder, WEIGHTS))
    return {name: variables[name] for name in variables.files}, hparams


def run(engine, convert=None):
    """The main function of an engine's script. Engines import their libraries only when they are called, because
    libraries print: from here on stdout belongs to the answers alone."""
    mode, *arguments = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if mode == "convert":
        convert(*arguments)
        return
    folder, precision, threads = arguments
    loaded = engine(folder, precision, int(threads))
    if mode == "first":
        print(loaded.next_token(PROMPT), file=answers, flush=True)
        return
    for line in sys.stdin:
        print(json.dumps(dict(answer(loaded, json.loads(line)), peak_mb=peak_mb())), file=answers, flush=True)


def answer(engine, request):
    if hasattr(engine, "timed"):
        return {"seconds": engine.timed(request)}
    if "decode" in request:
        steps = engine.decoding(request["decode"], request["batch"])
        start = time.perf_counter()
        steps()
        return {"seconds": time.perf_counter() - start}
    if "score" in request:
        score = engine.scoring([7919 * i % 50000 for i in range(request["score"] + 1)], request["window"])
        start = time.perf_counter()
        nats = score()
        return {"seconds": time.perf_counter() - start, "nats": nats}
    if "bulk" in request:
        write = engine.bulk(*ragged(request), request["batch"])
        start = time.perf_counter()
        tokens = write()
        return {"seconds": time.perf_counter() - start, "tokens": tokens}
    ids = [7 * i + 3 for i in range(request["prefill"])]
    start = time.perf_counter()
    token = engine.next_token(ids)
    return {"seconds": time.perf_counter() - start, "token": int(token)}


def ragged(request):
    """So many prompts of 10 to 300 ids, and how many new ids are wanted of each: 64, or 8 to 120."""
    rng = random.Random(1)
    prompts = [[rng.randrange(50000) for _ in range(rng.randint(10, 300))] for _ in range(request["bulk"])]
    lengths = [rng.randint(8, 120) if request["texts"] == "ragged" else 64 for _ in prompts]
    return prompts, lengths


def by_length(prompts, lengths, batch):
    """For engines whose batches wait for their longest: batches of rows that are about as long."""
    rows = sorted(zip(prompts, lengths), key=lambda row: (row[1], len(row[0])), reverse=True)
    for first in range(0, len(rows), batch):
        some = rows[first : first + batch]
        yield [prompt for prompt, _ in some], [length for _, length in some]


def peak_mb():
    """Of this process, or of the largest command that it ran."""
    with open("/proc/self/status") as file:
        own = int(re.search(r"VmHWM:\s+(\d+)", file.read()).group(1))
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * 1024 / 1e6
