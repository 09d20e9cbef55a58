#!/usr/bin/env python3
"""Command: speed and memory of writing on the CPU, beside the bandwidth of its memory and beside other engines.

    python benchmarks/decoding.py
    PATH=FOLDER_OF_LLAMA_BENCH:$PATH python benchmarks/decoding.py --peers --peer-python OTHER_ENVIRONMENT/bin/python
    python benchmarks/decoding.py --original GPT_2_CHECKOUT --original-python PYTHON_3.7_WITH_TENSORFLOW_1.15
    python benchmarks/decoding.py --before CHECKOUT_OF_AN_EARLIER_COMMIT --pairs 15

The same weights for every engine: those of --model, or random ones of 124M size; each engine gets them in its own
format (all together some 3 GB in the temporary directory). Every comparison has a new process for each of the two
engines, which stays alive and answers request after request. They take turns, after one round for warm-up; medians are
compared.

decode: greedy decode steps, each with the full output projection, from a prompt of one id. What is timed is the loop of
    steps after the prefill and one warm step; of engines that only run as a whole (CTranslate2, the original), the
    whole call, which for such a prompt is as many steps. At batch 1, "ceiling" is the tokens/s that memory allows and
    "of it" the share that is reached: a step reads every weight but the position embeddings once, at the bytes of the
    engine's own precision (the cache and the scales of int8 are not counted), and the bandwidth is that of NumPy's
    maximum of a 512 MB array, a slice for each core, the best of ten.
prefill: from a prompt of 512 ids, or --prefill, to the token that follows it.
start: a whole new process, files in page cache, to the first byte of the first token. Ours is the command with its
    vocabulary; the peers print the id and load none. Needs a vocabulary: one in --model, or --vocabulary.

"ours/peer" is the median of the pairs' ratios of speed, above 1 if ours is faster, and "95%" its confidence interval.
Peak memory is VmHWM, which counts mapped files too; of start, up to the first token.
The last line is JSON with everything.
"""

import argparse
import json
import shutil
import signal
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from peers.turns import CORES, OURS, PEERS, Bench, Failed, find_engines, ratios

from gpt2.cli.diagnostics import describe_processor
from gpt2.hparams import HPARAMS_FILE, load_hparams
from gpt2.text.bpe_files import ENCODER_FILE, MERGES_FILE

BYTES = {"float32": 4, "bfloat16": 2, "int8": 1, "F32": 4, "F16": 2, "Q8_0": 34 / 32}
COLUMNS = [  # title, key, format, width
    ("what", "what", "", 8),
    ("engine", "engine", "", 13),
    ("precision", "precision", "", 10),
    ("batch", "batch", "", 6),
    ("tokens", "tokens", "", 7),
    ("seconds", "seconds", ".3f", 9),
    ("tokens/s", "tokens_per_s", ".1f", 9),
    ("ms/step", "ms_per_step", ".2f", 9),
    ("ceiling", "ceiling", ".1f", 8),
    ("of it", "of_ceiling", ".0%", 6),
    ("peak MB", "peak_mb", ".0f", 8),
    ("ours/peer", "ours_to_peer", ".2f", 10),
    ("95%", "interval", "", 13),
]


def memory_bandwidth():
    """Bytes a second that all cores together read."""
    array = np.random.default_rng(0).random(2**27, np.float32)  # all pages different, or they may share memory
    slices = np.array_split(array, CORES)

    def read(pool):
        start = time.perf_counter()
        list(pool.map(np.max, slices))
        return time.perf_counter() - start

    with ThreadPoolExecutor(CORES) as pool:
        return array.nbytes / min(read(pool) for _ in range(10))


def described(engine, precision, request, answers, ceiling):
    """A row of the table; ceiling: steps a second that memory allows with weights of one byte."""
    what, tokens = next(iter(request.items()))
    batch, all_seconds = request.get("batch", 1), [answer["seconds"] for answer in answers]
    seconds = statistics.median(all_seconds)
    row = {"what": what, "engine": engine.name, "precision": precision, "batch": batch, "tokens": tokens}
    row.update(seconds=seconds, all_seconds=all_seconds)
    if what != "start":
        row.update(tokens_per_s=batch * tokens / seconds)
    row.update(peak_mb=max(answer["peak_mb"] for answer in answers))
    if what == "decode":
        row["ms_per_step"] = 1e3 * seconds / tokens
        if batch == 1:
            row["ceiling"] = ceiling / BYTES[precision]
            row["of_ceiling"] = row["tokens_per_s"] / row["ceiling"]
    return row


def compare(bench, peer, precision, request, pairs, ceiling):
    """The rows of ours and of the peer (an engine and its precision, or None)."""
    contestants = [(OURS, precision), *([peer] if peer else [])]
    answers = bench.take_turns(contestants, request, pairs)
    rows = [described(*who, request, said, ceiling) for who, said in zip(contestants, answers)]
    if peer:
        rows[1]["ours_to_peer"], interval = ratios(*answers)
        rows[1]["interval"] = "-".join(f"{end:.2f}" for end in interval)
        tokens = [said[0].get("token") for said in answers]
        if BYTES[precision] == BYTES[peer[1]] == 4 and tokens[0] != tokens[1] is not None:
            raise Failed(f"{peer[0].name} goes on with id {tokens[1]} where ours has {tokens[0]}: not the same model")
    return rows


def show(row=None):
    def cell(title, key, form):
        return title if row is None else format(row[key], form) if key in row else ""

    print("".join(f"{cell(title, key, form):>{width}}" for title, key, form, width in COLUMNS), flush=True)


def measure(bench, peers, options, requests, ceiling):
    """All rows, which are shown as they come, and what failed."""
    rows, failures = [], []
    show()
    for precision in options.precision:
        for request in requests:
            batch = request.get("batch", 1)
            able = [peer for peer in peers if precision in dict(peer.precisions) and next(iter(request)) in peer.kinds]
            fitting = [peer for peer in able if batch <= peer.max_batch]
            for peer in [(peer, dict(peer.precisions)[precision]) for peer in fitting] or [None]:
                try:
                    found = compare(bench, peer, precision, request, options.pairs, ceiling)
                except Failed as failure:
                    failures.append(f"{precision} {json.dumps(request)}: {failure}")
                    print(f"left out: {failures[-1]}", flush=True)
                    continue
                rows += found
                for row in found:
                    show(row)
    return rows, failures


def requests_of(options, has_vocabulary):
    decode = [{"decode": length, "batch": batch} for batch in options.batch for length in options.lengths]
    prefill = [{"prefill": length} for length in options.prefill]
    if "start" in options.only and not has_vocabulary:
        print("no vocabulary, start is left out; give the folder of encoder.json and vocab.bpe as --vocabulary")
    kinds = {"decode": decode, "prefill": prefill, "start": [{"start": 1}] if has_vocabulary else []}
    return [request for kind in options.only for request in kinds[kind]]


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers, words = (lambda text: [int(x) for x in text.split(",")]), (lambda text: text.split(","))
    parser.add_argument("--precision", type=words, default="float32,bfloat16,int8")
    parser.add_argument("--batch", type=numbers, default="1,8,32")
    parser.add_argument("--lengths", type=numbers, default="128,1000")
    parser.add_argument("--prefill", type=numbers, default="512")
    parser.add_argument("--pairs", type=int, default=9, help="rounds after the one for warm-up")
    parser.add_argument("--only", type=words, default="decode,prefill,start")
    parser.add_argument("--model", type=Path, help="a model directory; random weights of 124M size without it")
    parser.add_argument("--vocabulary", type=Path, help="what the random weights need for start")
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=[peer.name for peer in PEERS],
        help="compare with these engines, or with all others that are there",
    )
    parser.add_argument("--peer-python", nargs="+", default=[], help="where to look for them besides this Python")
    parser.add_argument("--before", help="compare with a checkout of this project at another commit")
    parser.add_argument("--original", help="a checkout of openai/gpt-2")
    parser.add_argument("--original-python", help="a Python with TensorFlow 1.15")
    options = parser.parse_args()
    for name, known in ("precision", {"float32", "bfloat16", "int8"}), ("only", {"decode", "prefill", "start"}):
        if not set(getattr(options, name)) <= known:
            parser.error(f"--{name}: choose from {', '.join(sorted(known))}")
    if bool(options.original) != bool(options.original_python):
        parser.error("--original and --original-python belong together")
    for python in [*options.peer_python, *filter(None, [options.original_python])]:
        if not shutil.which(python):
            parser.error(f"{python} is not a Python that can be run")
    for folder, file in (options.model, HPARAMS_FILE), (options.vocabulary, ENCODER_FILE), (options.original, "src"):
        if folder and not Path(folder, file).exists():
            parser.error(f"{folder} holds no {file}")
    if options.pairs < 1:
        parser.error("--pairs must be 1 or more")
    return options


def main():
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # not without removing gigabytes of temporary files
    pythons, missing = find_engines(options)
    if missing:
        print(f"not installed, left out: {', '.join(missing)}")
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(options.model or Path(temporary, "model"), Path(temporary), pythons, options.original)
        if options.model is None:
            bench.run(OURS, "new", bench.model)
            for name in (ENCODER_FILE, MERGES_FILE) if options.vocabulary else ():
                shutil.copy(options.vocabulary / name, bench.model)
        hparams = load_hparams(bench.model / HPARAMS_FILE)
        if max(*options.lengths, *options.prefill) + 3 > hparams.n_ctx:  # a prompt and a warm step come first
            sys.exit(f"error: --lengths and --prefill must be at most {hparams.n_ctx - 3} for this model")
        bandwidth = memory_bandwidth()
        print(f"{describe_processor()}; memory bandwidth {bandwidth / 1e9:.1f} GB/s, {hparams.n_params} weights")
        requests = requests_of(options, (bench.model / ENCODER_FILE).exists())
        ceiling = bandwidth / (hparams.n_params - hparams.n_ctx * hparams.n_embd)
        rows, failures = measure(bench, list(pythons)[1:], options, requests, ceiling)
    found = {
        "processor": describe_processor(),
        "bandwidth_gb_per_s": bandwidth / 1e9,
        "cores": CORES,
        "n_params": hparams.n_params,
        "rows": rows,
    }
    print(json.dumps({**found, "not_installed": missing, "failures": failures}))


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(f"error: {failure}")
