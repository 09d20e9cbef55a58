"""BlockPool that rows take, share and give back, against the whole text computed at once in NumPy."""

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
    """A model whose window takes several blocks, the last of them in part."""
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
    words = [numbers.words(token, hparams.n_vocab) for token in range(len(ids))]
    return [sample.next_token(line, row.sampling, *each) for line, each in zip(logits.astype(np.float32), zip(words))]


def test_rows_that_grow_and_leave_lose_nothing(backend, wide):
    """Of six rows five leave one after the other, and others take their blocks; one goes on past many blocks."""
    weights = tiny.read(wide.weights_path, wide.hparams)
    rows = [TokenSequence(prompt, Sampling(), seed=3, sample=number) for number, prompt in enumerate(PROMPTS)]
    batch = Batch(backend)
    ids = {batch.add(row): [] for row in rows}
    used = []
    for leaving, steps in ((0, 20), (5, 30), (1, 60), (3, 40), (4, 60), (2, 300)):
        for _ in range(steps):
            for choice in batch.step():
                ids[choice.sequence].append(choice.id)
        used.append(batch.pool.n_used)
        batch.remove(leaving)
    assert 505 < len(ids[2]) <= 510 and max(used) > used[0] and batch.pool.n_used == len(batch.prefixes.nodes)
    for row, written in zip(rows, ids.values()):
        assert written == expected(weights, wide.hparams, row, written)


def test_rows_that_begin_alike_go_their_own_ways(backend, wide):
    """What they begin with is computed for one of them, and shared or copied by the others, in several blocks."""
    weights = tiny.read(wide.weights_path, wide.hparams)
    for prompt in (PROMPTS[4], list(range(2 * BLOCK_SLOTS)), list(range(200))):
        rows = [TokenSequence(prompt, Sampling(), seed=3, sample=number) for number in range(4)] + [
            TokenSequence(prompt[: len(prompt) // 2])
        ]
        ids = generate_ids(backend, rows, 15)
        assert len({tuple(row) for row in ids}) == 5
        for row, written in zip(rows, ids):
            assert written == expected(weights, wide.hparams, row, written)


def test_what_they_share_is_in_memory_once(backend):
    prompt = [slot % 250 for slot in range(3 * BLOCK_SLOTS + 10)]
    batch = Batch(backend)
    numbers = [batch.add(TokenSequence(prompt, seed=1, sample=number)) for number in range(4)]
    collect_ids(batch, numbers[:1], 2)
    assert batch.pool.n_used == 3 + 4  # the last block of each, one of which the store has from the row that is gone
    collect_ids(batch, numbers[1:], 2)
    assert batch.pool.n_used == len(batch.prefixes.nodes) == 4


def widened(weights):
    """Narrow weights as float32 matrices [I, O] and wte [V, E]."""
    if isinstance(weights, NarrowMatrix):
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
    blocks = backend.new_pool()
    owned = [rows_blocks(blocks, len(prompt) + 3) for prompt in PROMPTS]
    found = [backend.extend(blocks, [Segment(own, 0, prompt) for own, prompt in zip(owned, PROMPTS)]).values]
    next_ids = np.arange(3 * len(PROMPTS)).reshape(3, -1)
    for i, ids in enumerate(next_ids):
        steps = [Segment(own, len(prompt) + i, [token]) for own, prompt, token in zip(owned, PROMPTS, ids)]
        found.append(backend.extend(blocks, steps).values)
    for row, prompt in enumerate(PROMPTS):
        exact = reference.logits(weights, wide.hparams, [*prompt, *next_ids[:, row]])[len(prompt) - 1 :]
        np.testing.assert_allclose([logits[row] for logits in found], exact, rtol=0, atol=1e-3)


def rows_blocks(blocks, slots):
    """BlockPool for so many slots, not in the order of their numbers."""
    return [blocks.allocate() for _ in range(blocks_for(slots))][::-1]


def test_pieces_of_every_kind_in_one_call(backend, wide):
    """Steps, whole prompts and parts of prompts, up to the very end of the window; of some many logits are wanted."""
    weights, n_ctx = tiny.read(wide.weights_path, wide.hparams), wide.hparams.n_ctx
    ids = np.random.default_rng(1).integers(wide.hparams.n_vocab, size=(4, n_ctx))
    blocks = backend.new_pool()
    owned = [rows_blocks(blocks, n_ctx) for _ in ids]
    exact = [reference.logits(weights, wide.hparams, row) for row in ids]
    starts = np.zeros(4, int)
    for counts, wanted in (
        ([590, 1, 70, 0], [1, 1, 1, 0]),
        ([9, 0, 1, 64], [9, 0, 0, 64]),
        ([1, 64, 1, 1], [1, 2, 1, 1]),
        ([0, 1, 300, 63], [0, 1, 3, 0]),
        ([0, 60, 1, 30], [0, 60, 1, 2]),
    ):
        fed = [
            (Segment(own, start, row[start : start + count], n), whole[start + count - n : start + count])
            for own, start, row, count, n, whole in zip(owned, starts, ids, counts, wanted, exact)
            if count
        ]
        logits, log_totals = backend.extend(blocks, [piece for piece, _ in fed])
        expected = np.concatenate([lines for _, lines in fed])
        np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-5)
        np.testing.assert_allclose(log_totals, np.log(np.exp(expected).sum(axis=1)), rtol=0, atol=2e-5)
        starts += counts


@pytest.mark.parametrize(
    "piece, said",
    [
        (Segment([0, 1], 0, []), "counts must be"),
        (Segment([0, 1], 0, [1], 2), "counts must be"),
        (Segment([0, 1], 0, [1], -1), "counts must be"),
        (Segment([0, 1], -1, [1]), "positions out of range"),
        (Segment([0, 1], 2 * BLOCK_SLOTS, [1]), "positions out of range"),
        (Segment([0, 1], 2 * BLOCK_SLOTS - 1, [1, 2]), "positions out of range"),
        (Segment([0] * 10, 600, [1]), "positions out of range"),
        (Segment([0, 99], BLOCK_SLOTS, [1]), "blocks out of range"),
        (Segment([-1, 1], 0, [1]), "blocks out of range"),
        (Segment([0, 1], 0, [10_000]), "ids outside the vocabulary"),
        (Segment([0, 1], 0, [-1]), "ids outside the vocabulary"),
    ],
)
def test_what_would_leave_the_cache_is_refused(backend, piece, said):
    """And the row beside it is not fed either."""
    blocks = backend.new_pool()
    own, other = rows_blocks(blocks, 2 * BLOCK_SLOTS), rows_blocks(blocks, BLOCK_SLOTS)
    backend.extend(blocks, [Segment(own, 0, [5, 6, 7]), Segment(other, 0, [5, 6, 7])])
    before = backend.extend(blocks, [Segment(other, 3, [8])]).values
    with pytest.raises(ValueError, match=said):
        backend.extend(blocks, [Segment(other, 3, [9]), piece])
    np.testing.assert_array_equal(backend.extend(blocks, [Segment(other, 3, [8])]).values, before)


def test_a_step_writes_into_its_own_blocks_alone(backend):
    blocks = backend.new_pool()
    rows = [rows_blocks(blocks, 8) for _ in range(3)]
    backend.extend(blocks, [Segment(row, 0, [5, 6, 7]) for row in rows])
    before = backend.extend(blocks, [Segment(rows[0], 3, [8])]).values
    backend.extend(blocks, [Segment(rows[1], 3, [9])])
    np.testing.assert_array_equal(backend.extend(blocks, [Segment(rows[0], 3, [8])]).values, before)


def test_a_copy_is_a_block_of_its_own(backend):
    blocks = backend.new_pool()
    (first,) = rows_blocks(blocks, 8)
    backend.extend(blocks, [Segment([first], 0, [5, 6, 7])])
    second = blocks.copy_block(first)
    before = backend.extend(blocks, [Segment([first], 3, [8])]).values
    np.testing.assert_array_equal(backend.extend(blocks, [Segment([second], 3, [8])]).values, before)
    backend.extend(blocks, [Segment([second], 0, [1, 2, 3])])
    np.testing.assert_array_equal(backend.extend(blocks, [Segment([first], 3, [8])]).values, before)


def test_blocks_are_taken_again_before_new_ones_are_made(backend):
    blocks = backend.new_pool()
    numbers = [blocks.allocate() for _ in range(9)]
    assert numbers == list(range(9)) and blocks.n_used == 9
    blocks.share([3])
    blocks.release([3, 5, 7])
    assert blocks.n_used == 7
    assert [blocks.allocate() for _ in range(3)] == [5, 7, 9]
    blocks.release([3])
    assert blocks.allocate() == 3


def test_memory_that_nobody_uses_is_given_back(native, wide, monkeypatch):
    """All but a little, whatever was taken before; and what is in use stays."""
    backend = load_backend(wide)
    monkeypatch.setattr("gpt2.engine.kv_cache.MIN_SPARE_BYTES", 3 * backend.block_bytes)
    blocks = backend.new_pool()
    numbers = [blocks.allocate() for _ in range(20)]
    assert all(map(blocks.has_memory, numbers))
    backend.extend(blocks, [Segment([19], 0, [5, 6, 7])])
    before = backend.extend(blocks, [Segment([19], 3, [8])]).values
    blocks.release(numbers[:19])
    assert [number for number in numbers if blocks.has_memory(number)] == [0, 1, 2, 19] and blocks.n_spare == 3
    np.testing.assert_array_equal(backend.extend(blocks, [Segment([19], 3, [8])]).values, before)
    with pytest.raises(ValueError, match="blocks out of range"):
        backend.extend(blocks, [Segment([18], 0, [8])])
    assert [blocks.allocate() for _ in range(5)] == [0, 1, 2, 3, 4] and blocks.n_spare == 0
    for _ in range(BLOCK_SLOTS):  # steps of two rows until they need two
        blocks.reserve(2, n_slots=2)
    assert blocks.has_memory(5) and blocks.n_spare == 2 and blocks.allocate() == 5


def test_memory_is_kept_while_as_many_blocks_are_in_use(native, wide, monkeypatch):
    """Rows that come and go find what others have left."""
    backend = load_backend(wide)
    monkeypatch.setattr("gpt2.engine.kv_cache.MIN_SPARE_BYTES", 3 * backend.block_bytes)
    blocks = backend.new_pool()
    numbers = [blocks.allocate() for _ in range(20)]
    blocks.release(numbers[:10])
    assert all(map(blocks.has_memory, numbers)) and blocks.n_spare == 10
    blocks.release(numbers[10:14])
    assert blocks.n_used == 6 and blocks.n_spare == 6
    blocks.release(numbers[14:])
    assert blocks.n_used == 0 and blocks.n_spare == 3


def test_memory_that_cannot_be_made_ready_ahead_ends_no_step(backend, monkeypatch):
    """It may yet be had when a row needs it."""
    row = TokenSequence([1, 2, 3], seed=3)
    expected = generate_ids(backend, [row], BLOCK_SLOTS + 20)
    batch, calls = Batch(backend), []

    def strike(*arguments):
        calls.append(arguments)
        raise MemoryError

    monkeypatch.setattr(batch.pool, "reserve", strike)
    assert collect_ids(batch, [batch.add(row)], BLOCK_SLOTS + 20) == expected and calls
