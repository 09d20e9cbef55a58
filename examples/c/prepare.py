#!/usr/bin/env python3
"""Command: what the program in greedy.c needs of a model: weights.bin and libgpt2.so, in the folder FOLDER.

python examples/c/prepare.py MODEL FOLDER
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from gpt2.engine.native import build
from gpt2.formats.model_dir import open_model_dir
from gpt2.formats.weights import Layout
from gpt2.hparams import SIZES, HParams

LAYER = [  # in the order in which model.h reads them
    *("ln_1/g", "ln_1/b", "attn/c_attn/w", "attn/c_attn/b", "attn/c_proj/w", "attn/c_proj/b"),
    *("ln_2/g", "ln_2/b", "mlp/c_fc/w", "mlp/c_fc/b", "mlp/c_proj/w", "mlp/c_proj/b"),
]


def write_weights(model, path):
    """The sizes as five int32, then all weights in float32, matrices [inputs, outputs] but wte [n_vocab, n_embd]."""
    directory = open_model_dir(model)
    hparams, weights = directory.hparams, directory.read()
    sizes = {name: getattr(hparams, name) for name in SIZES}
    if hparams != HParams(**sizes):
        sys.exit("error: model.h reads no variants of GPT-2; gpt2.h says how they are computed")
    layers = [f"h{layer}/{name}" for layer in range(hparams.n_layer) for name in LAYER]
    with open(path, "wb") as file:
        np.array([sizes[name] for name in ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")], np.int32).tofile(file)
        for name in ["wte", "wpe", *layers, "ln_f/g", "ln_f/b"]:
            weight = weights[f"model/{name}"]
            transposed = weight.layout is Layout.OUT_IN and name != "wte"  # in the files of some formats
            (weight.array().T if transposed else weight.array()).astype(np.float32).tofile(file)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    target = Path(sys.argv[2])
    write_weights(Path(sys.argv[1]), target / "weights.bin")
    build.compile_library(next(build.find_compilers()), (target / "libgpt2.so").resolve())
