#!/usr/bin/env python3
"""Command: how fast, and in how much memory, scripts/encode.py encodes a large text, beside tiktoken.

    python benchmarks/encode_files.py TEXT.txt VOCABULARY_FOLDER [BYTES] [FOLDER]

Makes a text of so many bytes (10**9) in FOLDER (the system's temporary one) by shuffling the lines of TEXT again and
again, encodes it with all cores, from the shell and into a file, and deletes both. tiktoken, which gets the same text
in parts that are in memory already, works in one thread and then in all of them; all its ids are compared with those
of the file. Memory is the sum of the resident sizes of all processes, looked at ten times a second: pages that they
share count for each.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

from gpt2.data import documents
from gpt2.devices import available_cores
from gpt2.encoder import PIECE_PATTERN
from gpt2.text.bpe_files import ENCODER_FILE, MERGES_FILE

COMMAND = Path(__file__).resolve().parents[1] / "encode.py"
TOGETHER = 32  # parts, of a million characters each, that tiktoken gets as a batch


def make_text(path, source, size):
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    shuffle = random.Random(0).shuffle
    with path.open("w", encoding="utf-8", newline="") as file:
        while file.tell() < size:
            shuffle(lines)
            file.write("".join(lines))


def family(pid):
    """The process and all below it."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    return [pid, *(below for path in children for child in path.read_text().split() for below in family(child))]


def resident(pid):
    """Bytes, of all processes of a family; nothing of one that has just ended."""
    total = 0
    try:
        for member in family(pid):
            total += int(Path(f"/proc/{member}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        pass
    return total


def run(text, out, vocabulary):
    """Seconds from the shell to the end, and the peak of the resident bytes."""
    start, peak = time.perf_counter(), 0
    command = [sys.executable, COMMAND, text, out, "--model_name", vocabulary]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            time.sleep(0.1)
    if process.returncode:
        sys.exit(f"error: {COMMAND} failed with status {process.returncode}")
    return time.perf_counter() - start, peak


def run_peer(text, ids, vocabulary):
    """Seconds of tiktoken in one thread and in all; ends the program if its ids are others."""
    ranks = data_gym_to_mergeable_bpe_ranks(str(vocabulary / MERGES_FILE), str(vocabulary / ENCODER_FILE))
    peer = tiktoken.Encoding("gpt2", pat_str=PIECE_PATTERN, mergeable_ranks=ranks, special_tokens={})
    alone = together = 0
    at, batch = 1, []  # the ids begin with the end of text
    for part in documents.read([text]):
        batch.append(part.text)
        start = time.perf_counter()
        expected = peer.encode_ordinary(part.text)
        alone += time.perf_counter() - start
        assert np.array_equal(ids[at : at + len(expected)], expected), f"the ids differ after id {at}"
        at += len(expected)
        if len(batch) == TOGETHER or part.last:
            start = time.perf_counter()
            peer.encode_ordinary_batch(batch, num_threads=available_cores())
            together += time.perf_counter() - start
            batch = []
    assert at == len(ids) - 1, f"there are {len(ids)} ids, not {at + 1}"
    return alone, together


def main(source, vocabulary, size=str(10**9), folder=None):
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        text, out = Path(temporary, "text.txt"), Path(temporary, "ids.npy")
        make_text(text, Path(source), int(size))
        seconds, peak = run(text, out, vocabulary)
        ids = np.load(out, mmap_mode="r")
        alone, together = run_peer(text, ids, Path(vocabulary))
        megabytes = text.stat().st_size / 1e6
    print(f"{megabytes:.0f} MB, {len(ids):,} tokens, {available_cores()} cores; all ids are those of tiktoken")
    for name, took in (
        ("encode.py", seconds),
        ("tiktoken, 1 thread", alone),
        (f"tiktoken, {available_cores()}", together),
    ):
        print(f"{name}: {took:.1f} s, {megabytes / took:.1f} MB/s, {len(ids) / took / 1e6:.2f} million tokens/s")
    print(f"ratio to one thread {alone / seconds:.2f}, to all {together / seconds:.2f}; memory {peak / 1e6:.0f} MB")
    figures = {"tokens_per_s": len(ids) / seconds, "tiktoken_1": len(ids) / alone, "tiktoken": len(ids) / together}
    print(json.dumps(figures | {"peak_mb": peak / 1e6}))


if __name__ == "__main__":
    main(*sys.argv[1:])
