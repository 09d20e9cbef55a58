"""Batches compared with slow generation, which runs the whole text through the model for every token, op by op."""

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
def single(tiny_model):
    """Return 60 ids of each sequence, generated in a batch of its own."""
    return [generate_ids(tiny_model.backend, [sequence], 60)[0] for sequence in SEQUENCES]


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_cached_ids_equal_slowly_generated_ids(tiny_model, sequence):
    """The window of 32 slides several times in 90 tokens."""
    assert generate_ids(tiny_model.backend, [sequence], 90) == [generate_slowly(tiny_model.backend, sequence, 90)]


def test_ragged_sequences_have_the_same_ids_in_one_batch(tiny_model, single):
    assert generate_ids(tiny_model.backend, SEQUENCES, 60) == single
    assert generate_ids(tiny_model.backend, SEQUENCES[::-1], 60) == single[::-1]


def test_compiled_and_eager_ids_are_equal(tiny_model, oracle):
    assert generate_ids(tiny_model.backend, SEQUENCES, 40) == generate_ids(oracle, SEQUENCES, 40)


def test_sequences_join_and_leave(tiny_model, single):
    """The sequences join one after another, and two leave early."""
    batch = Batch(tiny_model.backend)
    ids_of = {}
    for number, sequence in enumerate(SEQUENCES):
        assert batch.add(sequence) == number
        ids_of[number] = []
        for _ in range(3 * number):
            for choice in batch.step():
                ids_of[choice.sequence].append(choice.id)
        if number in (1, 4):
            batch.remove(number)
    while min(len(ids_of[number]) for number in batch.sequences) < 60:
        for choice in batch.step():
            ids_of[choice.sequence].append(choice.id)
    for number, new in ids_of.items():
        assert new[:60] == single[number][: len(new)]
    assert len(ids_of[1]) < 60 and len(ids_of[4]) < 60


def test_a_rejected_sequence_does_not_affect_others(tiny_model, single):
    batch = Batch(tiny_model.backend)
    numbers = [batch.add(sequence) for sequence in SEQUENCES]
    for prompt in ([], [-1], [10_000]):
        with pytest.raises(UsageError, match="at least one id, all from 0 to"):
            batch.add(TokenSequence(prompt))
    with pytest.raises(UsageError, match="logit_bias takes ids from 0 to"):
        batch.add(TokenSequence([1], Sampling(logit_bias={3: 1, 10_000: 1})))
    assert collect_ids(batch, numbers, 60) == single


@pytest.mark.parametrize("max_blocks", [0, 1, 2, 3])
def test_sequences_wait_for_blocks(tiny_model, single, max_blocks):
    """Each sequence takes one block, and if there is none for it, it runs alone."""
    batch = Batch(tiny_model.backend, max_blocks=max_blocks)
    numbers = [batch.add(sequence) for sequence in SEQUENCES]
    max_admitted = 0
    ids_of = {number: [] for number in numbers}
    while batch:
        for choice in batch.step():
            ids_of[choice.sequence].append(choice.id)
            if len(ids_of[choice.sequence]) == 60:
                batch.remove(choice.sequence)
        max_admitted = max(max_admitted, sum(sequence.is_admitted for sequence in batch.sequences.values()))
    assert list(ids_of.values()) == single
    assert max_admitted == max(1, max_blocks)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("where", ["extend", "after", "random_words", "allocate", "copy_block", "insert"])
def test_an_interrupted_step_can_be_repeated(tiny_model, single, monkeypatch, error, where):
    """A third of the calls fail: before or after the cache is written, or while random words are drawn."""
    backend = CountingBackend(tiny_model.backend)
    batch = Batch(backend)
    owner = {"allocate": batch.pool, "copy_block": batch.pool, "insert": batch.prefixes}.get(where, backend)
    name = "extend" if where == "after" else where
    function = getattr(owner, name)
    calls = []
    rng = random.Random(1)

    def interrupt(*arguments):
        calls.append(name)
        if len(calls) == 1 or rng.random() < 1 / 3:  # not every third call: a step may need three
            if where == "after":
                function(*arguments)
            raise error
        return function(*arguments)

    monkeypatch.setattr(owner, name, interrupt, raising=False)
    ids_of = {batch.add(sequence): [] for sequence in SEQUENCES}
    while batch:
        try:
            choices = batch.step()
        except error:
            continue
        for choice in choices:
            ids_of[choice.sequence].append(choice.id)
            if len(ids_of[choice.sequence]) == 60:
                batch.remove(choice.sequence)
    assert list(ids_of.values()) == single and len(calls) > (0 if where == "copy_block" else 5)
    assert batch.pool.n_used == len(batch.prefixes.nodes)  # the prefix cache holds all used blocks


def test_a_choice_is_returned_after_an_interruption_that_followed_it(tiny_model, single, monkeypatch):
    batch = Batch(tiny_model.backend)
    numbers = [batch.add(sequence) for sequence in SEQUENCES[:3]]
    ids_of = {number: [] for number in numbers}
    third = batch.sequences[2]
    append = third.append

    def interrupt_once(choice):
        if len(third.choices) == 5 and not interrupt_once.done:
            interrupt_once.done = True
            raise KeyboardInterrupt
        append(choice)

    interrupt_once.done = False
    monkeypatch.setattr(third, "append", interrupt_once)
    while min(map(len, ids_of.values())) < 20:
        try:
            for choice in batch.step():
                ids_of[choice.sequence].append(choice.id)
        except KeyboardInterrupt:
            assert interrupt_once.done
    assert [ids_of[number][:20] for number in numbers] == [ids[:20] for ids in single[:3]]


def test_the_cache_is_written_in_place(small_model):
    """A step keeps the memory of the cache and makes no copy of it."""
    batch = Batch(small_model.backend)
    batch.add(TokenSequence([15496, 11]))
    batch.step()
    before = [memoryview(tensor) for tensor in batch.pool.tensors]
    batch.step()
    for old, new in zip(before, batch.pool.tensors):
        assert np.shares_memory(np.asarray(old), np.asarray(memoryview(new)))


@pytest.mark.parametrize("number", range(5))
def test_greedy_ids_equal_the_originals(small_model, number):
    sequence = TokenSequence(GOLDEN["tokens"][number], GREEDY)
    assert generate_ids(small_model.backend, [sequence], 40) == [GOLDEN["greedy"][number]]


def test_greedy_ids_of_all_prompts_in_one_batch_equal_the_originals(small_model):
    sequences = [TokenSequence(tokens, GREEDY) for tokens in GOLDEN["tokens"]]
    assert generate_ids(small_model.backend, sequences, 40) == GOLDEN["greedy"]


def test_one_trace_serves_every_length(tiny_model):
    backend = TensorFlowBackend(tiny_model.backend.weights, tiny_model.hparams)
    for length, batch_size in ((1, 1), (7, 1), (30, 3)):
        generate_ids(backend, [TokenSequence(list(range(length)))] * batch_size, 40)
    assert [f.experimental_get_tracing_count() for f in (backend.forward, backend.write)] == [1, 1]


def log_softmax(logits):
    logits = np.float64(logits)
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


def test_a_choice_has_log_probabilities(small_model):
    """They are those of the model's own logits, before bias and filters; the top ids are in descending order."""
    prompt = GOLDEN["tokens"][0]
    batch = Batch(small_model.backend)
    batch.add(TokenSequence(prompt, Sampling(temperature=2, top_k=5, logit_bias={11: 3}), seed=1, top_logprobs=3))
    (choice,) = batch.step()
    pool = small_model.backend.new_pool()
    segments = [batch_module.Segment([pool.allocate() for _ in range(-(-len(prompt) // BLOCK_SLOTS))], 0, prompt)]
    expected = log_softmax(small_model.backend.extend(pool, segments).values[0])
    np.testing.assert_allclose(choice.logprob, expected[choice.id], atol=1e-5)
    assert [token for token, _ in choice.top_logprobs] == np.argsort(-expected)[:3].tolist()
    np.testing.assert_allclose([logprob for _, logprob in choice.top_logprobs], np.sort(expected)[:-4:-1], atol=1e-5)


@pytest.mark.parametrize("chunk_ids", [3, 16, 1000])
def test_an_echoed_prompt_has_log_probabilities(tiny_model, monkeypatch, chunk_ids):
    """The prompt is computed in chunks, although it is in the prefix cache from another sequence."""
    monkeypatch.setattr(batch_module, "ECHO_CHUNK_IDS", chunk_ids)
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
    assert first is None and [choice.id for choice in rest] == prompt[1:]
    logits, _, _ = model.model(tiny_model.backend.weights, tiny_model.hparams, np.array([prompt], np.int32))
    for choice, position_logits in zip(rest, logits[0].numpy()):
        expected = log_softmax(position_logits)
        np.testing.assert_allclose(choice.logprob, expected[choice.id], atol=1e-5)
        assert [token for token, _ in choice.top_logprobs] == np.argsort(-expected)[:2].tolist()


class CountingBackend:
    """A backend that records the number of ids in each segment of each call."""

    def __init__(self, backend):
        self.backend = backend
        self.calls = []

    def __getattr__(self, name):
        return getattr(self.backend, name)

    def extend(self, pool, segments):
        self.calls.append([len(segment.ids) for segment in segments])
        return self.backend.extend(pool, segments)


def test_a_long_prompt_is_prefilled_in_chunks_between_decode_steps(tiny_model, monkeypatch):
    monkeypatch.setattr(batch_module, "MIN_PREFILL_CHUNK", 5)
    monkeypatch.setattr(batch_module, "PREFILL_BUDGET_BUSY", 22)
    counting = CountingBackend(tiny_model.backend)
    batch = Batch(counting)
    running = [batch.add(TokenSequence([number], GREEDY)) for number in range(2)]
    batch.step()
    long = batch.add(TokenSequence(list(range(23)), GREEDY))
    chosen = [[choice.sequence for choice in batch.step()] for _ in range(6)]
    assert counting.calls[1:] == [[1, 1, 5]] * 4 + [[1, 1, 3], [1, 1, 1]]
    assert chosen == [running] * 4 + [[*running, long]] * 2


def test_short_prompts_are_prefilled_together_within_the_budget(tiny_model, monkeypatch):
    monkeypatch.setattr(batch_module, "MIN_PREFILL_CHUNK", 5)
    monkeypatch.setattr(batch_module, "PREFILL_BUDGET_BUSY", 12)
    counting = CountingBackend(tiny_model.backend)
    batch = Batch(counting)
    batch.add(TokenSequence([1], GREEDY))
    batch.step()
    batch.add(TokenSequence(list(range(12)), GREEDY))
    batch.step()
    assert counting.calls[1:] == [[1, 12]]
    batch.add(TokenSequence([5] * 8, GREEDY))
    batch.add(TokenSequence([6] * 20, GREEDY))
    for _ in range(4):
        batch.step()
    assert counting.calls[2:] == [[1, 1, 8, 4], [1, 1, 1, 5], [1, 1, 1, 5], [1, 1, 1, 5]]


def test_the_cached_part_of_a_prompt_does_not_count_as_long(tiny_model, monkeypatch):
    monkeypatch.setattr(batch_module, "MIN_PREFILL_CHUNK", 2)
    monkeypatch.setattr(batch_module, "PREFILL_BUDGET_BUSY", 12)
    counting = CountingBackend(tiny_model.backend)
    batch = Batch(counting)
    collect_ids(batch, [batch.add(TokenSequence(list(range(20)), GREEDY))], 1)
    batch.add(TokenSequence([1], GREEDY))
    batch.step()
    counting.calls.clear()
    batch.add(TokenSequence([*range(20), *[3] * 10], GREEDY))
    for _ in range(3):
        batch.step()
    assert counting.calls == [[1, 2], [1, 8], [1, 1]]


def test_prefill_budget_sets_the_chunk_size(tiny_model):
    counting = CountingBackend(tiny_model.backend)
    batch = Batch(counting, prefill_budget=20)
    running = [batch.add(TokenSequence([number], GREEDY)) for number in range(2)]
    batch.step()
    long = batch.add(TokenSequence(list(range(23)), GREEDY))
    chosen = [[choice.sequence for choice in batch.step()] for _ in range(2)]
    assert counting.calls[1:] == [[1, 1, 20], [1, 1, 3]]
    assert chosen == [running, [*running, long]]


def test_samples_of_one_prompt_share_one_prefill(tiny_model):
    prompt = list(range(20))
    counting = CountingBackend(tiny_model.backend)
    sequences = [TokenSequence(prompt, seed=1, sample=number) for number in range(4)]
    single = [generate_ids(tiny_model.backend, [sequence], 8)[0] for sequence in sequences]
    assert generate_ids(counting, sequences, 8) == single and len(set(map(tuple, single))) == 4
    assert counting.calls[:3] == [[20], [1, 1, 1, 1], [1, 1, 1, 1]]
    # A prompt that shares a prefix with another waits for that prefix and computes only the rest.
    counting.calls.clear()
    sequences = [TokenSequence(prompt), TokenSequence([*prompt[:15], 99, 98])]
    single = [generate_ids(tiny_model.backend, [sequence], 8)[0] for sequence in sequences]
    assert generate_ids(counting, sequences, 8) == single
    assert counting.calls[:2] == [[20], [1, 2]]
