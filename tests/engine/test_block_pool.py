"""Sequences that allocate, share and release blocks, compared with the whole text computed at once in NumPy."""

import numpy as np
import pytest
import tiny
from one_by_one import collect_ids, generate_ids

from gpt2 import sample
from gpt2.engine import reference
from gpt2.engine.backend import Segment
from gpt2.engine.batch import Batch
from gpt2.engine.kv_cache import BLOCK_SLOTS, blocks_for
from gpt2.engine.load import load_backend
from gpt2.engine.token_sequence import TokenSequence
from gpt2.formats.model_dir import open_model_dir
from gpt2.model import NarrowMatrix
from gpt2.request import PRECISIONS, Sampling

PROMPTS = [[1, 2, 3], [250], [7] * 40, [9, 8], [30, 31, 32, 33, 34], [5] * 100]


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Return a model whose window takes several blocks, the last one only partly."""
    return open_model_dir(tiny.write_model(tmp_path_factory.mktemp("models") / "wide", n_ctx=600))


@pytest.fixture(scope="module", params=["native", "tensorflow"])
def backend(request, wide):
    if request.param == "native":
        request.getfixturevalue("native")
    return load_backend(wide, native=request.param == "native")


def expected_ids(weights, hparams, sequence, ids):
    """Return the ids that the sequence's random numbers choose by the reference's logits of the whole text."""
    logits = reference.logits(weights, hparams, [*sequence.prompt, *ids])[len(sequence.prompt) - 1 : -1]
    numbers = sample.RandomNumbers(sequence.seed, sequence.sample)
    words = [numbers.words(token, hparams.n_vocab) for token in range(len(ids))]
    return [sample.next_token(*each) for each in zip(logits.astype(np.float32), [sequence.sampling] * len(ids), words)]


def test_sequences_that_grow_and_leave_keep_their_content(backend, wide):
    """Six sequences leave one after another, and others get their blocks; the last one grows over many blocks."""
    weights = tiny.read(wide.weights_path, wide.hparams)
    sequences = [TokenSequence(prompt, Sampling(), seed=3, sample=number) for number, prompt in enumerate(PROMPTS)]
    batch = Batch(backend)
    ids = {batch.add(sequence): [] for sequence in sequences}
    n_used = []
    for leaving, steps in ((0, 20), (5, 30), (1, 60), (3, 40), (4, 60), (2, 300)):
        for _ in range(steps):
            for choice in batch.step():
                ids[choice.sequence].append(choice.id)
        n_used.append(batch.pool.n_used)
        batch.remove(leaving)
    assert 505 < len(ids[2]) <= 510 and max(n_used) > n_used[0] and batch.pool.n_used == len(batch.prefixes.nodes)
    for sequence, new in zip(sequences, ids.values()):
        assert new == expected_ids(weights, wide.hparams, sequence, new)


def test_sequences_with_a_common_prefix_diverge(backend, wide):
    """The prefix of several blocks is computed for one sequence; the others share or copy it."""
    weights = tiny.read(wide.weights_path, wide.hparams)
    for prompt in (PROMPTS[4], list(range(2 * BLOCK_SLOTS)), list(range(200))):
        sequences = [TokenSequence(prompt, Sampling(), seed=3, sample=number) for number in range(4)]
        sequences.append(TokenSequence(prompt[: len(prompt) // 2]))
        ids = generate_ids(backend, sequences, 15)
        assert len({tuple(new) for new in ids}) == 5
        for sequence, new in zip(sequences, ids):
            assert new == expected_ids(weights, wide.hparams, sequence, new)


def test_shared_blocks_are_in_memory_once(backend):
    prompt = [slot % 250 for slot in range(3 * BLOCK_SLOTS + 10)]
    batch = Batch(backend)
    numbers = [batch.add(TokenSequence(prompt, seed=1, sample=number)) for number in range(4)]
    collect_ids(batch, numbers[:1], 2)
    assert batch.pool.n_used == 3 + 4  # the last block of each; one is cached from the removed sequence
    collect_ids(batch, numbers[1:], 2)
    assert batch.pool.n_used == len(batch.prefixes.nodes) == 4


def to_float32(weights):
    """Convert narrow weights to float32: matrices [I, O] and wte [V, E]."""
    if isinstance(weights, NarrowMatrix):
        return np.asarray(weights.values, np.float32) * np.asarray(weights.scale)[:, None]
    if isinstance(weights, dict):
        converted = {name: to_float32(value) for name, value in weights.items()}
        return {name: value.T if name == "w" else value for name, value in converted.items()}
    return weights


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_ragged_sequences_in_narrow_precisions(wide, precision):
    """TensorFlow's backend prefills them together, then decodes step by step; NumPy computes each one by itself."""
    backend = load_backend(wide, precision, native=False)
    weights = {name: to_float32(part) for name, part in backend.weights.items()}
    pool = backend.new_pool()
    owned = [allocate(pool, len(prompt) + 3) for prompt in PROMPTS]
    logits = [backend.extend(pool, [Segment(blocks, 0, prompt) for blocks, prompt in zip(owned, PROMPTS)]).values]
    next_ids = np.arange(3 * len(PROMPTS)).reshape(3, -1)
    for i, ids in enumerate(next_ids):
        steps = [Segment(blocks, len(prompt) + i, [token]) for blocks, prompt, token in zip(owned, PROMPTS, ids)]
        logits.append(backend.extend(pool, steps).values)
    for i, prompt in enumerate(PROMPTS):
        exact = reference.logits(weights, wide.hparams, [*prompt, *next_ids[:, i]])[len(prompt) - 1 :]
        np.testing.assert_allclose([step_logits[i] for step_logits in logits], exact, rtol=0, atol=1e-3)


def allocate(pool, n_slots):
    """Return blocks for this number of slots, in descending order of their numbers."""
    return [pool.allocate() for _ in range(blocks_for(n_slots))][::-1]


def test_segments_of_every_kind_in_one_call(backend, wide):
    """Decode steps, whole prompts and chunks, up to the end of the window; some segments need many logits."""
    weights = tiny.read(wide.weights_path, wide.hparams)
    n_ctx = wide.hparams.n_ctx
    ids = np.random.default_rng(1).integers(wide.hparams.n_vocab, size=(4, n_ctx))
    pool = backend.new_pool()
    owned = [allocate(pool, n_ctx) for _ in ids]
    exact = [reference.logits(weights, wide.hparams, text) for text in ids]
    starts = np.zeros(4, int)
    for counts, n_logits in (
        ([590, 1, 70, 0], [1, 1, 1, 0]),
        ([9, 0, 1, 64], [9, 0, 0, 64]),
        ([1, 64, 1, 1], [1, 2, 1, 1]),
        ([0, 1, 300, 63], [0, 1, 3, 0]),
        ([0, 60, 1, 30], [0, 60, 1, 2]),
    ):
        segments = [
            (Segment(blocks, start, text[start : start + count], n), whole[start + count - n : start + count])
            for blocks, start, text, count, n, whole in zip(owned, starts, ids, counts, n_logits, exact)
            if count
        ]
        logits, log_totals = backend.extend(pool, [segment for segment, _ in segments])
        expected = np.concatenate([segment_logits for _, segment_logits in segments])
        np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-5)
        np.testing.assert_allclose(log_totals, np.log(np.exp(expected).sum(axis=1)), rtol=0, atol=2e-5)
        starts += counts


@pytest.mark.parametrize(
    "segment, message",
    [
        (Segment([0, 1], 0, []), "at least one id, and at most as many"),
        (Segment([0, 1], 0, [1], 2), "at least one id, and at most as many"),
        (Segment([0, 1], 0, [1], -1), "at least one id, and at most as many"),
        (Segment([0, 1], -1, [1]), "positions exceed its blocks or the window"),
        (Segment([0, 1], 2 * BLOCK_SLOTS, [1]), "positions exceed its blocks or the window"),
        (Segment([0, 1], 2 * BLOCK_SLOTS - 1, [1, 2]), "positions exceed its blocks or the window"),
        (Segment([0] * 10, 600, [1]), "positions exceed its blocks or the window"),
        (Segment([0, 99], BLOCK_SLOTS, [1]), "a block that the cache does not have"),
        (Segment([-1, 1], 0, [1]), "a block that the cache does not have"),
        (Segment([0, 1], 0, [10_000]), "an id outside the vocabulary"),
        (Segment([0, 1], 0, [-1]), "an id outside the vocabulary"),
    ],
)
def test_a_segment_outside_the_cache_is_rejected(backend, segment, message):
    """The valid segment of the same call is not computed either."""
    pool = backend.new_pool()
    blocks, other = allocate(pool, 2 * BLOCK_SLOTS), allocate(pool, BLOCK_SLOTS)
    backend.extend(pool, [Segment(blocks, 0, [5, 6, 7]), Segment(other, 0, [5, 6, 7])])
    before = backend.extend(pool, [Segment(other, 3, [8])]).values
    with pytest.raises(ValueError, match=message):
        backend.extend(pool, [Segment(other, 3, [9]), segment])
    np.testing.assert_array_equal(backend.extend(pool, [Segment(other, 3, [8])]).values, before)


def test_a_step_writes_only_into_its_own_blocks(backend):
    pool = backend.new_pool()
    owned = [allocate(pool, 8) for _ in range(3)]
    backend.extend(pool, [Segment(blocks, 0, [5, 6, 7]) for blocks in owned])
    before = backend.extend(pool, [Segment(owned[0], 3, [8])]).values
    backend.extend(pool, [Segment(owned[1], 3, [9])])
    np.testing.assert_array_equal(backend.extend(pool, [Segment(owned[0], 3, [8])]).values, before)


def test_a_copied_block_is_independent(backend):
    pool = backend.new_pool()
    (first,) = allocate(pool, 8)
    backend.extend(pool, [Segment([first], 0, [5, 6, 7])])
    second = pool.copy_block(first)
    before = backend.extend(pool, [Segment([first], 3, [8])]).values
    np.testing.assert_array_equal(backend.extend(pool, [Segment([second], 3, [8])]).values, before)
    backend.extend(pool, [Segment([second], 0, [1, 2, 3])])
    np.testing.assert_array_equal(backend.extend(pool, [Segment([first], 3, [8])]).values, before)


def test_released_blocks_are_reused_before_new_ones_are_created(backend):
    pool = backend.new_pool()
    numbers = [pool.allocate() for _ in range(9)]
    assert numbers == list(range(9)) and pool.n_used == 9
    pool.share([3])
    pool.release([3, 5, 7])
    assert pool.n_used == 7
    assert [pool.allocate() for _ in range(3)] == [5, 7, 9]
    pool.release([3])
    assert pool.allocate() == 3


def test_memory_of_unused_blocks_is_discarded(native, wide, monkeypatch):
    """A few spare blocks keep theirs, and used blocks keep their content."""
    backend = load_backend(wide)
    monkeypatch.setattr("gpt2.engine.kv_cache.MIN_SPARE_BYTES", 3 * backend.block_bytes)
    pool = backend.new_pool()
    numbers = [pool.allocate() for _ in range(20)]
    assert all(map(pool.has_memory, numbers))
    backend.extend(pool, [Segment([19], 0, [5, 6, 7])])
    before = backend.extend(pool, [Segment([19], 3, [8])]).values
    pool.release(numbers[:19])
    assert [number for number in numbers if pool.has_memory(number)] == [0, 1, 2, 19] and pool.n_spare == 3
    np.testing.assert_array_equal(backend.extend(pool, [Segment([19], 3, [8])]).values, before)
    with pytest.raises(ValueError, match="a block that the cache does not have"):
        backend.extend(pool, [Segment([18], 0, [8])])
    assert [pool.allocate() for _ in range(5)] == [0, 1, 2, 3, 4] and pool.n_spare == 0
    for _ in range(BLOCK_SLOTS):  # steps of two sequences until they need two blocks
        pool.reserve(2, n_slots=2)
    assert pool.has_memory(5) and pool.n_spare == 2 and pool.allocate() == 5


def test_as_many_spare_blocks_as_used_ones_keep_their_memory(native, wide, monkeypatch):
    """New sequences reuse the memory of those that have left."""
    backend = load_backend(wide)
    monkeypatch.setattr("gpt2.engine.kv_cache.MIN_SPARE_BYTES", 3 * backend.block_bytes)
    pool = backend.new_pool()
    numbers = [pool.allocate() for _ in range(20)]
    pool.release(numbers[:10])
    assert all(map(pool.has_memory, numbers)) and pool.n_spare == 10
    pool.release(numbers[10:14])
    assert pool.n_used == 6 and pool.n_spare == 6
    pool.release(numbers[14:])
    assert pool.n_used == 0 and pool.n_spare == 3


def test_a_failed_reservation_does_not_end_a_step(backend, monkeypatch):
    """There may be memory later, when a sequence needs it."""
    sequence = TokenSequence([1, 2, 3], seed=3)
    expected = generate_ids(backend, [sequence], BLOCK_SLOTS + 20)
    batch = Batch(backend)
    calls = []

    def fail(*arguments):
        calls.append(arguments)
        raise MemoryError

    monkeypatch.setattr(batch.pool, "reserve", fail)
    assert collect_ids(batch, [batch.add(sequence)], BLOCK_SLOTS + 20) == expected and calls
