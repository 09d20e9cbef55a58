"""The reference's intermediate results: attention, and the hidden states after each layer."""

import numpy as np
import pytest

from gpt2.engine import reference
from gpt2.formats.weights import Layout, Weight, flatten
from gpt2.hparams import HParams

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6]


@pytest.fixture(scope="module", params=["GPT-2", "all variants"])
def model(request):
    variant = {"n_inner": 24, "n_token_embd": 12, "tie_word_embeddings": False, "activation_function": "gelu"}
    hparams = HParams(
        n_vocab=40, n_ctx=16, n_embd=32, n_head=4, n_layer=3, **(variant if "all" in request.param else {})
    )
    return reference.random_weights(hparams, seed=5), hparams


def test_attention_is_causal_and_sums_to_one(model):
    attention = reference.trace(*model, TOKENS).attention
    assert len(attention) == 3 and all(layer.shape == (4, 8, 8) for layer in attention)
    for layer in attention:
        np.testing.assert_allclose(layer.sum(-1), 1, rtol=1e-6)
        assert not np.triu(layer, 1).any() and (layer[:, 0, 0] == 1).all()


def test_the_last_hidden_states_give_the_models_logits(model):
    weights, hparams = model
    hidden = reference.trace(weights, hparams, TOKENS).hidden
    assert len(hidden) == 4
    logits = [reference.unembed(weights, hparams, x) for x in hidden]
    np.testing.assert_allclose(logits[-1], reference.logits(weights, hparams, TOKENS), atol=1e-4)
    assert all(np.abs(logits[-1] - earlier).max() > 1e-2 for earlier in logits[:-1])


def test_a_trace_has_the_type_of_the_weights(model):
    weights, hparams = model
    trace = reference.trace(weights, hparams, TOKENS)
    assert {x.dtype for x in (*trace.attention, *trace.hidden)} == {np.dtype(np.float32)}
    assert reference.logits(weights, hparams, TOKENS).dtype == np.float64


def test_weights_of_both_layouts_are_read(model):
    weights, hparams = model

    def transposed_weight(name, array):
        if array.ndim < 2 or name.endswith("wpe"):
            return Weight(array.shape, None, lambda: iter([array]))
        layout = Layout.IN_OUT if name.endswith(("wte", "lm_head")) else Layout.OUT_IN
        return Weight(array.T.shape, layout, lambda: iter([np.ascontiguousarray(array.T)]))

    arrays = dict(flatten(weights))
    read = dict(flatten(reference.read({name: transposed_weight(name, array) for name, array in arrays.items()})))
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
