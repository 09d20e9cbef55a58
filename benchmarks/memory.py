#!/usr/bin/env python3
"""Command: peak memory of writing 128 tokens, in each precision, beside llama.cpp.

    python benchmarks/memory.py --model 124M_DIR --peer-python PEERS/bin/python
    python benchmarks/memory.py --random 1558M --vocabulary 124M_DIR --precision int8 --folder A_FOLDER_OF_8_GB

Ours is the command with its vocabulary; llama.cpp decodes ids (peers/llama_cpp_engine.py) in a context of 1024.

peak:  VmHWM, all that was resident at once: what an engine maps from its file counts, as llama.cpp's whole file does.
anon:  the most of it that no file backs (RssAnon, looked at every 5 ms): what the system cannot drop and read again.
file:  the most that was mapped from files (RssFile), which several processes share.

"packed" is a first start, or one with --no_cache: weights are packed into memory of the process's own. "kept" is every
later one: they are mapped as they were packed. --random makes random weights of a released size in --folder, a few
megabytes in memory at a time, and removes them. The last line is JSON with everything.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from peers.turns import CORES, OURS, PEERS, Bench, can_import

TOKENS = 128
FORMATS = {"float32": "F32", "bfloat16": "F16", "int8": "Q8_0"}
FIELDS = {"peak": "VmHWM", "anon": "RssAnon", "file": "RssFile"}
LLAMA = next(peer for peer in PEERS if peer.name == "llama.cpp")
BANK = 1 << 22  # random numbers, of which each weight takes some


class Watch(threading.Thread):
    """The most of each of FIELDS in MB, while a process lives."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.status, self.most = Path(f"/proc/{pid}/status"), dict.fromkeys(FIELDS, 0)
        self.start()

    def run(self):
        with contextlib.suppress(OSError):
            while said := dict(re.findall(r"(\w+):\s+(\d+) kB", self.status.read_text())):
                for name, field in FIELDS.items():
                    self.most[name] = max(self.most[name], int(said.get(field, 0)) * 1024 / 1e6)
                time.sleep(0.005)


def ours(bench, precision, flags):
    command = [*bench.our_command(OURS, precision), "--length", str(TOKENS), "--temperature", "0", *flags]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        watch = Watch(process.pid)
        said = process.stderr.read().decode(errors="replace")
    if process.returncode:
        sys.exit(f"error: {said.strip()}")
    return watch.most


def theirs(bench, precision):
    form = FORMATS[precision]
    command = bench.script(LLAMA, "serve", bench.folder(LLAMA, form), form, CORES)
    with bench.process(LLAMA, command) as process:
        watch = Watch(process.process.pid)
        process.ask({"decode": TOKENS, "batch": 1})
        return dict(watch.most)


def random_model(size, folder, vocabulary):
    """A folder as transformers saves it."""
    from gpt2.export import huggingface
    from gpt2.formats import model_dir, vocabularies
    from gpt2.formats.directory import ModelDir
    from gpt2.formats.openai import checkpoint
    from gpt2.formats.weights import Weight

    hparams, rng = model_dir.RELEASED_MODELS[size], np.random.default_rng(1)
    bank = 0.02 * rng.standard_normal(BANK, np.float32)

    def pieces(name, shape):
        columns, rows = shape[-1], int(np.prod(shape[:-1]))
        for start in range(0, rows, at_once := BANK // columns // 2):
            first, count = rng.integers(BANK // 2), min(at_once, rows - start)
            yield bank[first : first + count * columns].reshape(count, columns) + np.float32(name.endswith("/g"))

    shapes = hparams.weight_shapes().items()
    weights = {
        name: Weight(shape, checkpoint.layout(name), lambda name=name, shape=shape: pieces(name, shape))
        for name, shape in shapes
    }
    model = ModelDir(folder, hparams, folder, lambda *_: weights, lambda: None)
    huggingface.write(model, vocabularies.load(vocabulary), folder)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", type=Path, help="a model directory")
    which.add_argument("--random", help="a released size")
    parser.add_argument("--vocabulary", type=Path, help="what random weights need: a folder with GPT-2's vocabulary")
    parser.add_argument("--folder", type=Path, help="where there is room for random weights and what is kept of them")
    parser.add_argument("--precision", type=lambda text: text.split(","), default=",".join(FORMATS))
    parser.add_argument("--peer-python", help="a Python with llama_cpp and gguf; without it, ours alone")
    options = parser.parse_args()
    if options.random and not options.vocabulary:
        parser.error("--random needs a --vocabulary")
    if options.peer_python and not can_import(options.peer_python, LLAMA.modules):
        parser.error(f"{options.peer_python} lacks one of {', '.join(LLAMA.modules)}")
    return options


def main():
    options, rows = parse(), []
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        model = options.model or Path(temporary, options.random)
        if options.random:
            model.mkdir()
            random_model(options.random, model, options.vocabulary)
        bench = Bench(model, Path(temporary), {OURS: sys.executable, LLAMA: options.peer_python}, None)
        for precision in options.precision:
            found = {"ours, packed": ours(bench, precision, ["--no_cache"])}
            os.environ["GPT2_NATIVE_CACHE"] = str(Path(temporary, "cache"))
            ours(bench, precision, [])
            found["ours, kept"] = ours(bench, precision, [])
            if options.peer_python:
                found[f"llama.cpp {FORMATS[precision]}"] = theirs(bench, precision)
            for engine, most in found.items():
                rows.append({"engine": engine, "precision": precision, **most})
                print(
                    f"{precision:>9} {engine:<15}", *(f"{name} {mb:6.0f} MB " for name, mb in most.items()), flush=True
                )
    print(json.dumps({"tokens": TOKENS, "rows": rows}))


if __name__ == "__main__":
    main()
