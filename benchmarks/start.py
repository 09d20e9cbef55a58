#!/usr/bin/env python3
"""Command: from the shell to the answer to a piped prompt, with packed weights kept from an earlier start and without.

    python benchmarks/start.py
    python benchmarks/start.py --model 124M --precision float32,bfloat16,int8

Whole processes that take turns, their files in the page cache after one round for warm-up: `echo PROMPT |
interactive_conditional_samples.py`. "first" is the time to the first byte of the answer, "answer" to the line that ends
it; both with the interpreter, the vocabulary and the weights. Medians, and the slowest. Beside other engines it is
`decoding.py --only start`. The last line is JSON with everything.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from peers.turns import NO_BYTECODE

ROOT = Path(__file__).resolve().parents[1]
COMMAND = ROOT / "src" / "interactive_conditional_samples.py"
PROMPT = b"ROMEO:\n"
END_OF_ANSWER = b"=" * 80 + b"\n"
CASES = {"kept": [], "packed anew": ["--no_cache"]}


def answered(options, precision, flags):
    """Seconds to the first byte of the answer and to its end."""
    command = [sys.executable, COMMAND, "--model_name", options.model, "--precision", precision, "--seed", "1"]
    command += ["--length", str(options.length), *flags]
    environment = {name: value for name, value in os.environ.items() if name != NO_BYTECODE}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    start = time.perf_counter()
    with subprocess.Popen(command, env=environment, **pipes) as process:
        process.stdin.write(PROMPT)
        process.stdin.close()
        process.stdout.readline()  # the banner, after the prompt
        first = process.stdout.read(1) and time.perf_counter() - start
        while (line := process.stdout.readline()) not in (b"", END_OF_ANSWER):
            pass
        end = time.perf_counter() - start
        said = process.stderr.read().decode(errors="replace")
    if process.returncode or not first or not line:
        sys.exit(f"error: {said.strip()}")
    return first, end


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="shakespeare", help="a name or a path, as --model_name takes it")
    parser.add_argument("--precision", type=lambda text: text.split(","), default="float32")
    parser.add_argument("--length", type=int, default=20, help="tokens of the answer")
    parser.add_argument("--rounds", type=int, default=15, help="after the one for warm-up")
    options = parser.parse_args()
    rows = []
    for precision in options.precision:
        times = {case: [] for case in CASES}
        for _ in range(1 + options.rounds):
            for case, flags in CASES.items():
                times[case].append(answered(options, precision, flags))
        for case, found in times.items():
            seconds = dict(zip(("first", "answer"), zip(*found[1:])))
            rows.append({"precision": precision, "weights": case, **seconds})
            said = [f"{name} {statistics.median(all):.3f} s (slowest {max(all):.3f})" for name, all in seconds.items()]
            print(f"{options.model}, {precision}, weights {case}: {', '.join(said)}", flush=True)
    print(json.dumps({"model": options.model, "length": options.length, "rows": rows}))


if __name__ == "__main__":
    main()
