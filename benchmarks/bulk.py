#!/usr/bin/env python3
"""Command: rows/s of a file of prompts on the CPU, beside other engines.

    python benchmarks/bulk.py --peers --peer-python OTHER_ENVIRONMENT/bin/python
    python benchmarks/bulk.py --processes 2

The same ragged prompts for every engine, 10 to 300 ids, greedy. same: 64 new ids for each. ragged: 8 to 120, which
engines whose batches wait for their longest row get sorted by length. Weights are --model's, or random ones of 124M
size. Each engine first tries its batch sizes once (rows; for CTranslate2 the tokens of its own batches) and keeps the
quickest; then they take turns as in decoding.py. "ours/peer" is the median of the pairs' ratios of speed, and "95%" its
confidence interval.

--processes: instead, whole jobs of the command from a file of texts to JSON lines, with one process of all cores beside
so many with their share of them, in turns; loading included, which is told apart. Needs a vocabulary in --model.
The last line is JSON with everything.
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
sys.path.insert(0, str(HERE.parent))
from peers.turns import CORES, OURS, PAUSE, PEERS, Bench, Failed, find_engines, ratios

SIZES = {"ours": [16, 32, 64], "transformers": [8, 16, 32], "openvino": [8, 16, 32], "ctranslate2": [1024, 4096, 16384]}
COMMAND = HERE.parents[1] / "scripts" / "generate.py"


class Contestant:
    """An engine's process, and the batch size that suits it best."""

    def __init__(self, bench, stack, engine, precision, texts):
        folder = bench.folder(engine, precision)
        command = bench.script(engine, "serve", folder, precision, CORES)
        self.process = stack.enter_context(bench.process(engine, command))
        self.name, self.precision, self.texts = engine.name, precision, texts
        self.batch = None

    def ask(self, rows, batch=None):
        time.sleep(PAUSE)
        return self.process.ask({"bulk": rows, "texts": self.texts, "batch": batch or self.batch})

    def choose(self, rows, sizes):
        self.ask(8, sizes[0])
        found = {size: self.ask(rows, size)["seconds"] for size in sizes}
        self.batch = min(found, key=found.get)


def compare(bench, engine, precision, texts, options):
    """What ours and a peer, or ours alone, have to say."""
    theirs = [(engine, dict(engine.precisions)[precision])] if engine else []
    with contextlib.ExitStack() as stack:
        all_ = [Contestant(bench, stack, *who, texts) for who in [(OURS, precision), *theirs]]
        for one in all_:
            one.choose(options.rows, options.batch or SIZES[one.name])
        answers = [[one.ask(options.rows) for one in all_] for _ in range(options.pairs)]
    found = []
    for one, said in zip(all_, zip(*answers)):
        seconds = statistics.median(answer["seconds"] for answer in said)
        row = {"texts": texts, "engine": one.name, "precision": one.precision, "batch": one.batch}
        row |= {"rows_per_s": options.rows / seconds, "tokens_per_s": said[0]["tokens"] / seconds}
        found.append(
            row | {"peak_mb": max(answer["peak_mb"] for answer in said), "seconds": [x["seconds"] for x in said]}
        )
    if engine:
        found[1]["ours_to_peer"], found[1]["interval"] = ratios(*zip(*answers))
    return found


def show(row):
    about = f"{row['texts']:>7} {row['precision']:>8} {row['engine']:>13}, batch {row['batch']:>5}:"
    speed = f"{row['rows_per_s']:6.2f} rows/s, {row['tokens_per_s']:7.1f} tokens/s, {row['peak_mb']:.0f} MB"
    ratio = ""
    if "interval" in row:
        ratio = f", ours/peer {row['ours_to_peer']:.2f} ({'-'.join(f'{end:.2f}' for end in row['interval'])})"
    print(f"{about} {speed}{ratio}", flush=True)


def job(model, prompts, out, precision, processes):
    """Seconds of a whole job."""
    command = [sys.executable, COMMAND, prompts, out, "--model_name", model, "--precision", precision, "--seed=1"]
    start = time.perf_counter()
    subprocess.run([*command, "--length=64", f"--processes={processes}"], check=True, stderr=subprocess.DEVNULL)
    return {"seconds": time.perf_counter() - start}


def beside_processes(options, temporary):
    """Whole jobs of two lengths, so that what a row takes is told from what the start takes."""
    rng, found = random.Random(1), []
    words = ["the", "of", "and", "to", "in", "that", "with", "on", "at", "one", "have", "this"]
    for rows in (options.rows // 4, options.rows):
        texts = "".join(" ".join(rng.choices(words, k=rng.randint(10, 200))) + "\n" for _ in range(rows))
        Path(temporary, f"{rows}.txt").write_text(texts, encoding="utf-8")
    for precision in options.precision:
        said = {(rows, count): [] for rows in (options.rows // 4, options.rows) for count in (1, options.processes)}
        for number in range(options.pairs):
            for (rows, count), answers in said.items():
                prompts, out = (
                    Path(temporary, f"{rows}.txt"),
                    Path(temporary, f"{precision}{rows}-{count}-{number}.jsonl"),
                )
                answers.append(job(options.model, prompts, out, precision, count))
        for count in (1, options.processes):
            few, many = (
                statistics.median(x["seconds"] for x in said[rows, count]) for rows in (options.rows // 4, options.rows)
            )
            each = (many - few) / (options.rows - options.rows // 4)
            found.append(
                {
                    "precision": precision,
                    "processes": count,
                    "rows_per_s": 1 / each,
                    "start": many - each * options.rows,
                }
            )
            print(
                f"{precision}, {count} processes: {1 / each:.2f} rows/s and {found[-1]['start']:.1f} s to start",
                flush=True,
            )
        ratio, interval = ratios(said[options.rows, options.processes], said[options.rows, 1])
        found[-1] |= {"ratio": ratio, "interval": interval}
        print(f"  {options.processes} beside 1: {ratio:.2f} times as fast ({interval[0]:.2f}-{interval[1]:.2f})")
    return found


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", type=lambda text: text.split(","), default=["float32", "int8"])
    parser.add_argument("--texts", type=lambda text: text.split(","), default=["same", "ragged"])
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--batch", type=lambda text: [int(x) for x in text.split(",")], help="sizes to try, for all")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--model", type=Path, help="a model directory; random weights of 124M size without it")
    parser.add_argument("--peers", nargs="*", choices=[peer.name for peer in PEERS if peer.name in SIZES])
    parser.add_argument("--peer-python", nargs="+", default=[], help="where to look for them besides this Python")
    parser.add_argument("--processes", type=int)
    options = parser.parse_args()
    if options.processes and not options.model:
        parser.error("--processes needs --model, with a vocabulary")
    return options


def measure(options, temporary):
    if options.processes:
        return beside_processes(options, temporary)
    options.original = options.before = None
    pythons, missing = find_engines(options)
    pythons = {engine: python for engine, python in pythons.items() if engine.name in SIZES}
    print(f"not installed, left out: {', '.join(missing)}" if missing else "", end="\n" if missing else "")
    bench, rows = Bench(options.model or Path(temporary, "model"), Path(temporary), pythons, None), []
    if options.model is None:
        bench.run(OURS, "new", bench.model)
    for precision in options.precision:
        for texts in options.texts:
            peers = [peer for peer in list(pythons)[1:] if precision in dict(peer.precisions)]
            for peer in peers or [None]:
                try:
                    found = compare(bench, peer, precision, texts, options)
                except Failed as failure:
                    print(f"left out: {failure}", flush=True)
                    continue
                rows += found
                for row in found:
                    show(row)
    return rows


def main():
    options = parse()
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps({"cores": CORES, "rows": measure(options, temporary)}))


if __name__ == "__main__":
    main()
