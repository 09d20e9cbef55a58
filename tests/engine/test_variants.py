"""GPT-2's variants in both backends, compared with the same computation in NumPy."""

import numpy as np
import pytest
from variants import SIZES, VARIANTS, variant_id

from gpt2.engine import reference
from gpt2.engine.backend import Segment
from gpt2.engine.kv_cache import blocks_for
from gpt2.engine.load import all_backends
from gpt2.engine.native.backend import NativeBackend
from gpt2.engine.native.build import load
from gpt2.formats.openai import checkpoint
from gpt2.formats.weights import wrap_arrays
from gpt2.hparams import HParams
from gpt2.request import BFLOAT16, INT8

TOKENS = np.arange(150) * 7 % 101


def compute_logits(backend, cuts):
    """Return the logits [T, V] of TOKENS, computed in segments that end at `cuts`."""
    pool = backend.new_pool()
    blocks = [pool.allocate() for _ in range(blocks_for(len(TOKENS)))]
    parts = np.split(TOKENS, cuts)
    starts = np.cumsum([0, *map(len, parts)])
    segments = [Segment(blocks, int(start), part, len(part)) for start, part in zip(starts, parts)]
    return np.concatenate([backend.extend(pool, [segment]).values for segment in segments])


@pytest.mark.parametrize("hparams", VARIANTS, ids=variant_id)
def test_both_backends_compute_variants(hparams):
    weights = reference.random_weights(hparams, seed=3)
    expected = reference.logits(weights, hparams, TOKENS)
    for backend in all_backends(weights, hparams):
        for cuts in ([], [1, 2, 3, 140, 141]):
            np.testing.assert_allclose(compute_logits(backend, cuts), expected, rtol=0, atol=1e-5, err_msg=backend.name)


@pytest.mark.parametrize("hparams", VARIANTS, ids=variant_id)
def test_each_variant_matters(hparams):
    """Otherwise the comparison above would hold for a backend that ignores the variant."""
    if hparams.variant_fields().keys() & {"n_inner", "n_token_embd", "tie_word_embeddings"}:
        return  # other weights, with which a backend that ignores the variant fails
    weights = reference.random_weights(hparams, seed=3)
    plain = HParams(**SIZES)
    difference = reference.logits(weights, hparams, TOKENS[:20]) - reference.logits(weights, plain, TOKENS[:20])
    assert np.abs(difference).max() > 1e-4


@pytest.mark.parametrize("precision, tolerance", [(BFLOAT16, 0.02), (INT8, 0.02)])
def test_narrow_precisions_compute_variants(native, precision, tolerance):
    hparams = VARIANTS[-1]
    weights = reference.random_weights(hparams, seed=3)
    backend = NativeBackend(load(), wrap_arrays(weights, checkpoint.layout), hparams, precision)
    expected = reference.logits(weights, hparams, TOKENS)
    whole = compute_logits(backend, [])
    split = compute_logits(backend, [1, 2, 3, 140, 141])
    assert np.abs(whole - expected).max() < tolerance * np.abs(expected).max() * 5
    np.testing.assert_array_equal(whole, split)
