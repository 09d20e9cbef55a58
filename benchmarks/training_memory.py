#!/usr/bin/env python3
"""Command: peak memory of training at several sizes, beside what `gpt2.training.estimate` says before a run.

    python benchmarks/training_memory.py [--only WORD]

Random weights and tokens, two updates in a process of its own for each line; the peak is the process's resident set.
The last line is the same as JSON.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
UPDATES = 2
SIZES = {  # n_vocab, n_ctx, n_embd, n_head, n_layer
    "small": (4096, 256, 192, 6, 6),
    "wide": (16000, 512, 512, 8, 8),
    "124M": (50257, 1024, 768, 12, 12),
}
SAVING, BFLOAT16 = {"memory_saving_gradients": True}, {"precision": "bfloat16"}
CASES = [
    ("small", {}),
    ("small", {"batch_size": 16}),
    ("small", {"batch_size": 32, **SAVING}),
    ("small", {"batch_size": 32, **BFLOAT16}),
    ("wide", {}),
    ("wide", {"batch_size": 4}),
    ("wide", {"batch_size": 8}),
    ("wide", {"batch_size": 8, **SAVING}),
    ("wide", {"batch_size": 8, **BFLOAT16}),
    ("wide", {"batch_size": 8, **BFLOAT16, **SAVING}),
    ("wide", {"batch_size": 4, "accumulate_gradients": 2}),
    ("wide", {"batch_size": 4, "dropout": 0.1}),
    ("124M", {}),
    ("124M", {"batch_size": 2}),
    ("124M", SAVING),
    ("124M", {"batch_size": 2, **SAVING}),
    ("124M", {"batch_size": 4, **SAVING}),
    ("124M", BFLOAT16),
    ("124M", {"batch_size": 2, **BFLOAT16}),
    ("124M", {**BFLOAT16, **SAVING}),
    ("124M", {"accumulate_gradients": 2}),
    ("124M", {"accumulate_gradients": 2, **SAVING}),
    ("124M", {"optimizer": "sgd"}),
    ("124M", {"optimizer": "adafactor", **SAVING}),
    ("124M", {"clip_norm": 1.0, **SAVING}),
    ("124M", {"dropout": 0.1, **SAVING}),
    ("124M", {"only_train_transformer_layers": True, **SAVING}),
]


def work(size, given):
    """Makes the updates of one case; prints the peak and the estimate in MB."""
    sys.path.insert(0, str(CHECKOUT / "src"))
    from gpt2 import tensorflow_startup

    tensorflow_startup.start_tensorflow()
    import numpy as np
    import tensorflow as tf

    from gpt2.formats.weights import nest
    from gpt2.hparams import HParams
    from gpt2.training import estimate, initialization
    from gpt2.training.settings.settings import TrainingSettings
    from gpt2.training.trainer import Trainer

    hparams, settings = HParams(*SIZES[size]), TrainingSettings("random", **given)
    weights = nest(
        (name, tf.constant(value)) for name, value in initialization.initial_weights(hparams, seed=1).items()
    )
    trainer = Trainer(weights, hparams, settings, tf.distribute.get_strategy())
    del weights
    shape = (1, settings.accumulate_gradients, settings.batch_size, hparams.n_ctx + 1)
    tokens = np.random.default_rng(1).integers(hparams.n_vocab, size=shape).astype(np.int32)
    for _ in range(UPDATES):
        trainer.update(tokens[..., :-1], tokens[..., 1:], 1e-4, 1, 0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000 * (1 if sys.platform == "darwin" else 1024) / 1000
    print(json.dumps([peak, estimate.estimate_memory(hparams, settings) / 1e6]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="so many of the lines, by a word in their names")
    options = parser.parse_args()
    found = {}
    for size, given in CASES:
        name = ", ".join([size, *(f"{flag} {value}" for flag, value in given.items())])
        if options.only not in name:
            continue
        command = [sys.executable, __file__, "--work", size, json.dumps(given)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        if done.returncode:
            print(f"{name}: failed with status {done.returncode}", flush=True)
            continue
        peak, estimated = found[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"{name}: {peak:.0f} MB, estimated {estimated:.0f} MB, x {estimated / peak:.2f}", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], json.loads(sys.argv[3]))
    else:
        main()
