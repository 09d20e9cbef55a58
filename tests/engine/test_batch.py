"""The fast paths against the slow obvious one: the whole text through the model again for every token, op by op."""

import numpy as np
import pytest
from one_by_one import GREEDY, ROWS, decode_slowly, take
from tiny import GOLDEN

from gpt2.engine.batch import Batch, Row
from gpt2.engine.tensorflow import TensorFlowBackend
from gpt2.errors import UsageError


@pytest.mark.parametrize("row", ROWS)
def test_cached_ids_are_those_of_the_slow_way(tiny_model, row):
    """90 tokens through a window of 32: it slides several times."""
    assert take(Batch(tiny_model.backend, [row]), 90) == [decode_slowly(tiny_model.backend, row, 90)]


def test_ragged_rows_in_a_batch_are_what_they_are_alone(tiny_model):
    alone = [take(Batch(tiny_model.backend, [row]), 90)[0] for row in ROWS]
    assert take(Batch(tiny_model.backend, ROWS), 90) == alone
    assert take(Batch(tiny_model.backend, ROWS[::-1]), 90) == alone[::-1]


def test_compiled_ids_are_the_eager_ones(tiny_model, oracle):
    assert take(Batch(tiny_model.backend, ROWS), 40) == take(Batch(oracle, ROWS), 40)


def test_a_finished_row_disturbs_nobody(tiny_model):
    alone = [take(Batch(tiny_model.backend, [row]), 60)[0] for row in ROWS]
    batch = Batch(tiny_model.backend, ROWS)
    first = take(batch, 10)
    batch.finish(1)
    batch.finish(4)
    rest = take(batch, 50)
    for row in (0, 2, 3, 5):
        assert first[row] + rest[row] == alone[row]
    assert batch.done.tolist() == [False, True, False, False, True, False]


def test_the_cache_is_written_in_place(small_model):
    """What a step writes lands in the very memory that the cache had before."""
    batch = Batch(small_model.backend, [Row([15496, 11])])
    batch.next()
    before = [memoryview(tensor) for tensor in [*batch.cache.keys, *batch.cache.values]]
    batch.next()
    for old, new in zip(before, [*batch.cache.keys, *batch.cache.values]):
        assert np.shares_memory(np.asarray(old), np.asarray(memoryview(new)))


@pytest.mark.parametrize("number", range(5))
def test_greedy_ids_are_those_of_the_original(small_model, number):
    row = Row(GOLDEN["tokens"][number], GREEDY)
    assert take(Batch(small_model.backend, [row]), 40) == [GOLDEN["greedy"][number]]


def test_greedy_ids_of_all_prompts_in_one_batch(small_model):
    rows = [Row(tokens, GREEDY) for tokens in GOLDEN["tokens"]]
    assert take(Batch(small_model.backend, rows), 40) == GOLDEN["greedy"]


def test_one_trace_serves_every_length(tiny_model):
    backend = TensorFlowBackend(tiny_model.backend.weights, tiny_model.hparams)
    for length, batch_size in ((1, 1), (7, 1), (30, 3)):
        take(Batch(backend, [Row(list(range(length)))] * batch_size), 40)
    assert [f.experimental_get_tracing_count() for f in (backend.forward, backend.write)] == [1, 1]


@pytest.mark.parametrize("prompt", [[], [-1], [10_000]])
def test_impossible_prompts_are_refused(tiny_model, prompt):
    with pytest.raises(UsageError, match="at least one id, all from 0 to"):
        Batch(tiny_model.backend, [Row(prompt)])
