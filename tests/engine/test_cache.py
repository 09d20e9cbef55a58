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


def prefilled(backend, ids):
    """A cache of some rows with the same ids [T], all but the last one fed."""
    cache = backend.new_cache(3)
    tokens = np.tile(np.array(ids[:-1], np.int32), (3, 1))
    backend.extend(cache, range(3), tokens, np.zeros(3, np.int32), np.full(3, len(ids) - 1, np.int32))
    return cache


def last_logits(backend, cache, ids, row):
    """[V], after the last of the row's ids [T]."""
    return backend.extend(cache, [row], np.array([ids[-1:]]), np.array([len(ids) - 1]), np.array([1]))[0]


def test_chunks_of_different_rows_begin_anywhere(backend, wide):
    """Also up to the very end of the cache, where padding has no room."""
    weights = tiny.read(wide.weights, wide.hparams)
    ids = np.random.default_rng(1).integers(wide.hparams.n_vocab, size=(3, 128))
    cache, starts = backend.new_cache(3), np.zeros(3, np.int32)
    for counts in ([100, 1, 5], [28, 9, 2], [0, 100, 30]):
        rows = np.flatnonzero(counts)
        counts = np.array(counts)[rows]
        tokens = np.zeros((len(rows), counts.max()), np.int32)
        for line, row, count in zip(tokens, rows, counts):
            line[:count] = ids[row, starts[row] : starts[row] + count]
        found = backend.extend(cache, rows, tokens, starts[rows], counts)
        starts[rows] += counts
        for row, logits in zip(rows, found):
            exact = reference.logits(weights, wide.hparams, ids[row, : starts[row]])[-1]
            np.testing.assert_allclose(logits, exact, rtol=0, atol=1e-5)


def test_a_step_writes_into_its_own_rows_alone(backend):
    ids = [5, 6, 7, 8]
    cache = prefilled(backend, ids)
    expected = last_logits(backend, prefilled(backend, ids), ids, 0)
    backend.extend(cache, [1], np.array([[9]]), np.array([3]), np.array([1]))
    np.testing.assert_array_equal(last_logits(backend, cache, ids, 0), expected)


def test_what_would_leave_the_cache_is_refused(backend):
    cache = prefilled(backend, [5, 6, 7])
    for rows, start, count in (([3], 0, 1), ([0], 128, 1), ([0], -1, 1), ([0], 0, 0), ([0], 127, 2)):
        with pytest.raises(ValueError, match="out of range|counts must be"):
            backend.extend(cache, rows, np.array([[1, 2]]), np.array([start]), np.array([count]))


@pytest.mark.parametrize("change", ["grown", "taken"])
@pytest.mark.parametrize("struck", [1, 3])
def test_a_cache_that_cannot_change_is_what_it_was(backend, monkeypatch, change, struck):
    """Ctrl-C or a lack of memory between two arrays."""
    ids = [5, 6, 7, 8]
    cache = prefilled(backend, ids)
    real, calls = getattr(cache, change), []

    def strike(*args):
        calls.append(args)
        if len(calls) == struck:
            raise MemoryError
        return real(*args)

    monkeypatch.setattr(cache, change, strike)
    with pytest.raises(MemoryError):
        cache.reserve(200) if change == "grown" else cache.retain([1])
    assert cache.capacity == 128 and len(cache.rows) == 3 and {array.shape[0] for array in cache.keys} == {3}
    expected = last_logits(backend, prefilled(backend, ids), ids, 2)
    np.testing.assert_array_equal(last_logits(backend, cache, ids, 2), expected)
