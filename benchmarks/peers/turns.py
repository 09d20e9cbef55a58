"""The engines of benchmarks/decoding.py as processes that take turns."""

import contextlib
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).resolve().parent
COMMAND = Path("src", "generate_unconditional_samples.py")
CORES = len(os.sched_getaffinity(0))
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"  # an image's setting: each start would compile all modules anew
PAUSE = 0.3  # seconds; OpenMP's threads spin for 0.2 after their work, on the cores that are the other engine's now


class Engine(NamedTuple):
    name: str
    script: str
    modules: tuple = ()  # what its Python has to have
    precisions: tuple = ()  # pairs: ours, and its own that is compared with it
    max_batch: int = 1
    is_ours: bool = False  # this project, whose format is the model directory and whose command is timed
    program: str = ""  # what has to be on the PATH
    kinds: tuple = ("decode", "prefill", "start")  # what it can be asked


SAME = tuple((name, name) for name in ("float32", "bfloat16", "int8"))
LLAMA_CPP = (("float32", "F32"), ("bfloat16", "F16"), ("int8", "Q8_0"))
OURS = Engine("ours", "ours.py", is_ours=True)
ORIGINAL = Engine("original", "original.py", (), (("float32", "float32"), ("int8", "float32")))
PEERS = [
    Engine("transformers", "transformers_pytorch.py", ("torch", "transformers"), SAME[:2], 8),
    Engine(
        "ctranslate2",
        "ctranslate2_engine.py",
        ("ctranslate2",),
        (("float32", "float32"), ("int8", "int8")),
        sys.maxsize,
    ),
    Engine(
        "llama.cpp",
        "llama_cpp_engine.py",
        ("llama_cpp", "gguf"),
        LLAMA_CPP,
    ),
    Engine(
        "llama-bench",
        "llama_bench_engine.py",
        ("gguf",),
        LLAMA_CPP,
        program="llama-bench",
        kinds=("decode", "prefill"),
    ),
    Engine("openvino", "openvino_engine.py", ("openvino", "optimum", "torch", "transformers"), SAME, sys.maxsize),
]


def before(checkout):
    """This project at another commit, with the engine's script that it had then."""
    scripts = [Path(checkout, name).resolve() for name in ("benchmarks/peers/ours.py", "scripts/peers/tensorflow2.py")]
    there = next((path for path in scripts if path.exists()), None)
    if there is None:
        raise Failed(f"{checkout} is no checkout of this project: it has neither {' nor '.join(map(str, scripts))}")
    return Engine("before", str(there), (), SAME, sys.maxsize, is_ours=True)


class Failed(Exception):
    """A process did not do its work; with its last words."""


class Process:
    """A running command that answers on its stdout; Failed if it ends before that. It is killed with the `with` block,
    whatever happens to the others."""

    def __init__(self, engine, command, environment):
        self.engine, self.log = engine, tempfile.TemporaryFile()  # noqa: SIM115 - closed below
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.log}
        self.process = subprocess.Popen(command, env=environment, **pipes)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()
        self.log.close()

    def ask(self, request):
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        return json.loads(self.process.stdout.readline() or self.fail())

    def first_byte(self, skipped_lines):
        for _ in range(skipped_lines):
            self.process.stdout.readline()
        return self.process.stdout.read(1) or self.fail()

    def peak_mb(self):
        """0 of one that has ended meanwhile, of which nothing is known."""
        with open(f"/proc/{self.process.pid}/status") as file:
            found = re.search(r"VmHWM:\s+(\d+)", file.read())
        return int(found[1]) * 1024 / 1e6 if found else 0.0

    def finish(self, timeout=None):
        try:
            self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.engine.name}: does not end after its last output") from None
        if self.process.returncode:
            self.fail()

    def fail(self):
        self.process.wait()
        self.log.seek(0)
        words = self.log.read().decode(errors="replace").strip().splitlines()[-1:]
        raise Failed(f"{self.engine.name}: {' '.join(words) or f'ended with status {self.process.returncode}'}")


class Bench:
    """Starts the engines' processes, each with the checkpoint in its own format."""

    def __init__(self, model, temporary, pythons, original):
        self.model, self.temporary, self.pythons = model, temporary, pythons
        self.original = original

    def script(self, engine, *arguments):
        return [self.pythons[engine], FOLDER / engine.script, *map(str, arguments)]

    def process(self, engine, command):
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}  # the CPU, for every engine
        environment.pop(NO_BYTECODE, None)
        if engine == ORIGINAL:
            environment["PYTHONPATH"] = str(Path(self.original, "src").resolve())
        return Process(engine, command, environment)

    def run(self, engine, *arguments):
        with self.process(engine, self.script(engine, *arguments)) as process:
            process.finish()

    def folder(self, engine, precision):
        """Where the engine's own format is; it is made when it is first needed."""
        if engine.is_ours or engine == ORIGINAL:
            return self.model
        exported, folder = self.temporary / "exported", self.temporary / f"{engine.name}-{precision}"
        if not exported.exists():
            self.run(OURS, "export", self.model, exported)
        if not folder.exists():
            self.run(engine, "convert", exported, folder, precision)
        return folder

    def asked(self, stack, engine, precision, request):
        """A function that makes one round and returns the answer."""
        arguments = self.folder(engine, precision), precision, CORES
        if "start" in request:
            first = self.script(engine, "first", *arguments)
            command = self.our_command(engine, precision) if engine.is_ours else first
            return lambda: self.first_token(engine, command, skipped_lines=int(engine.is_ours))
        process = stack.enter_context(self.process(engine, self.script(engine, "serve", *arguments)))
        return lambda: process.ask(request)

    def our_command(self, engine, precision):
        root = (FOLDER / engine.script).parents[2]
        command = [sys.executable, root / COMMAND, "--model_name", self.model]
        chosen = [] if precision == "float32" else ["--precision", precision]
        return [*command, "--nsamples", "1", "--length", "1", "--seed", "1", *chosen]

    def first_token(self, engine, command, skipped_lines):
        """skipped_lines: before the text stands the sample's banner."""
        start = time.perf_counter()
        with self.process(engine, command) as process:
            process.first_byte(skipped_lines)
            seconds = time.perf_counter() - start
            peak_mb = process.peak_mb()
            process.finish(timeout=60)
        return {"seconds": seconds, "peak_mb": peak_mb}

    def take_turns(self, pair, request, rounds):
        """The answers of each engine of (engine, precision), without those of the first round."""
        with contextlib.ExitStack() as stack:
            contestants = [self.asked(stack, engine, precision, request) for engine, precision in pair]
            answers = [[] for _ in pair]
            for _ in range(1 + rounds):
                for contestant, row in zip(contestants, answers):
                    time.sleep(PAUSE)
                    row.append(contestant())
        return [row[1:] for row in answers]


def median_interval(values):
    """A 95% confidence interval of the median, by the sign test: two of the values, the extremes of fewer than six."""
    values, n = sorted(values), len(values)
    below, chance = 0, 0.5**n  # how likely it is that so few of n lie on one side of the median
    while below < (n - 1) // 2 and chance <= 0.025:
        below += 1
        chance += math.comb(n, below) * 0.5**n
    return values[max(0, below - 1)], values[n - max(1, below)]


def ratios(ours, theirs):
    """Of each pair, how many times as fast ours was: the median, and its interval."""
    each = [other["seconds"] / own["seconds"] for own, other in zip(ours, theirs)]
    return statistics.median(each), median_interval(each)


def can_import(python, modules):
    code = f"import importlib.util as u; raise SystemExit(not all(map(u.find_spec, {modules!r})))"
    return subprocess.run([python, "-c", code], stderr=subprocess.DEVNULL).returncode == 0


def _wanted(names):
    """The peers of these names; all if there are none, none if they were not asked for."""
    return [peer for peer in PEERS if names is not None and (not names or peer.name in names)]


def find_engines(options):
    """Python of each engine that is there, ours first, and the names of the others."""
    found, missing = {OURS: sys.executable}, []
    for peer in _wanted(options.peers):
        pythons = [python for python in [sys.executable, *options.peer_python] if can_import(python, peer.modules)]
        if pythons and (not peer.program or shutil.which(peer.program)):
            found[peer] = pythons[0]
        else:
            missing.append(peer.name)
    if options.original:
        found[ORIGINAL] = options.original_python
    if options.before:
        found[before(options.before)] = sys.executable
    return found, missing
