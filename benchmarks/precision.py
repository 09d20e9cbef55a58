#!/usr/bin/env python3
"""Command: what narrow weights cost: how often the likeliest next token stays the same, and the cross-entropy.

    python benchmarks/precision.py MODEL_DIRECTORY TEXT_FILE [TOKENS]

The last TOKENS tokens of the text (8192 if not given), in windows of the model's size; by the product's own functions,
with TensorFlow's products. Prints a table, and the same as a last line of JSON.
"""

import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from gpt2 import machine
from gpt2.formats import model_dir
from gpt2.request import PRECISIONS


def predictions(directory, precision, windows):
    """The likeliest ids [N, T] and the nats of each token that follows [N, T]."""
    import numpy as np
    import tensorflow as tf

    from gpt2 import model
    from gpt2.engine.load import load_backend

    weights = load_backend(directory, precision, native=False).weights
    likeliest, nats = [], []
    for window in windows:
        logits, _, _ = model.model(weights, directory.hparams, tf.constant(window[None, :-1]))
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(window[None, 1:], logits)
        likeliest.append(tf.argmax(logits[0], axis=-1).numpy())
        nats.append(losses[0].numpy())
    return np.array(likeliest), np.array(nats)


def main(model_path, text, tokens="8192"):
    directory = model_dir.open_model_dir(Path(model_path))
    encoder = model_dir.load_vocabulary(directory)
    machine.start()
    import numpy as np

    ids = np.array(encoder.encode(Path(text).read_text(encoding="utf-8")), np.int32)[-int(tokens) :]
    size = min(directory.hparams.n_ctx, len(ids) - 1)
    windows = [ids[start : start + size + 1] for start in range(0, len(ids) - size, size)]
    expected, expected_nats = predictions(directory, PRECISIONS[0], windows)
    found = {"tokens": expected.size, PRECISIONS[0]: {"bits_per_token": expected_nats.mean() / math.log(2)}}
    print(f"{expected.size} tokens; float32: {found[PRECISIONS[0]]['bits_per_token']:.4f} bits per token")
    for precision in PRECISIONS[1:]:
        likeliest, nats = predictions(directory, precision, windows)
        agreement, bits = (likeliest == expected).mean(), nats.mean() / math.log(2)
        more = bits - found[PRECISIONS[0]]["bits_per_token"]
        print(
            f"{precision}: the likeliest token is the same in {agreement:.2%}; {bits:.4f} bits per token ({more:+.4f})"
        )
        found[precision] = {"agreement": agreement, "bits_per_token": bits}
    print(json.dumps(found, default=float))


if __name__ == "__main__":
    main(*sys.argv[1:])
