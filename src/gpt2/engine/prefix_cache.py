"""Beginnings of rows that were computed before, for rows that begin alike: n samples of one prompt, a text and one word
more.

A tree whose edges are blocks: below each block those that went on from it, by their ids (as SGLang's RadixAttention,
Zheng et al. 2024, but cut where blocks are). A block that is not full may be extended by nobody but the row that it
came from; others copy it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gpt2.engine.kv_cache import SLOTS, Blocks

BYTES = 256 << 20  # of beginnings that are kept
MIN_SHARED_IDS = 4  # ids: so many are worth to be copied, or to be waited for, rather than computed


class Node:
    """A block: what it holds, and what goes on from there."""

    def __init__(self, ids: np.ndarray, block: int, parent: Node | None) -> None:
        self.ids = ids.copy()  # at most SLOTS; fewer have no children
        self.block, self.parent = block, parent
        self.children: dict[int, list[Node]] = {}  # by their first id


class PrefixMatch(NamedTuple):
    """What is known of a row's ids: whole blocks to share, and some slots of another one to copy."""

    blocks: list[int]
    partial: int | None
    slots: int


class PrefixCache:
    """The store: one for all that is computed with the same weights. Threads may share it.

    size: how many bytes of blocks it keeps; those that were used last stay.
    """

    def __init__(self, blocks: Blocks, size: int = BYTES) -> None:
        self.blocks = blocks
        self.most = size // blocks.block_bytes
        self.root = Node(np.zeros(0, np.int32), -1, None)
        self.nodes: OrderedDict[Node, None] = (
            OrderedDict()
        )  # what was used last stands last, and after what is below it

    def find(self, ids: np.ndarray) -> PrefixMatch:
        """The longest known beginning of ids [T], short of the last one, whose logits have to be computed.

        The caller is a user of its blocks, the partial one included, and has to give them back.
        """
        with self.blocks.lock:
            path: list[Node] = []
            node, slots, start = self.root, SLOTS, 0
            while slots == SLOTS:
                node, slots = _best(node, ids[start : start + SLOTS])
                if slots == SLOTS and start + SLOTS < len(ids):
                    path.append(node)
                    start += SLOTS
                else:
                    break
            slots = min(slots, len(ids) - 1 - start)
            whole = [used.block for used in path]
            if slots < MIN_SHARED_IDS:
                found = PrefixMatch(whole, None, start)
            else:
                path.append(node)
                found = PrefixMatch(whole, node.block, start + slots)
            self._use(path)
            self.blocks.share(used.block for used in path)
            return found

    def keep(self, ids: np.ndarray, blocks: Sequence[int]) -> None:
        """What a row has computed: ids [T], in these blocks, which it does not write to again but after them."""
        with self.blocks.lock:
            path, node = [], self.root
            for start, block in zip(range(0, len(ids), SLOTS), blocks):
                node = self._child(node, ids[start : start + SLOTS], block)
                path.append(node)
                if len(node.ids) < SLOTS:
                    break
            self._use(path)
            while len(self.nodes) > self.most:
                self._forget()

    def clear(self) -> None:
        """Forgets all."""
        with self.blocks.lock:
            while self.nodes:
                self._forget()

    def _use(self, path: list[Node]) -> None:
        for node in reversed(path):
            self.nodes.move_to_end(node)

    def _child(self, parent: Node, ids: np.ndarray, block: int) -> Node:
        """The node for these ids [1 to SLOTS] below the parent: one that is there, or that one made longer, or new."""
        node, common = _best(parent, ids)
        if common == len(ids):
            return node
        self.blocks.share([block])
        if node is not parent and common == len(node.ids):  # it was a leaf, and its ids are in the new block too
            old, node.ids, node.block = node.block, ids.copy(), block
            self.blocks.give_back([old])
            return node
        new = Node(ids, block, parent)
        parent.children.setdefault(int(ids[0]), []).append(new)
        self.nodes[new] = None
        return new

    def _forget(self) -> None:
        """The node that was used longest ago, which has nothing below it."""
        node, _ = self.nodes.popitem(last=False)
        assert node.parent is not None and not node.children, "what is below a node is forgotten before it"
        first = int(node.ids[0])
        siblings = node.parent.children[first]
        siblings.remove(node)
        if not siblings:
            del node.parent.children[first]
        self.blocks.give_back([node.block])


def _best(node: Node, ids: np.ndarray) -> tuple[Node, int]:
    """Of the nodes below this one that which has most ids in common, from the first on, and how many; or itself, 0."""
    best, most = node, 0
    for child in node.children.get(int(ids[0]), ()) if len(ids) else ():
        common = common_prefix_length(child.ids, ids)
        if common > most:
            best, most = child, common
    return best, most


def common_prefix_length(a: np.ndarray, b: np.ndarray) -> int:
    """With how many ids both begin."""
    n = min(len(a), len(b))
    different = np.flatnonzero(a[:n] != b[:n])
    return int(different[0]) if len(different) else n
