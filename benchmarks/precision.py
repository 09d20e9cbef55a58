#!/usr/bin/env python3
"""Command: what narrow weights cost: how often the likeliest next token stays the same, and the cross-entropy.

    python benchmarks/precision.py MODEL_DIRECTORY TEXT_FILE [TOKENS]

The last TOKENS tokens of the text (8192 if not given), in windows of the model's size, as commands compute them: by the
native step where it can be built. "off by" is the root of the mean square of what a token's bits differ from float32's.
Prints a table, and the same as a last line of JSON.
"""

import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np

from gpt2.engine.load import load_backend
from gpt2.engine.scoring import ScoreOptions, Span, score_spans
from gpt2.formats import model_dir
from gpt2.request import FLOAT32, PRECISIONS


def predictions(backend, windows):
    """The likeliest ids [N] and the bits of each token that follows [N]."""
    said = list(score_spans(backend, (Span(window, len(window) - 1) for window in windows), ScoreOptions(likeliest=1)))
    likeliest = np.concatenate([window.likeliest[:, 0] for window in said])
    return likeliest, -np.concatenate([window.logprobs for window in said]) / math.log(2)


def main(model_path, text, tokens="8192"):
    directory = model_dir.open_model_dir(Path(model_path))
    encoder = model_dir.load_vocabulary(directory)
    ids = np.array(encoder.encode(Path(text).read_text(encoding="utf-8")), np.int32)[-int(tokens) :]
    size = min(directory.hparams.n_ctx, len(ids) - 1)
    windows = [ids[start : start + size + 1] for start in range(0, len(ids) - size, size)]
    found = {}
    for precision in PRECISIONS:
        backend = load_backend(directory, precision)
        likeliest, bits = predictions(backend, windows)
        if precision == FLOAT32:
            expected, expected_bits = likeliest, bits
            print(f"{len(bits)} tokens by {backend.name}; float32: {bits.mean():.4f} bits per token")
            continue
        agreement, more = (likeliest == expected).mean(), bits - expected_bits
        off = math.sqrt((more**2).mean())
        print(
            f"{precision}: the likeliest token is the same in {agreement:.2%}; "
            f"{bits.mean():.4f} bits per token ({more.mean():+.4f}), off by {off:.3f}"
        )
        found[precision] = {"agreement": agreement, "more_bits_per_token": more.mean(), "off_by": off}
    print(json.dumps({"tokens": len(expected_bits), "float32_bits": expected_bits.mean(), **found}, default=float))


if __name__ == "__main__":
    main(*sys.argv[1:])
