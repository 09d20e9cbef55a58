#!/usr/bin/env python3
"""Command: what rows that come and go cost, on the CPU.

    python benchmarks/rows.py
    python benchmarks/rows.py --before CHECKOUT_OF_AN_EARLIER_COMMIT --pairs 15

ragged: 64 prompts of 10 to 500 ids with 10 to 300 new ones, `generate` with that batch_size, prefills included; and how
    many rows a call of the model has on average. With --before the same by an earlier commit, in turns.
joining: a prompt of 1000 ids joins so many running rows. The longest time between two tokens of a running row until the
    prompt's first token is there, and the median step without it; the median of the pairs' ratios.
again: a text of 900 ids, then the same and one id more: to the first new token of the second, beside the median step of
    a row that long, and beside the first.
sampling: a step of so many rows with top_k 40 at temperature 1, and what of it is not the model's (its call apart).

The model is --model, or random weights of 124M size. The last line is JSON with everything.
"""

import argparse
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve()
OUR_CHECKOUT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))
from peers.turns import OURS, Process, ratios

THREADS = None  # all cores


class Numbers:
    """A vocabulary of numbers in words, so that prompts have the ids that one wants."""

    end_of_text = 0

    def encode(self, text):
        return [int(word) for word in text.split()]

    def stream(self, prompt=None):
        return self

    def feed(self, ids):
        return "".join(f" {token}" for token in ids)

    def finish(self):
        return ""


def ragged_requests(n_vocab):
    from gpt2.request import Request, Sampling

    rng = random.Random(1)
    for number in range(64):
        prompt = " ".join(str(rng.randrange(n_vocab)) for _ in range(rng.randint(10, 500)))
        yield Request(prompt, rng.randint(10, 300), Sampling(top_k=40), 1, number)


class Worker:
    """One checkout's library in a process of its own; `generate` and a model's `extend` are what all of them have."""

    def __init__(self, checkout, model, precision):
        sys.path[:0] = [str(Path(checkout, "src")), str(Path(checkout, "benchmarks", "peers"))]
        import ours

        from gpt2.engine.load import load_backend

        self.backend, self.calls = load_backend(ours.opened(model), precision, threads=THREADS), []
        self.real, self.backend.extend = self.backend.extend, self.extend

    def extend(self, cache, what, *more):
        start = time.perf_counter()
        found = self.real(cache, what, *more)
        self.calls.append((len(what), time.perf_counter() - start))
        return found

    def ragged(self, batch):
        from gpt2 import generate

        model = generate.Model(Numbers(), self.backend)
        requests = list(ragged_requests(self.backend.hparams.n_vocab))
        self.calls.clear()
        start = time.perf_counter()
        texts = list(generate.generate(model, requests, batch))
        seconds = time.perf_counter() - start
        rows = sum(rows for rows, _ in self.calls) / len(self.calls)
        return {"seconds": seconds, "rows_per_s": len(texts) / seconds, "rows_per_call": rows}

    def batch(self):
        from gpt2.engine.batch import Batch

        return Batch(self.backend)

    def row(self, prompt, **settings):
        from gpt2.engine.token_sequence import TokenSequence
        from gpt2.request import Sampling

        return TokenSequence(prompt, Sampling(**settings))

    def step(self, batch):
        start = time.perf_counter()
        choices = batch.step()
        return time.perf_counter() - start, [choice.sequence for choice in choices]

    def joining(self, batch):
        rows = self.batch()
        for number in range(batch):
            rows.add(self.row([number] * 20, temperature=0))
        for _ in range(5):
            rows.step()
        alone = statistics.median(self.step(rows)[0] for _ in range(40))
        last = rows.add(self.row(list(range(1000)), temperature=0))
        gaps, told = [], []
        while last not in told:
            seconds, told = self.step(rows)
            gaps.append(seconds)
        return {"seconds": max(gaps), "step": alone, "gap_to_step": max(gaps) / alone, "steps": len(gaps)}

    def again(self, batch):
        rows, text = self.batch(), [7 * i % 50000 for i in range(900)]
        seconds = []
        for prompt in (text, [*text, 5]):
            start = time.perf_counter()
            number = rows.add(self.row(prompt, temperature=0))
            rows.step()
            seconds.append(time.perf_counter() - start)
            steps = [self.step(rows)[0] for _ in range(20)]
            rows.remove(number)
        step = statistics.median(steps)
        return {"seconds": seconds[1], "step": step, "to_step": seconds[1] / step, "first": seconds[0]}

    def sampling(self, batch):
        rows = self.batch()
        for number in range(batch):
            rows.add(self.row([number], top_k=40))
        for _ in range(5):
            rows.step()
        self.calls.clear()
        steps = [self.step(rows)[0] for _ in range(40)]
        model = statistics.median(seconds for _, seconds in self.calls)
        return {"seconds": statistics.median(steps), "model": model, "share": statistics.median(steps) / model - 1}


def serve(checkout, model, precision):
    worker = Worker(checkout, model, precision)
    for line in sys.stdin:
        what, batch = json.loads(line)
        print(json.dumps(getattr(worker, what)(batch)), flush=True)


def shown(answers):
    keys = answers[0]
    return ", ".join(f"{key} {statistics.median(answer[key] for answer in answers):.3f}" for key in keys)


def measure(options, checkouts, model):
    found = []
    for precision in options.precision:
        with contextlib.ExitStack() as stack:
            commands = [[sys.executable, str(HERE), "serve", str(path), str(model), precision] for path in checkouts]
            processes = [stack.enter_context(Process(OURS, command, None)) for command in commands]
            for what, batch in options.only:
                others = processes if what == "ragged" else processes[:1]
                answers = [[process.ask([what, batch]) for process in others] for _ in range(1 + options.pairs)][1:]
                ours, *theirs = ([row[i] for row in answers] for i in range(len(others)))
                row = {"what": what, "batch": batch, "precision": precision, "ours": ours}
                print(f"{what} {precision} batch {batch}: {shown(ours)}", flush=True)
                if theirs:
                    ratio, interval = ratios(ours, theirs[0])
                    row.update(before=theirs[0], ratio=ratio, interval=interval)
                    print(
                        f"  before: {shown(theirs[0])}; {ratio:.2f} times as fast ({interval[0]:.2f}-{interval[1]:.2f})"
                    )
                found.append(row)
    return found


CASES = ["ragged:8", "ragged:32", "joining:8", "again:1", "sampling:32"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model directory")
    parser.add_argument("--precision", nargs="+", default=["float32", "int8"])
    parser.add_argument("--before", help="a checkout of an earlier commit")
    parser.add_argument("--pairs", type=int, default=5, help="rounds, after one for warm-up")
    parser.add_argument("--only", nargs="+", default=CASES, help=f"of {', '.join(CASES)}")
    options = parser.parse_args()
    options.only = [(what, int(batch)) for what, batch in (case.split(":") for case in options.only)]
    checkouts = [OUR_CHECKOUT, *([Path(options.before).resolve()] if options.before else [])]
    with tempfile.TemporaryDirectory() as temporary:
        model = options.model or Path(temporary, "model")
        if not options.model:
            subprocess.run([sys.executable, HERE.parent / "peers" / OURS.script, "new", str(model)], check=True)
        print(json.dumps(measure(options, checkouts, model)))


if __name__ == "__main__":
    serve(*sys.argv[2:]) if sys.argv[1:2] == ["serve"] else main()
