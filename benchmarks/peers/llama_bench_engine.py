"""llama.cpp through its own `llama-bench`, which is on the PATH, as an engine of benchmarks/decoding.py.

Each round is a new process of it, with its warm-up, of which it times one repetition; the ids are its own, so that only
speed is compared.
"""

import json
import os
import subprocess

import worker
from llama_cpp_engine import FILE, convert

PROGRAM = "llama-bench"


class Engine:
    def __init__(self, folder, precision, threads):
        self.command = [PROGRAM, "-m", os.path.join(folder, FILE), "-t", str(threads), "-r", "1", "-o", "json"]

    def timed(self, request):
        assert request.get("batch", 1) == 1, "llama-bench decodes one text"
        counts = ["-p", str(request.get("prefill", 0)), "-n", str(request.get("decode", 0))]
        answer = subprocess.run([*self.command, *counts], check=True, stdout=subprocess.PIPE).stdout
        (found,) = json.loads(answer)
        return found["avg_ns"] / 1e9


if __name__ == "__main__":
    worker.run(Engine, convert)
