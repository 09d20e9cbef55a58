#!/usr/bin/env python3
"""Command: how fast text is encoded, beside tiktoken with the same vocabulary, in one thread each.

    python benchmarks/encoder.py TEXT.txt VOCABULARY_FOLDER [RUNS]

One warm-up, then the two in turn; prints the median MB/s of each, the ratio, and the same as a last line of JSON. A new
encoder's first pass, before its cache of pieces is warm, is shown apart.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

from gpt2.encoder import PIECE_PATTERN
from gpt2.formats.openai.vocabulary import load_encoder
from gpt2.text.bpe_files import ENCODER_FILE, MERGES_FILE


def megabytes_per_second(encode, text):
    start = time.perf_counter()
    ids = encode(text)
    return len(text.encode()) / 1e6 / (time.perf_counter() - start), ids


def main(text_file, vocabulary, runs="9"):
    text, vocabulary = Path(text_file).read_text(encoding="utf-8"), Path(vocabulary)
    ranks = data_gym_to_mergeable_bpe_ranks(str(vocabulary / MERGES_FILE), str(vocabulary / ENCODER_FILE))
    peer = tiktoken.Encoding("gpt2", pat_str=PIECE_PATTERN, mergeable_ranks=ranks, special_tokens={})
    encoder = load_encoder(vocabulary)
    first, ids = megabytes_per_second(encoder.encode, text)
    assert ids == megabytes_per_second(peer.encode_ordinary, text)[1], "the two encoders disagree"
    pairs = [
        (megabytes_per_second(encoder.encode, text)[0], megabytes_per_second(peer.encode_ordinary, text)[0])
        for _ in range(int(runs))
    ]
    ours, theirs = (statistics.median(column) for column in zip(*pairs))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{Path(text_file).name}: {len(text.encode()) / 1e6:.1f} MB, {len(ids):,} tokens, {runs} pairs")
    print(f"first pass {first:.1f} MB/s, then {ours:.1f} MB/s; tiktoken {theirs:.1f} MB/s; ratio {ratio:.2f}")
    print(json.dumps({"first": first, "ours": ours, "tiktoken": theirs, "ratio": ratio}))


if __name__ == "__main__":
    main(*sys.argv[1:])
