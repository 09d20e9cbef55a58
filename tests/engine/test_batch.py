"""The fast paths against the slow obvious one: the whole text through the model again for every token, op by op."""

import random

import numpy as np
import pytest
from one_by_one import GREEDY, SEQUENCES, collect_ids, generate_ids, generate_slowly
from tiny import GOLDEN

from gpt2 import model
from gpt2.engine import batch as batch_module
from gpt2.engine.batch import Batch
from gpt2.engine.kv_cache import BLOCK_SLOTS
from gpt2.engine.tensorflow import TensorFlowBackend
from gpt2.engine.token_sequence import TokenSequence
from gpt2.errors import UsageError
from gpt2.request import Sampling


@pytest.fixture(scope="module")
def alone(tiny_model):
    """60 ids of each row, beside nobody."""
    return [generate_ids(tiny_model.backend, [row], 60)[0] for row in SEQUENCES]


@pytest.mark.parametrize("row", SEQUENCES)
def test_cached_ids_are_those_of_the_slow_way(tiny_model, row):
    """90 tokens through a window of 32: it slides several times."""
    assert generate_ids(tiny_model.backend, [row], 90) == [generate_slowly(tiny_model.backend, row, 90)]


def test_ragged_rows_in_a_batch_are_what_they_are_alone(tiny_model, alone):
    assert generate_ids(tiny_model.backend, SEQUENCES, 60) == alone
    assert generate_ids(tiny_model.backend, SEQUENCES[::-1], 60) == alone[::-1]


def test_compiled_ids_are_the_eager_ones(tiny_model, oracle):
    assert generate_ids(tiny_model.backend, SEQUENCES, 40) == generate_ids(oracle, SEQUENCES, 40)


def test_rows_come_and_go(tiny_model, alone):
    """One row after another joins, and two leave early."""
    batch = Batch(tiny_model.backend)
    found = {}
    for number, row in enumerate(SEQUENCES):
        assert batch.add(row) == number
        found[number] = []
        for _ in range(3 * number):
            for choice in batch.step():
                found[choice.sequence].append(choice.id)
        if number in (1, 4):
            batch.remove(number)
    while min(len(found[number]) for number in batch.sequences) < 60:
        for choice in batch.step():
            found[choice.sequence].append(choice.id)
    for number, ids in found.items():
        assert ids[:60] == alone[number][: len(ids)]
    assert len(found[1]) < 60 and len(found[4]) < 60


def test_a_refused_row_disturbs_nobody(tiny_model, alone):
    batch = Batch(tiny_model.backend)
    numbers = [batch.add(row) for row in SEQUENCES]
    for prompt in ([], [-1], [10_000]):
        with pytest.raises(UsageError, match="at least one id, all from 0 to"):
            batch.add(TokenSequence(prompt))
    with pytest.raises(UsageError, match="logit_bias takes ids from 0 to"):
        batch.add(TokenSequence([1], Sampling(logit_bias={3: 1, 10_000: 1})))
    assert collect_ids(batch, numbers, 60) == alone


@pytest.mark.parametrize("room", [0, 1, 2, 3])
def test_where_there_is_no_room_rows_wait(tiny_model, alone, room):
    """A row takes one block here, however little room there is: then it has it for itself."""
    batch = Batch(tiny_model.backend, max_blocks=room)
    numbers = [batch.add(row) for row in SEQUENCES]
    most = 0
    found = {number: [] for number in numbers}
    while batch:
        for choice in batch.step():
            found[choice.sequence].append(choice.id)
            if len(found[choice.sequence]) == 60:
                batch.remove(choice.sequence)
        most = max(most, sum(row.is_admitted for row in batch.sequences.values()))
    assert list(found.values()) == alone
    assert most == max(1, room)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("where", ["extend", "after", "random_words", "allocate", "copy_block", "insert"])
def test_a_step_that_is_interrupted_can_be_made_again(tiny_model, alone, monkeypatch, error, where):
    """A third of the times, wherever it is: before the cache is written to, after it, while random words are drawn."""
    backend = Counting(tiny_model.backend)
    batch = Batch(backend)
    owner = {"allocate": batch.pool, "copy_block": batch.pool, "insert": batch.prefixes}.get(where, backend)
    name = "extend" if where == "after" else where
    real, calls, rng = getattr(owner, name), [], random.Random(1)

    def strike(*arguments):
        calls.append(name)
        if len(calls) == 1 or rng.random() < 1 / 3:  # not each third: a step may need three
            if where == "after":
                real(*arguments)
            raise error
        return real(*arguments)

    monkeypatch.setattr(owner, name, strike, raising=False)
    found = {batch.add(row): [] for row in SEQUENCES}
    while batch:
        try:
            choices = batch.step()
        except error:
            continue
        for choice in choices:
            found[choice.sequence].append(choice.id)
            if len(found[choice.sequence]) == 60:
                batch.remove(choice.sequence)
    assert list(found.values()) == alone and len(calls) > (0 if where == "copy_block" else 5)
    assert batch.pool.n_used == len(batch.prefixes.nodes)  # nobody else holds any


def test_a_choice_is_told_though_the_step_was_interrupted_after_it(tiny_model, alone, monkeypatch):
    batch = Batch(tiny_model.backend)
    numbers = [batch.add(row) for row in SEQUENCES[:3]]
    found = {number: [] for number in numbers}
    third, real = batch.sequences[2], batch.sequences[2].append

    def strike(choice):
        if len(third.choices) == 5 and not strike.done:
            strike.done = True
            raise KeyboardInterrupt
        real(choice)

    strike.done = False
    monkeypatch.setattr(third, "append", strike)
    while min(map(len, found.values())) < 20:
        try:
            for choice in batch.step():
                found[choice.sequence].append(choice.id)
        except KeyboardInterrupt:
            assert strike.done
    assert [found[number][:20] for number in numbers] == [ids[:20] for ids in alone[:3]]


def test_the_cache_is_written_in_place(small_model):
    """What a step writes lands in the very memory that the cache had before."""
    batch = Batch(small_model.backend)
    batch.add(TokenSequence([15496, 11]))
    batch.step()
    before = [memoryview(tensor) for tensor in batch.pool.tensors]
    batch.step()
    for old, new in zip(before, batch.pool.tensors):
        assert np.shares_memory(np.asarray(old), np.asarray(memoryview(new)))


@pytest.mark.parametrize("number", range(5))
def test_greedy_ids_are_those_of_the_original(small_model, number):
    row = TokenSequence(GOLDEN["tokens"][number], GREEDY)
    assert generate_ids(small_model.backend, [row], 40) == [GOLDEN["greedy"][number]]


def test_greedy_ids_of_all_prompts_in_one_batch(small_model):
    rows = [TokenSequence(tokens, GREEDY) for tokens in GOLDEN["tokens"]]
    assert generate_ids(small_model.backend, rows, 40) == GOLDEN["greedy"]


def test_one_trace_serves_every_length(tiny_model):
    backend = TensorFlowBackend(tiny_model.backend.weights, tiny_model.hparams)
    for length, batch_size in ((1, 1), (7, 1), (30, 3)):
        generate_ids(backend, [TokenSequence(list(range(length)))] * batch_size, 40)
    assert [f.experimental_get_tracing_count() for f in (backend.forward, backend.write)] == [1, 1]


def log_softmax(logits):
    logits = np.float64(logits)
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


def test_a_choice_carries_log_probabilities(small_model):
    """Of the model's own logits, whatever shaped the choice; and the likeliest ids, in order."""
    prompt = GOLDEN["tokens"][0]
    batch = Batch(small_model.backend)
    batch.add(TokenSequence(prompt, Sampling(temperature=2, top_k=5, logit_bias={11: 3}), seed=1, top_logprobs=3))
    (choice,) = batch.step()
    blocks = small_model.backend.new_pool()
    pieces = [batch_module.Segment([blocks.allocate() for _ in range(-(-len(prompt) // BLOCK_SLOTS))], 0, prompt)]
    expected = log_softmax(small_model.backend.extend(blocks, pieces).values[0])
    np.testing.assert_allclose(choice.logprob, expected[choice.id], atol=1e-5)
    assert [token for token, _ in choice.top_logprobs] == np.argsort(-expected)[:3].tolist()
    np.testing.assert_allclose([said for _, said in choice.top_logprobs], np.sort(expected)[:-4:-1], atol=1e-5)


@pytest.mark.parametrize("echoed", [3, 16, 1000])
def test_the_prompt_has_log_probabilities_too(tiny_model, monkeypatch, echoed):
    """Computed in slices of so many ids; beside a row whose prompt is the same, and in the store."""
    monkeypatch.setattr(batch_module, "ECHO_CHUNK_IDS", echoed)
    prompt = list(range(40, 70))
    batch = Batch(tiny_model.backend)
    numbers = [
        batch.add(TokenSequence(prompt, GREEDY)),
        batch.add(TokenSequence(prompt, GREEDY, echo=True, top_logprobs=2)),
    ]
    assert len({tuple(ids) for ids in collect_ids(batch, numbers[:1], 3)}) == 1
    while len(batch.sequences[1].choices) < 1:
        batch.step()
    first, *rest = batch.prompt_choices(numbers[1])
    assert first is None and [said.id for said in rest] == prompt[1:]
    logits, _, _ = model.model(tiny_model.backend.weights, tiny_model.hparams, np.array([prompt], np.int32))
    for said, line in zip(rest, logits[0].numpy()):
        expected = log_softmax(line)
        np.testing.assert_allclose(said.logprob, expected[said.id], atol=1e-5)
        assert [token for token, _ in said.top_logprobs] == np.argsort(-expected)[:2].tolist()


class Counting:
    """A backend that notes how many ids there are in each call."""

    def __init__(self, backend):
        self.backend, self.calls = backend, []

    def __getattr__(self, name):
        return getattr(self.backend, name)

    def extend(self, blocks, pieces):
        self.calls.append([len(piece.ids) for piece in pieces])
        return self.backend.extend(blocks, pieces)


def test_a_long_prompt_is_read_beside_the_others_steps(tiny_model, monkeypatch):
    monkeypatch.setattr(batch_module, "MIN_PREFILL_CHUNK", 5)
    monkeypatch.setattr(batch_module, "PREFILL_BUDGET_BUSY", 22)
    counting = Counting(tiny_model.backend)
    batch = Batch(counting)
    running = [batch.add(TokenSequence([number], GREEDY)) for number in range(2)]
    batch.step()
    long = batch.add(TokenSequence(list(range(23)), GREEDY))
    chosen = [[choice.sequence for choice in batch.step()] for _ in range(6)]
    assert counting.calls[1:] == [[1, 1, 5]] * 4 + [[1, 1, 3], [1, 1, 1]]
    assert chosen == [running] * 4 + [[*running, long]] * 2


def test_short_prompts_and_several_are_read_in_one_step_as_far_as_they_fit(tiny_model, monkeypatch):
    monkeypatch.setattr(batch_module, "MIN_PREFILL_CHUNK", 5)
    monkeypatch.setattr(batch_module, "PREFILL_BUDGET_BUSY", 12)
    counting = Counting(tiny_model.backend)
    batch = Batch(counting)
    batch.add(TokenSequence([1], GREEDY))
    batch.step()
    batch.add(TokenSequence(list(range(12)), GREEDY))
    batch.step()
    assert counting.calls[1:] == [[1, 12]]
    batch.add(TokenSequence([5] * 8, GREEDY)), batch.add(TokenSequence([6] * 20, GREEDY))
    for _ in range(4):
        batch.step()
    assert counting.calls[2:] == [[1, 1, 8, 4], [1, 1, 1, 5], [1, 1, 1, 5], [1, 1, 1, 5]]


def test_what_is_known_of_a_prompt_does_not_make_it_long(tiny_model, monkeypatch):
    monkeypatch.setattr(batch_module, "MIN_PREFILL_CHUNK", 2)
    monkeypatch.setattr(batch_module, "PREFILL_BUDGET_BUSY", 12)
    counting = Counting(tiny_model.backend)
    batch = Batch(counting)
    collect_ids(batch, [batch.add(TokenSequence(list(range(20)), GREEDY))], 1)
    batch.add(TokenSequence([1], GREEDY))
    batch.step()
    counting.calls.clear()
    batch.add(TokenSequence([*range(20), *[3] * 10], GREEDY))
    for _ in range(3):
        batch.step()
    assert counting.calls == [[1, 2], [1, 8], [1, 1]]


def test_a_prompt_that_nobody_waits_for_is_read_at_once(tiny_model):
    counting = Counting(tiny_model.backend)
    batch = Batch(counting, prefill_budget=20)
    running = [batch.add(TokenSequence([number], GREEDY)) for number in range(2)]
    batch.step()
    long = batch.add(TokenSequence(list(range(23)), GREEDY))
    chosen = [[choice.sequence for choice in batch.step()] for _ in range(2)]
    assert counting.calls[1:] == [[1, 1, 20], [1, 1, 3]]
    assert chosen == [running, [*running, long]]


def test_samples_of_one_prompt_cost_one_prefill(tiny_model):
    prompt = list(range(20))
    counting = Counting(tiny_model.backend)
    rows = [TokenSequence(prompt, seed=1, sample=number) for number in range(4)]
    found = generate_ids(counting, rows, 8)
    assert found == [generate_ids(tiny_model.backend, [row], 8)[0] for row in rows] and len(set(map(tuple, found))) == 4
    assert counting.calls[:3] == [[20], [1, 1, 1, 1], [1, 1, 1, 1]]
    # Another prompt that shares a part waits for that part, and computes the rest.
    counting.calls.clear()
    rows = [TokenSequence(prompt), TokenSequence([*prompt[:15], 99, 98])]
    assert generate_ids(counting, rows, 8) == [generate_ids(tiny_model.backend, [row], 8)[0] for row in rows]
    assert counting.calls[:2] == [[20], [1, 2]]
