"""What int8 rounds besides the weights, against NumPy's computation of the same."""

import numpy as np
import pytest
from variants import ALL, SIZES

from gpt2.engine import quantize, reference
from gpt2.engine.backend import Segment
from gpt2.engine.native.backend import NativeBackend
from gpt2.engine.native.build import load
from gpt2.formats.openai import checkpoint
from gpt2.formats.weights import wrap_arrays
from gpt2.hparams import HParams
from gpt2.request import INT8, PRECISIONS

PART = 32  # activations that share a scale
PLAIN = {**SIZES, "n_embd": 96}


def rounded(x):
    """Activations [T, I] as they meet int8 weights: in bytes, but for a scale."""
    parts = np.pad(x, [(0, 0), (0, -x.shape[1] % PART)]).reshape(len(x), -1, PART)
    scale = np.abs(parts).max(-1, keepdims=True) / 127
    return (np.rint(parts / np.where(scale > 0, scale, 1)) * scale).reshape(len(x), -1)[:, : x.shape[1]]


def bfloat16(x):
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32).astype(np.float64)


def in_int8(weights):
    """The weights' values after they were rounded, float64."""
    if isinstance(weights, dict):
        return {
            name: dequantized(value)
            if name in ("wte", "lm_head")
            else dequantized(value.T).T
            if name == "w"
            else in_int8(value)
            for name, value in weights.items()
        }
    return weights.astype(np.float64)


def dequantized(w):
    values, scale = quantize.to_int8(w)
    return (values * scale[:, None]).astype(np.float64)


def slow(weights, hparams, token):
    """Logits [V] after a text of one token, whose attention is to itself alone: its value, as the cache keeps it."""
    weights = in_int8(weights)

    def linear(x, w, b):
        product = rounded(x) @ w + b
        return bfloat16(product) if w.shape == (hparams.n_embd, 3 * hparams.n_embd) else product

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "_linear", linear)
        x = reference.trace(weights, hparams, [token]).hidden[-1]
        # After the last layer norm, of which `unembed` would multiply what is not rounded.
        eye = {**weights, "wte": np.eye(hparams.token_size), "lm_head": np.eye(hparams.token_size)}
        x = reference.unembed(eye, hparams, x)
    return (rounded(x) @ weights["wte" if hparams.tie_word_embeddings else "lm_head"].T)[0]


@pytest.mark.parametrize("hparams", [HParams(**PLAIN), HParams(**SIZES, **ALL)], ids=["plain", "all variants"])
def test_int8_rounds_activations_as_numpy(native, hparams):
    weights = reference.random_weights(hparams, seed=3)
    backend = NativeBackend(load(), wrap_arrays(weights, checkpoint.layout), hparams, INT8)
    blocks, tokens = backend.new_pool(), range(hparams.n_vocab)
    found = backend.extend(blocks, [Segment([blocks.allocate()], 0, np.array([token])) for token in tokens]).values
    expected = np.stack([slow(weights, hparams, token) for token in tokens])
    difference = np.abs(found - expected).max(axis=1)
    # A number half-way between two is rounded one way in float32 and the other in float64, now and then.
    assert np.median(difference) < 2e-6 * np.abs(expected).max(), np.median(difference)
    assert difference.max() < 0.05 * np.abs(expected).max(), difference.max()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("what", [np.nan, np.inf])
def test_what_is_no_number_stays_none(native, precision, what):
    hparams = HParams(**PLAIN)
    weights = reference.random_weights(hparams, seed=3)
    weights["wpe"][0, 5] = what
    backend = NativeBackend(load(), wrap_arrays(weights, checkpoint.layout), hparams, precision)
    blocks = backend.new_pool()
    assert np.isnan(backend.extend(blocks, [Segment([blocks.allocate()], 0, np.array([1]))]).values).all()
