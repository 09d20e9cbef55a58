"""The prefixes that the cache finds, compared with a list of everything that was inserted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2.engine import kv_cache
from gpt2.engine.kv_cache import MIN_SHARED_IDS, BlockPool, PrefixCache, blocks_for, common_prefix_length

BLOCK_SLOTS = 8  # so that short lists of ids take several blocks


class RecordingPool(BlockPool):
    """A pool that records the ids written into its blocks."""

    def __init__(self):
        super().__init__(block_bytes=1)
        self.ids = {}

    def has_memory(self, block):
        return block in self.ids

    def provide_memory(self, block, max_bytes=None):
        self.ids[block] = [None] * BLOCK_SLOTS

    def discard_memory(self, block):
        """Do nothing."""

    def write(self, ids):
        """Return a sequence's blocks, which hold these ids followed by -1."""
        owned = [self.allocate() for _ in range(-(-len(ids) // BLOCK_SLOTS))]
        padded = [*ids, *[-1] * (len(owned) * BLOCK_SLOTS - len(ids))]
        for i, block in enumerate(owned):
            self.ids[block] = padded[i * BLOCK_SLOTS : (i + 1) * BLOCK_SLOTS]
        return owned


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(kv_cache, "BLOCK_SLOTS", BLOCK_SLOTS)


def new_cache(max_blocks=1000):
    return PrefixCache(RecordingPool(), max_blocks)  # a block has one byte


def insert(cache, ids):
    """Insert ids as a sequence does that computes them and leaves."""
    owned = cache.pool.write(ids)
    cache.insert(np.array(ids, np.int32), owned)
    cache.pool.release(owned)


def find(cache, ids):
    """Return how many of the ids are cached, and check the content of their blocks."""
    match = cache.find(np.array(ids, np.int32))
    blocks = match.blocks if match.partial_block is None else [*match.blocks, match.partial_block]
    content = [token for block in blocks for token in cache.pool.ids[block]]
    assert content[: match.n_slots] == list(ids[: match.n_slots]) and match.n_slots < len(ids)
    assert len(match.blocks) == (
        match.n_slots // BLOCK_SLOTS if match.partial_block is None else (match.n_slots - 1) // BLOCK_SLOTS
    )
    cache.pool.release(blocks)
    return match.n_slots


def test_prefixes_of_a_text_are_found():
    cache = new_cache()
    text = list(range(22))
    assert find(cache, text) == 0
    insert(cache, text)
    assert find(cache, [*text, 7]) == 22
    assert find(cache, text) == 21  # the last id has to be computed
    assert find(cache, text[:13]) == 12
    assert find(cache, [*text[:13], 99, 98]) == 13
    assert find(cache, text[:12]) == 8  # three further ids are too few to be copied
    insert(cache, [*text, 7, 8])
    assert len(cache.nodes) == cache.pool.n_used == 3  # the last block was replaced by the longer one


def test_least_recently_used_blocks_are_forgotten_first():
    cache = new_cache(max_blocks=4)
    first, second = list(range(16)), list(range(100, 116))
    insert(cache, first)
    insert(cache, second)
    assert find(cache, [*first, 1]) == find(cache, [*second, 1]) == 16
    assert find(cache, [*first, 1]) == 16
    insert(cache, [1, 2, 3, 4, 5])
    assert (
        find(cache, [*first, 1]) == 16 and find(cache, [*second, 1]) == 8
    )  # its second block is forgotten, not the first
    cache.clear()
    assert find(cache, [*first, 1]) == cache.pool.n_used == len(cache.root.children) == 0


def test_a_user_of_a_forgotten_block_keeps_it():
    cache = new_cache()
    insert(cache, list(range(20)))
    match = cache.find(np.arange(30, dtype=np.int32))
    cache.clear()
    assert cache.pool.n_used == 3 and cache.pool.ids[match.blocks[0]] == list(range(8))


def test_a_cache_without_space_retains_nothing():
    cache = new_cache(max_blocks=0)
    insert(cache, list(range(20)))
    assert cache.pool.n_used == 0 and find(cache, list(range(20))) == 0


texts = st.lists(st.integers(0, 1), min_size=1, max_size=40)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.booleans(), texts), max_size=12), st.sampled_from([3, 1000]))
def test_the_longest_prefix_is_found(program, max_blocks):
    """Unless it was forgotten. The texts have only two ids, so that many of them share a prefix."""
    cache = new_cache(max_blocks)
    inserted = []
    for is_inserted, ids in program:
        if is_inserted:
            insert(cache, ids)
            inserted.append(np.array(ids))
        slots = find(cache, ids)
        longest = max((common_prefix_length(np.array(ids), other) for other in inserted), default=0)
        longest = min(longest, len(ids) - 1)
        expected = longest if longest % BLOCK_SLOTS >= MIN_SHARED_IDS else longest // BLOCK_SLOTS * BLOCK_SLOTS
        assert slots <= longest
        if max_blocks > 500:
            assert slots >= expected
        assert cache.pool.n_used == len(cache.nodes) <= max_blocks
    cache.clear()
    assert not cache.pool.n_used


def test_blocks_for_slots():
    assert [blocks_for(slots) for slots in (0, 1, kv_cache.BLOCK_SLOTS, kv_cache.BLOCK_SLOTS + 1)] == [0, 1, 1, 2]
