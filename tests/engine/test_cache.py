"""Caches that grow and shrink, and ragged rows in them, against the whole text computed at once in NumPy."""

import numpy as np
import pytest
import tiny
from one_by_one import take

from gpt2 import sample
from gpt2.engine import reference
from gpt2.engine.batch import Batch, Row
from gpt2.engine.load import load_backend
from gpt2.formats.model_dir import open_model_dir
from gpt2.model import Narrow
from gpt2.request import PRECISIONS, Sampling

PROMPTS = [[1, 2, 3], [250], [7] * 40, [9, 8], [30, 31, 32, 33, 34], [5] * 100]


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A model whose window is larger than the smallest cache."""
    return open_model_dir(tiny.write_model(tmp_path_factory.mktemp("models") / "wide", n_ctx=600))


@pytest.fixture(scope="module", params=["native", "tensorflow"])
def backend(request, wide):
    if request.param == "native":
        request.getfixturevalue("native")
    return load_backend(wide, native=request.param == "native")


def expected(weights, hparams, row, ids):
    """The ids that the row's random numbers choose by the logits of the whole text at once."""
    logits = reference.logits(weights, hparams, [*row.prompt, *ids])[len(row.prompt) - 1 : -1]
    numbers = sample.RandomNumbers(row.seed, row.sample)
    return [sample.next_token(line, row.sampling, numbers.next(hparams.n_vocab)) for line in logits.astype(np.float32)]


def test_a_cache_that_grows_and_shrinks_loses_nothing(backend, wide):
    """Of six rows five end one after the other: the rest are moved together, and go on past 128 and past 512 slots."""
    weights = tiny.read(wide.weights, wide.hparams)
    rows = [Row(prompt, Sampling(), seed=3, sample=number) for number, prompt in enumerate(PROMPTS)]
    batch = Batch(backend, rows)
    ids = [[] for _ in rows]
    capacities, places = set(), set()
    for ending, steps in ((0, 20), (5, 30), (1, 60), (3, 40), (4, 60), (None, 300)):
        for row, more in enumerate(take(batch, steps)):
            ids[row] += [] if batch.done[row] else more
        capacities.add(batch.cache.capacity)
        places.add(len(batch.cache.rows))
        if ending is not None:
            batch.finish(ending)
    assert len(ids[2]) == 510 and len(capacities) == 3 and places == {6, 3, 1}
    for row, written in zip(rows, ids):
        assert written == expected(weights, wide.hparams, row, written)


def test_rows_that_begin_alike_go_their_own_ways(backend, wide):
    """What they begin with is computed for one of them, and copied for the others."""
    weights = tiny.read(wide.weights, wide.hparams)
    rows = [Row(PROMPTS[4], Sampling(), seed=3, sample=number) for number in range(4)] + [Row(PROMPTS[0])]
    batch = Batch(backend, rows)
    batch.finish(1)
    ids = take(batch, 15)
    assert len({tuple(ids[row]) for row in (0, 2, 3)}) == 3
    for row in (0, 2, 3, 4):
        assert ids[row] == expected(weights, wide.hparams, rows[row], ids[row])


def widened(weights):
    """Narrow weights as float32 matrices [I, O] and wte [V, E]."""
    if isinstance(weights, Narrow):
        return np.asarray(weights.values, np.float32) * np.asarray(weights.scale)[:, None]
    if isinstance(weights, dict):
        kept = {name: widened(value) for name, value in weights.items()}
        return {name: value.T if name == "w" else value for name, value in kept.items()}
    return weights


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_ragged_rows_in_narrow_types(wide, precision):
    """TensorFlow's backend: prefilled together, then step by step, beside each row alone and beside NumPy."""
    backend = load_backend(wide, precision, native=False)
    weights = {name: widened(part) for name, part in backend.weights.items()}
    counts = np.array([len(prompt) for prompt in PROMPTS])
    tokens = np.zeros((len(PROMPTS), counts.max()), np.int32)
    for line, prompt in zip(tokens, PROMPTS):
        line[: len(prompt)] = prompt
    cache, rows = backend.new_cache(len(PROMPTS)), range(len(PROMPTS))
    found = [backend.extend(cache, rows, tokens, np.zeros(len(PROMPTS), np.int32), counts)]
    next_ids = np.arange(3 * len(PROMPTS)).reshape(3, -1)
    for i, ids in enumerate(next_ids):
        found.append(backend.extend(cache, rows, ids[:, None], counts + i, np.ones(len(PROMPTS), np.int32)))
    for row, prompt in enumerate(PROMPTS):
        exact = reference.logits(weights, wide.hparams, [*prompt, *next_ids[:, row]])[len(prompt) - 1 :]
        np.testing.assert_allclose([logits[row] for logits in found], exact, rtol=0, atol=1e-3)
