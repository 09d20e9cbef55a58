"""The key/value cache: a pool of blocks of slots, and an index of the prefixes that the blocks hold.

A sequence allocates blocks when it grows and releases them when it leaves, so that keys and values never move (as in
vLLM's PagedAttention, Kwon et al. 2023). Sequences with a common prefix, such as several samples of one prompt, share
the blocks of that prefix, which are no longer written to (as in SGLang's RadixAttention, Zheng et al. 2024, but split
at block boundaries).

Shapes: T ids of a sequence.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from gpt2 import devices

BLOCK_SLOTS = 128  # slots of a block, one token each
CACHE_MEMORY_SHARE = 0.5  # share of the available memory; the computation also needs memory
MIN_SPARE_BYTES = 64 << 20  # memory of unused blocks that is retained for the next sequences
PREFIX_CACHE_BYTES = 256 << 20  # size of the blocks that a prefix cache retains
MIN_SHARED_IDS = 4  # a shorter common prefix is computed again, which is faster than copying it or waiting for it


def blocks_for(n_slots: int) -> int:
    """Return the number of blocks that hold this number of slots."""
    return -(-n_slots // BLOCK_SLOTS)


class BlockPool:
    """The blocks of a cache and the number of users of each; a backend's subclass provides their memory.

    The pool stores nothing else about a block, so that an interruption cannot leave it inconsistent. Threads may share
    a pool.
    """

    def __init__(self, block_bytes: int) -> None:
        """Create a pool without blocks.

        Args:
            block_bytes: Memory of one block.
        """
        self.block_bytes = block_bytes
        self.users: list[int] = []  # number of users of each block
        self.lock = threading.RLock()

    @property
    def n_used(self) -> int:
        """The number of blocks with at least one user."""
        return len(self.users) - self.users.count(0)

    @property
    def n_available(self) -> int:
        """The number of blocks that can still be allocated in the available memory."""
        return int(CACHE_MEMORY_SHARE * devices.available_memory() / self.block_bytes) + self.n_spare

    @property
    def n_spare(self) -> int:
        """The number of blocks that have memory and no user."""
        return len(self._spare_blocks())

    def allocate(self) -> int:
        """Return the number of an unused block; the caller becomes its first user.

        Raises:
            MemoryError: There is no memory for another block.
        """
        with self.lock:
            block = self._find_unused(with_memory=True)
            self.provide_memory(block)
            self.users[block] = 1
            return block

    def reserve(self, n_blocks: int, n_slots: int) -> None:
        """Prepare memory for another block in advance, unless there are enough spare blocks.

        Touching the new memory of one or two blocks takes as long as a step, and sequences that started together need
        their next blocks in the same step. Preparing a few slots in each step spreads that time.

        Args:
            n_blocks: Number of blocks that will be needed soon.
            n_slots: Number of slots of a block to touch now.

        Raises:
            MemoryError: There is no memory for another block.
        """
        with self.lock:
            if self.n_spare < n_blocks:
                block = self._find_unused(with_memory=False)
                self.provide_memory(block, n_slots * self.block_bytes // BLOCK_SLOTS)

    def _find_unused(self, with_memory: bool) -> int:
        """Return an unused block, and append one if needed.

        Args:
            with_memory: Whether a block with memory is preferred. If False, the block has no memory.
        """
        unused = [block for block, users in enumerate(self.users) if not users]
        for block in unused:
            if self.has_memory(block) == with_memory:
                return block
        if unused and with_memory:
            return unused[0]
        self.users.append(0)
        return len(self.users) - 1

    def share(self, blocks: Iterable[int]) -> None:
        """Add a user to each of the blocks."""
        with self.lock:
            for block in blocks:
                self.users[block] += 1

    def release(self, blocks: Iterable[int]) -> None:
        """Remove a user from each of the blocks, and discard the memory of most unused blocks.

        The pool retains the memory of as many unused blocks as there are used ones. Sequences release and allocate
        blocks all the time, and on a busy or virtual machine getting new memory can be slower than a step.
        """
        with self.lock:
            for block in blocks:
                self.users[block] -= 1
            n_retained = max(MIN_SPARE_BYTES // self.block_bytes, self.n_used)
            for block in self._spare_blocks()[n_retained:]:
                self.discard_memory(block)

    def copy_block(self, block: int) -> int:
        """Return a new block with the same content, whose first user is the caller.

        Raises:
            MemoryError: There is no memory for another block.
        """
        with self.lock:
            new = self.allocate()
            try:
                self.copy_memory(block, new)
            except BaseException:
                self.release([new])
                raise
            return new

    def _spare_blocks(self) -> list[int]:
        return [block for block, users in enumerate(self.users) if not users and self.has_memory(block)]

    def has_memory(self, block: int) -> bool:
        """Return whether the block has memory, so that it can be written to."""
        raise NotImplementedError

    def provide_memory(self, block: int, max_bytes: int | None = None) -> None:
        """Provide memory for the block, unless it already has memory.

        Args:
            block: The block's number.
            max_bytes: Number of bytes to touch now; None for all. The block has memory once all bytes are touched.

        Raises:
            MemoryError: There is no memory for the block.
        """
        raise NotImplementedError

    def discard_memory(self, block: int) -> None:
        """Return the block's memory to the system, if the backend supports this."""
        raise NotImplementedError

    def copy_memory(self, source: int, target: int) -> None:
        """Copy the content of one block to another."""
        raise NotImplementedError


class PrefixNode:
    """A block in the tree of prefixes, with its ids and the blocks that continue them."""

    def __init__(self, ids: np.ndarray, block: int, parent: PrefixNode | None) -> None:
        """Create a node without children.

        Args:
            ids: At most BLOCK_SLOTS ids; a node with fewer has no children.
            block: The number of the block, -1 for the root.
            parent: The node before it, None for the root.
        """
        self.ids = ids.copy()
        self.block = block
        self.parent = parent
        self.children: dict[int, list[PrefixNode]] = {}  # first id -> children


class PrefixMatch(NamedTuple):
    """The longest cached prefix of a sequence: whole blocks to share, and the first slots of another block to copy.

    Attributes:
        blocks: Blocks that are shared.
        partial_block: A block whose first slots match, or None.
        n_slots: The length of the prefix, including the matching slots of the partial block.
    """

    blocks: list[int]
    partial_block: int | None
    n_slots: int


class PrefixCache:
    """A cache of the prefixes in a pool's blocks, for all sequences that are computed with the same weights.

    It is a tree whose nodes are blocks. A partly filled block may be extended only by the sequence that it came from;
    other sequences copy it. Threads may share a prefix cache.
    """

    def __init__(self, pool: BlockPool, max_bytes: int = PREFIX_CACHE_BYTES) -> None:
        """Create an empty cache.

        Args:
            pool: The pool of the prefixes' blocks.
            max_bytes: Maximum memory of the retained blocks. The least recently used blocks are removed first.
        """
        self.pool = pool
        self.max_blocks = max_bytes // pool.block_bytes
        self.root = PrefixNode(np.zeros(0, np.int32), -1, None)
        # In the order of their last use; each node comes after the nodes below it.
        self.nodes: OrderedDict[PrefixNode, None] = OrderedDict()

    def find(self, ids: np.ndarray) -> PrefixMatch:
        """Return the longest cached prefix of the ids [T] except the last id, whose logits have to be computed.

        The caller becomes a user of the match's blocks, including the partial one, and must release them.
        """
        with self.pool.lock:
            path: list[PrefixNode] = []
            node = self.root
            n_common = BLOCK_SLOTS
            start = 0
            while n_common == BLOCK_SLOTS:
                node, n_common = _longest_match(node, ids[start : start + BLOCK_SLOTS])
                if n_common < BLOCK_SLOTS or start + BLOCK_SLOTS >= len(ids):
                    break
                path.append(node)
                start += BLOCK_SLOTS
            whole_blocks = [used.block for used in path]
            n_common = min(n_common, len(ids) - 1 - start)
            if n_common < MIN_SHARED_IDS:
                match = PrefixMatch(whole_blocks, None, start)
            else:
                path.append(node)
                match = PrefixMatch(whole_blocks, node.block, start + n_common)
            self._mark_used(path)
            self.pool.share([used.block for used in path])
            return match

    def insert(self, ids: np.ndarray, blocks: Sequence[int]) -> None:
        """Add a prefix that a sequence has computed.

        Args:
            ids: The ids [T] whose keys and values are in the blocks.
            blocks: The sequence's blocks; from now on it writes only to the slots after these ids.
        """
        with self.pool.lock:
            path = []
            node = self.root
            for start, block in zip(range(0, len(ids), BLOCK_SLOTS), blocks):
                node = self._insert_child(node, ids[start : start + BLOCK_SLOTS], block)
                path.append(node)
                if len(node.ids) < BLOCK_SLOTS:
                    break
            self._mark_used(path)
            while len(self.nodes) > self.max_blocks:
                self._remove_least_recent()

    def clear(self) -> None:
        """Remove all prefixes."""
        with self.pool.lock:
            while self.nodes:
                self._remove_least_recent()

    def _mark_used(self, path: list[PrefixNode]) -> None:
        for node in reversed(path):
            self.nodes.move_to_end(node)

    def _insert_child(self, parent: PrefixNode, ids: np.ndarray, block: int) -> PrefixNode:
        """Return the node for these ids [1 to BLOCK_SLOTS] below the parent: an existing, extended or new node."""
        node, n_common = _longest_match(parent, ids)
        if n_common == len(ids):
            return node
        self.pool.share([block])
        if node is not parent and n_common == len(node.ids):  # a leaf whose ids are in the new block as well
            replaced = node.block
            node.ids = ids.copy()
            node.block = block
            self.pool.release([replaced])
            return node
        new = PrefixNode(ids, block, parent)
        parent.children.setdefault(int(ids[0]), []).append(new)
        self.nodes[new] = None
        return new

    def _remove_least_recent(self) -> None:
        node, _ = self.nodes.popitem(last=False)
        assert node.parent is not None and not node.children, "a node is removed after the nodes below it"
        first = int(node.ids[0])
        siblings = node.parent.children[first]
        siblings.remove(node)
        if not siblings:
            del node.parent.children[first]
        self.pool.release([node.block])


def _longest_match(node: PrefixNode, ids: np.ndarray) -> tuple[PrefixNode, int]:
    """Return the child that shares the most leading ids and their number; if there is none, the node itself and 0."""
    best = node
    max_common = 0
    for child in node.children.get(int(ids[0]), ()) if len(ids) else ():
        n_common = common_prefix_length(child.ids, ids)
        if n_common > max_common:
            best = child
            max_common = n_common
    return best, max_common


def common_prefix_length(a: np.ndarray, b: np.ndarray) -> int:
    """Return the number of leading ids that both arrays have in common."""
    n = min(len(a), len(b))
    differences = np.flatnonzero(a[:n] != b[:n])
    return int(differences[0]) if len(differences) else n
