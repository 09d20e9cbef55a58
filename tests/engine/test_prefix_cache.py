"""What the store says of ids, against a list of all that it was told."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2.engine import kv_cache
from gpt2.engine import kv_cache as prefixes_module
from gpt2.engine.kv_cache import MIN_SHARED_IDS, BlockPool, PrefixCache, blocks_for, common_prefix_length

BLOCK_SLOTS = 8  # so that short lists of ids take several blocks


class Written(BlockPool):
    """BlockPool of which one remembers what was written into them."""

    def __init__(self):
        super().__init__(block_bytes=1)
        self.ids = {}

    def has_memory(self, number):
        return number in self.ids

    def provide_memory(self, number, most=None):
        self.ids[number] = [None] * BLOCK_SLOTS

    def discard_memory(self, number):
        """Nothing."""

    def write(self, ids):
        """A row's blocks, which hold these ids and after them the id -1."""
        owned = [self.allocate() for _ in range(-(-len(ids) // BLOCK_SLOTS))]
        padded = [*ids, *[-1] * (len(owned) * BLOCK_SLOTS - len(ids))]
        for place, number in enumerate(owned):
            self.ids[number] = padded[place * BLOCK_SLOTS : (place + 1) * BLOCK_SLOTS]
        return owned


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(prefixes_module, "BLOCK_SLOTS", BLOCK_SLOTS)


def stored(size=1000):
    return PrefixCache(Written(), size)


def keep(store, ids):
    """What a row does that computes ids and leaves."""
    owned = store.pool.write(ids)
    store.insert(np.array(ids, np.int32), owned)
    store.pool.release(owned)


def find(store, ids):
    """How many of the ids are known, after a look at what is in the blocks."""
    found = store.find(np.array(ids, np.int32))
    blocks = found.blocks if found.partial_block is None else [*found.blocks, found.partial_block]
    content = [token for number in blocks for token in store.pool.ids[number]]
    assert content[: found.n_slots] == list(ids[: found.n_slots]) and found.n_slots < len(ids)
    assert len(found.blocks) == (
        found.n_slots // BLOCK_SLOTS if found.partial_block is None else (found.n_slots - 1) // BLOCK_SLOTS
    )
    store.pool.release(blocks)
    return found.n_slots


def test_a_text_and_one_word_more():
    store = stored()
    text = list(range(22))
    assert find(store, text) == 0
    keep(store, text)
    assert find(store, [*text, 7]) == 22
    assert find(store, text) == 21  # the last one has to be computed
    assert find(store, text[:13]) == 12
    assert find(store, [*text[:13], 99, 98]) == 13
    assert find(store, text[:12]) == 8  # three more are too few to be copied
    keep(store, [*text, 7, 8])
    assert len(store.nodes) == store.pool.n_used == 3  # the last block was replaced by the longer one


def test_what_was_used_longest_ago_is_forgotten_first():
    store = stored(size=4)
    first, second = list(range(16)), list(range(100, 116))
    keep(store, first)
    keep(store, second)
    assert find(store, [*first, 1]) == find(store, [*second, 1]) == 16
    assert find(store, [*first, 1]) == 16
    keep(store, [1, 2, 3, 4, 5])
    assert find(store, [*first, 1]) == 16 and find(store, [*second, 1]) == 8  # its end, not its beginning
    store.clear()
    assert find(store, [*first, 1]) == store.pool.n_used == len(store.root.children) == 0


def test_a_row_that_uses_a_block_keeps_it_though_it_is_forgotten():
    store = stored()
    keep(store, list(range(20)))
    found = store.find(np.arange(30, dtype=np.int32))
    store.clear()
    assert store.pool.n_used == 3 and store.pool.ids[found.blocks[0]] == list(range(8))


def test_a_store_for_nothing_keeps_nothing():
    store = stored(size=0)
    keep(store, list(range(20)))
    assert store.pool.n_used == 0 and find(store, list(range(20))) == 0


texts = st.lists(st.integers(0, 1), min_size=1, max_size=40)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.booleans(), texts), max_size=12), st.sampled_from([3, 1000]))
def test_the_longest_beginning_is_found(program, size):
    """As long as none is forgotten; of two ids alone, so that much begins alike."""
    store, told = stored(size), []
    for is_kept, ids in program:
        if is_kept:
            keep(store, ids)
            told.append(np.array(ids))
        slots = find(store, ids)
        longest = min(max((common_prefix_length(np.array(ids), other) for other in told), default=0), len(ids) - 1)
        expected = longest if longest % BLOCK_SLOTS >= MIN_SHARED_IDS else longest // BLOCK_SLOTS * BLOCK_SLOTS
        assert slots <= longest
        if size > 500:
            assert slots >= expected
        assert store.pool.n_used == len(store.nodes) <= size
    store.clear()
    assert not store.pool.n_used


def test_blocks_for_slots():
    assert [blocks_for(slots) for slots in (0, 1, kv_cache.BLOCK_SLOTS, kv_cache.BLOCK_SLOTS + 1)] == [0, 1, 1, 2]
