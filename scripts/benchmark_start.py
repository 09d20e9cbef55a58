#!/usr/bin/env python3
"""Command: what a person waits for, from the shell: time to the first text, time to the last, peak memory.

    python scripts/benchmark_start.py MODEL_DIRECTORY [LENGTH] [RUNS]

Runs `generate_unconditional_samples.py` once for warm-up, then RUNS times, and beside it a process that only starts
TensorFlow; prints medians, and the same as a last line of JSON.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMAND = Path(__file__).resolve().parents[1] / "src" / "generate_unconditional_samples.py"
TENSORFLOW_ALONE = [sys.executable, "-c", "import tensorflow as tf; tf.zeros([]).numpy()"]


def run(command):
    """Seconds to the first byte after the first line of output, seconds to the end, peak memory in MB."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        process.stdout.readline()
        process.stdout.read(1)
        first = time.perf_counter() - start
        process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"error: {' '.join(map(str, command))} failed with status {process.returncode}")
    return first, time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e6


def main(model, length="128", runs="5"):
    command = [sys.executable, COMMAND, "--model_name", model, "--nsamples", "1", "--seed", "1", "--length", length]
    run(command)
    first, total, peak = medians(command, int(runs))
    _, alone, own = medians(TENSORFLOW_ALONE, int(runs))
    rate = (int(length) - 1) / (total - first)
    weights = sum(path.stat().st_size for path in Path(model).glob("*.data-*")) / 1e6
    print(f"first text after {first:.1f} s (TensorFlow alone takes {alone:.1f} s), then {rate:.1f} tokens/s")
    print(f"peak memory {peak:.0f} MB; TensorFlow alone has {own:.0f} MB, the weights {weights:.0f} MB")
    print(f"beyond TensorFlow: {(peak - own) / weights:.2f} times the weights")
    print(json.dumps({"first_s": first, "tokens_per_s": rate, "peak_mb": peak, "tensorflow_mb": own}))


def medians(command, runs):
    return [statistics.median(column) for column in zip(*(run(command) for _ in range(runs)))]


if __name__ == "__main__":
    main(*sys.argv[1:])
