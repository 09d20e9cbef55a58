#!/usr/bin/env python3
"""Command: how a job of many prompts grows with its workers: measured with one and two, simulated with more.

    python benchmarks/bulk_scaling.py --model MODEL_DIRECTORY --rows 400
    python benchmarks/bulk_scaling.py --simulate '{"row_s": 0.9, "start_s": 6, "shared": 0.95, "command_row_s": 2e-4}'

Measured: jobs of scripts/generate.py with one process of one thread and with two, each of two lengths, so that what a
row takes (row_s, of a worker that is alone) is told from what the start takes (start_s); how fast each of two that
share a socket's memory is beside one alone (shared); and what the command itself does for a row whose text costs
nothing: reading, giving out, output, journal (command_row_s).

Simulated: each worker has `batch` places. It writes a row in batch * row_s, times the row's share of the mean length,
and exchanges with the command when half a second has passed and rows have ended; the command serves one exchange after
the other, command_row_s for each row. Printed beside it: the formula
    seconds = start_s + rows * max(row_s / (workers * shared), command_row_s) + batch * row_s * longest / mean / 2.
The last line is JSON with everything.
"""

import argparse
import heapq
import itertools
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1] / "src"))

COMMAND = HERE.parents[1] / "scripts" / "generate.py"
PATIENCE, AHEAD = 0.5, 2  # as in gpt2.bulk.workers and .station
MACHINES, ROWS_EACH = [1, 2, 10, 100, 1000], 2000


def lengths(rows):
    """New tokens of each row."""
    rng = random.Random(1)
    return [rng.randint(8, 120) for _ in range(rows)]


def write_prompts(path, rows):
    rng, words = random.Random(1), ["the", "of", "and", "to", "in", "that", "with", "on", "at", "one", "have", "this"]
    with path.open("w", encoding="utf-8") as file:
        for length in lengths(rows):
            prompt = " ".join(rng.choices(words, k=rng.randint(5, 60)))
            file.write(json.dumps({"prompt": prompt, "length": length, "ignore_eos": True}) + "\n")


def job(options, temporary, rows, workers):
    """Seconds of a whole job."""
    prompts, out = Path(temporary, f"{rows}.jsonl"), Path(temporary, "out.jsonl")
    for path in (out, out.with_name("out.jsonl.job")):
        path.unlink(missing_ok=True)
    write_prompts(prompts, rows)
    flags = ["--model_name", options.model, "--precision", options.precision, "--seed=1", f"--threads={workers}"]
    flags += [f"--batch_size={options.batch}", f"--processes={workers}"]
    start = time.perf_counter()
    subprocess.run([sys.executable, COMMAND, prompts, out, *flags], check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


class Instant:
    """A crew of workers that need no time."""

    def __init__(self, workers):
        self.names, self.answers = list(range(workers)), []

    def ready_workers(self):
        return self.names

    def send(self, worker, rows):
        from gpt2.bulk.batch_worker import GeneratedText
        from gpt2.bulk.workers import RowResult

        text = "and so on " * 40
        self.answers.append(
            (worker, [RowResult(row.number, [GeneratedText(text, "length", 40, 64)], "") for row in rows])
        )

    def receive(self):
        answers, self.answers = self.answers, []
        return answers


def command_row_s(temporary, rows=20000):
    """Seconds that the command takes for a row, whoever writes it; pickling as between processes included."""
    import pickle

    from gpt2.bulk import file_formats, job, journal, output
    from gpt2.bulk.row_queue import RowQueue
    from gpt2.bulk.rows import RowDefaults
    from gpt2.bulk.source import PromptSource, SourceProgress
    from gpt2.bulk.workers import WorkerExecutor
    from gpt2.request import Request

    class Pickled(Instant):
        def send(self, worker, given):
            super().send(worker, pickle.loads(pickle.dumps(given)))

        def receive(self):
            return pickle.loads(pickle.dumps(super().receive()))

    prompts, out = Path(temporary, "many.jsonl"), Path(temporary, "many.out.jsonl")
    write_prompts(prompts, rows)
    start = time.perf_counter()
    with journal.open_journal(out) as kept:
        kept.start({})
        with output.open_output(out, file_formats.row_format(file_formats.JSON_LINES, "model", None), kept) as opened:
            some = job.read_rows(
                PromptSource(str(prompts), file_formats.JSON_LINES),
                RowDefaults(Request(None, 64)),
                SourceProgress(),
                opened,
            )
            job.run(
                RowQueue(some, opened.finished_numbers), WorkerExecutor(Pickled(16), 32), opened, lambda totals: None
            )
    return (time.perf_counter() - start) / rows


def measured(options, temporary):
    few, many = options.rows // 4, options.rows
    seconds = {(rows, workers): [] for rows in (few, many) for workers in (1, 2)}
    for _ in range(options.pairs):
        for rows, workers in seconds:
            seconds[rows, workers].append(job(options, temporary, rows, workers))
    took = {which: statistics.median(each) for which, each in seconds.items()}
    each = {workers: (took[many, workers] - took[few, workers]) / (many - few) for workers in (1, 2)}
    found = {"row_s": each[1], "start_s": max(0.0, took[many, 1] - many * each[1]), "shared": each[1] / each[2] / 2}
    found["command_row_s"] = command_row_s(temporary)
    return found, {workers: took[many, workers] for workers in (1, 2)}


def simulated(rows, workers, batch, numbers, shared):
    """Seconds of a job."""
    wanted = lengths(rows)
    mean, rate = statistics.fmean(wanted), shared / (batch * numbers["row_s"])  # mean rows of a place in a second
    left = iter(sorted(wanted, reverse=True) if rows <= 1024 else wanted)
    places = [[] for _ in range(workers)]  # when each place's row ends
    queue = [[] for _ in range(workers)]
    command = numbers["start_s"]  # until then the command is busy
    events = [(command, worker) for worker in range(workers)]
    while events:
        now, worker = heapq.heappop(events)
        own, waiting = places[worker], queue[worker]
        finished = _advance(own, waiting, now, batch, mean, rate)
        new = list(itertools.islice(left, AHEAD * batch - len(own) - len(waiting)))
        command = max(command, now) + (finished + len(new)) / 2 * numbers["command_row_s"]  # a half each way
        own[:] = [end + command - now for end in own]  # a worker writes nothing while it waits for its answer
        waiting += new
        _advance(own, waiting, command, batch, mean, rate)
        if own:
            heapq.heappush(events, (max(command + PATIENCE, own[0]) if waiting else own[0], worker))
    return command


def _advance(places, queue, now, batch, mean, rate):
    """Lets rows end until now, others taking their places at once; returns how many ended."""
    finished = 0
    while True:
        if len(places) < batch and queue:
            heapq.heappush(places, now + queue.pop(0) / mean / rate)
        elif places and places[0] <= now:
            ended = heapq.heappop(places)
            finished += 1
            if queue:
                heapq.heappush(places, ended + queue.pop(0) / mean / rate)
        else:
            return finished


def formula(rows, workers, batch, numbers, shared):
    tail = batch * numbers["row_s"] * max(lengths(rows)) / statistics.fmean(lengths(rows)) / 2
    each = max(numbers["row_s"] / (workers * shared), numbers["command_row_s"])
    return numbers["start_s"] + rows * each + tail


def both(*what):
    return {"simulated": simulated(*what), "formula": formula(*what)}


def shown(told):
    return f"simulated {told['simulated']:.1f} s, formula {told['formula']:.1f} s"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model directory, with a vocabulary")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--rows", type=int, default=400, help="of the measured jobs")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--simulate", type=json.loads, help="what was measured before, instead of measuring")
    options = parser.parse_args()
    if not options.model and not options.simulate:
        parser.error("give --model, or what was measured as --simulate")
    seconds = {}
    with tempfile.TemporaryDirectory() as temporary:
        numbers = options.simulate
        if not numbers:
            numbers, seconds = measured(options, temporary)
    print(", ".join(f"{name} {value:.4g}" for name, value in numbers.items()))
    table = []
    for workers, took in seconds.items():
        told = both(options.rows, workers, options.batch, numbers, numbers["shared"] if workers == 2 else 1)
        table.append({"workers": workers, "rows": options.rows, "measured": took, **told})
        print(f"{workers} workers, {options.rows} rows: measured {took:.1f} s, {shown(told)}")
    for workers in MACHINES:
        rows = ROWS_EACH * workers
        told = both(rows, workers, options.batch, numbers, 1)
        table.append({"machines": workers, "rows": rows, **told})
        share = ROWS_EACH * numbers["row_s"] / told["simulated"]
        print(f"{workers} machines, {rows} rows: {shown(told)}; {share:.0%} of what they could write without any pause")
    print(json.dumps({**numbers, "table": table}))


if __name__ == "__main__":
    main()
