#!/usr/bin/env python3
"""Command: how long the second call of gpt_2_simple.generate takes, here and with the old package.

    python benchmarks/beside_gpt_2_simple.py MODEL_DIR MODEL_NAME PYTHON_WITH_THE_OLD_PACKAGE [ROUNDS]

New processes that take turns; medians of the rounds. 200 tokens, batch 1, float32.
"""

import os
import statistics
import subprocess
import sys
from pathlib import Path

SRC = Path(__file__).resolve().parents[1] / "src"
CODE = """
import sys, time
import gpt_2_simple as gpt2
model = {"model_dir": sys.argv[1], "model_name": sys.argv[2]}
sess = gpt2.start_tf_sess()
gpt2.load_gpt2(sess, **model)
for _ in range(2):
    start = time.perf_counter()
    gpt2.generate(sess, length=200, return_as_list=True, **model)
    seconds = time.perf_counter() - start
print(seconds)
"""


def seconds(python, model, path):
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "-1"}
    run = subprocess.run([python, "-c", CODE, *model], env=environment, capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"error: {python}: {run.stderr.strip().splitlines()[-1]}")
    return float(run.stdout.split()[-1])


def main(model_dir, model_name, other, rounds=5):
    model = [str(Path(model_dir).resolve()), model_name]
    pairs = [(seconds(sys.executable, model, str(SRC)), seconds(other, model, "")) for _ in range(int(rounds))]
    here, there = map(statistics.median, zip(*pairs))
    print(f"here {here:.2f} s, the old package {there:.2f} s: {there / here:.2f} times as fast, of {rounds} rounds")


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) in (4, 5) else sys.exit(__doc__)
