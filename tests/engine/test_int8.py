"""The activations that int8 rounds in addition to the weights, compared with the same computation in NumPy."""

import numpy as np
import pytest
from variants import ALL, SIZES

from gpt2.engine import quantize, reference
from gpt2.engine.backend import Segment
from gpt2.engine.native.backend import NativeBackend
from gpt2.engine.native.build import load
from gpt2.errors import GPT2Error
from gpt2.formats.openai import checkpoint
from gpt2.formats.weights import wrap_arrays
from gpt2.hparams import HParams
from gpt2.request import INT8, PRECISIONS

GROUP_SIZE = 32  # activations that share a scale
PLAIN = {**SIZES, "n_embd": 96}


def round_activations(x):
    """Return activations [T, I] rounded to int8 with one scale per group, as they are multiplied by int8 weights."""
    groups = np.pad(x, [(0, 0), (0, -x.shape[1] % GROUP_SIZE)]).reshape(len(x), -1, GROUP_SIZE)
    scale = np.abs(groups).max(-1, keepdims=True) / 127
    return (np.rint(groups / np.where(scale > 0, scale, 1)) * scale).reshape(len(x), -1)[:, : x.shape[1]]


def round_to_bfloat16(x):
    """Return numbers rounded to bfloat16, as float64."""
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32).astype(np.float64)


def round_weights(weights, name=""):
    """Return nested weights as float64, with the matrices rounded to int8."""
    if isinstance(weights, dict):
        return {key: round_weights(value, key) for key, value in weights.items()}
    if name in ("wte", "lm_head"):
        return round_matrix(weights)
    if name == "w":
        return round_matrix(weights.T).T
    return weights.astype(np.float64)


def round_matrix(w):
    """Return a matrix [O, I] rounded to int8, as float64."""
    values, scale = quantize.to_int8(w)
    return (values * scale[:, None]).astype(np.float64)


def compute_logits(weights, hparams, token):
    """Return the logits [V] after one token, whose attention returns its own value in the precision of the cache."""
    weights = round_weights(weights)

    def linear(x, w, b):
        product = round_activations(x) @ w + b
        return round_to_bfloat16(product) if w.shape == (hparams.n_embd, 3 * hparams.n_embd) else product

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "_linear", linear)
        x = reference.trace(weights, hparams, [token]).hidden[-1]
        # Identity matrices, because `unembed` would multiply activations that are not rounded.
        identity = {**weights, "wte": np.eye(hparams.token_size), "lm_head": np.eye(hparams.token_size)}
        x = reference.unembed(identity, hparams, x)
    return (round_activations(x) @ weights["wte" if hparams.tie_word_embeddings else "lm_head"].T)[0]


@pytest.mark.parametrize("hparams", [HParams(**PLAIN), HParams(**SIZES, **ALL)], ids=["plain", "all variants"])
def test_int8_rounds_activations_as_numpy(native, hparams):
    weights = reference.random_weights(hparams, seed=3)
    backend = NativeBackend(load(), wrap_arrays(weights, checkpoint.layout), hparams, INT8)
    pool, tokens = backend.new_pool(), range(hparams.n_vocab)
    logits = backend.extend(pool, [Segment([pool.allocate()], 0, np.array([token])) for token in tokens]).values
    expected = np.stack([compute_logits(weights, hparams, token) for token in tokens])
    difference = np.abs(logits - expected).max(axis=1)
    # Numbers half-way between two integers may be rounded differently in float32 and float64.
    assert np.median(difference) < 2e-6 * np.abs(expected).max(), np.median(difference)
    assert difference.max() < 0.05 * np.abs(expected).max(), difference.max()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_in_a_computation_are_an_error(native, precision, value):
    """No precision hides them; they are put into the loaded weights, because loading rejects them."""
    hparams = HParams(**PLAIN)
    weights = wrap_arrays(reference.random_weights(hparams, seed=3), checkpoint.layout)
    backend = NativeBackend(load(), weights, hparams, precision)
    backend.packed["wpe"][0, 5] = value
    pool = backend.new_pool()
    with pytest.raises(GPT2Error, match="the model's logits are NaN or infinite"):
        backend.extend(pool, [Segment([pool.allocate()], 0, np.array([1]))])
