#!/usr/bin/env python3
"""Command: seconds of an update and peak memory at 124M size, beside PyTorch and with gradient checkpointing.

    python benchmarks/training.py [--rounds 9] [--torch-python PYTHON_WITH_TORCH] [--before CHECKOUT]

Adam, one window of 1024 tokens, random weights, no dropout. Pairs of processes that make one update each in turn, after
two for warm-up; prints medians, the median of the rounds' ratios with its 95% confidence interval, and the same as a
last line of JSON. The processor's time of an update says more where other work goes on beside it. Memory is the peak of
the whole process (VmHWM). PyTorch, and this project at another commit, are only compared if they are named; a PyTorch
built for CPUs alone takes 0.3 GB less than one with CUDA.
"""

import argparse
import json
import math
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from peers.turns import median_interval

CHECKOUT = Path(__file__).resolve().parents[1]
OURS, PEER, BEFORE = "tensorflow", "torch", "before"
WARM_UP, WINDOW = 2, 1024
PAIRS = [
    ((BEFORE, "float32"), (OURS, "float32")),
    ((BEFORE, "bfloat16"), (OURS, "bfloat16")),
    ((PEER, "float32"), (OURS, "float32")),
    ((PEER, "bfloat16"), (OURS, "bfloat16")),
    ((OURS, "float32"), (OURS, "float32", "saving")),
    ((OURS, "bfloat16"), (OURS, "bfloat16", "saving")),
]


def tensorflow_update(precision, *saving):
    """A function that makes one update with this checkout's code."""
    sys.path.insert(0, str(CHECKOUT / "src"))
    from gpt2 import tensorflow_startup

    tensorflow_startup.start_tensorflow()
    import numpy as np
    import tensorflow as tf

    from gpt2.formats import model_dir
    from gpt2.formats.weights import nest
    from gpt2.training import initialization
    from gpt2.training.settings.settings import TrainingSettings
    from gpt2.training.trainer import Trainer

    hparams = model_dir.RELEASED_MODELS["124M"]
    new = initialization.initial_weights(hparams, seed=1)
    weights = nest((name, tf.constant(value)) for name, value in new.items())
    settings = TrainingSettings("random", precision=precision, memory_saving_gradients=bool(saving))
    trainer = Trainer(weights, hparams, settings, tf.distribute.get_strategy())
    del new, weights
    tokens = np.random.default_rng(1).integers(hparams.n_vocab, size=(1, 1, 1, WINDOW + 1)).astype(np.int32)
    return lambda: trainer.update(tokens[..., :-1], tokens[..., 1:], 1e-4, 1, False)


def torch_update(precision):
    """A function that makes one update with transformers' GPT-2 on PyTorch."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    tokens = torch.randint(model.config.vocab_size, (1, WINDOW))

    def update():
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            loss = model(tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        return loss.item()

    return update


def work(engine, *how):
    """The process of one engine: an update for each line of stdin, answered by its seconds, the peak memory and the
    processor's seconds."""
    update = {OURS: tensorflow_update, PEER: torch_update}[engine](*how)
    for _ in range(WARM_UP):
        update()
    print("ready", flush=True)
    for _ in sys.stdin:
        start, start_cpu = time.perf_counter(), time.process_time()
        update()
        seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
        peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]
        print(seconds, int(peak) / 1024, cpu, flush=True)


def start(engine, options):
    name, *how = engine
    python = options.torch_python if name == PEER else sys.executable
    script = before(options.before) if name == BEFORE else __file__
    command = [python, script, "--work", OURS if name == BEFORE else name, *how]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    if process.stdout.readline() != "ready\n":
        sys.exit(f"error: {' '.join(map(str, command))} did not start")
    return process


def before(checkout):
    """This script at another commit."""
    return next(
        filter(Path.exists, (Path(checkout, n) for n in ("benchmarks/training.py", "scripts/benchmark_training.py")))
    )


def measure(pair, options):
    """The seconds of each round, the peak memory in MB and the processor's median seconds, for each of the two."""
    processes = [start(engine, options) for engine in pair]
    rows = [[], []]
    for _ in range(options.rounds):
        for process, row in zip(processes, rows):
            process.stdin.write("update\n")
            process.stdin.flush()
            row.append([float(x) for x in process.stdout.readline().split()])
            row[-1] += [math.nan] * (3 - len(row[-1]))  # an older script says nothing of the processor
    for process in processes:
        process.communicate()
    columns = [tuple(zip(*row)) for row in rows]
    return [(seconds, max(peaks), statistics.median(cpu)) for seconds, peaks, cpu in columns]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--torch-python", help="a Python with torch and transformers")
    parser.add_argument("--before", help="a checkout of this project at another commit")
    parser.add_argument("--only", help="so many of the pairs, by a word in their names")
    options = parser.parse_args()
    given = {OURS: True, PEER: options.torch_python, BEFORE: options.before}
    found = {}
    for pair in PAIRS:
        names = [" ".join(engine) for engine in pair]
        if not all(given[name] for name, *_ in pair) or (options.only or "") not in " | ".join(names):
            continue
        (base, base_peak, base_cpu), (ours, peak, cpu) = measure(pair, options)
        ratios = [a / b for a, b in zip(base, ours)]
        low, high = median_interval(ratios)
        ratio, base_seconds, seconds = map(statistics.median, (ratios, base, ours))
        print(f"{names[0]}: {base_seconds:.2f} s, {base_cpu:.2f} of a core, {base_peak:.0f} MB", end=" | ")
        print(f"{names[1]}: {seconds:.2f} s, {cpu:.2f} of a core, {peak:.0f} MB", end=" | ")
        print(f"speed x {ratio:.2f} ({low:.2f}-{high:.2f}), core x {base_cpu / cpu:.2f}", end=", ")
        print(f"memory x {peak / base_peak:.2f}", flush=True)
        found[" | ".join(names)] = [base_seconds, base_peak, seconds, peak, ratio, low, high, base_cpu, cpu]
    print(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(*sys.argv[2:])
    else:
        main()
