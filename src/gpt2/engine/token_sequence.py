"""One row of a batch: what is asked of it, what is chosen, and how far it has been computed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gpt2.engine.kv_cache import SLOTS, blocks_for
from gpt2.request import Sampling
from gpt2.sample import RandomNumbers


@dataclasses.dataclass(frozen=True)
class Row:
    """One sample: its prompt's ids (at least one), its settings, and the key of its random numbers.

    length: how many new ids are wanted at most, for which there is to be room; None for as many as the window holds.
    likeliest: how many of the likeliest ids come with each one that is chosen.
    echo: whether the ids of the prompt get log-probabilities too, for which all of it is computed.
    keep: whether what is computed after the prompt may serve other rows too, once this one has left.
    """

    prompt: Sequence[int]
    sampling: Sampling = Sampling()
    seed: int = 0
    sample: int = 0
    length: int | None = None
    likeliest: int = 0
    echo: bool = False
    keep: bool = False

    def most_blocks(self, n_ctx: int) -> int:
        """How many blocks it takes in the end."""
        return blocks_for(n_ctx if self.length is None else min(n_ctx, len(self.prompt) + self.length))


class TokenChoice(NamedTuple):
    """An id, its log-probability by the model's own logits, before all that shapes a choice, and the likeliest ones."""

    row: int  # its number
    id: int
    logprob: float
    likeliest: tuple[tuple[int, float], ...] = ()  # (id, its log-probability), the likeliest first
    rank: int | None = None  # with the likeliest: 1 for the first of them, one more for each id that is likelier


def finite_or_none(logprob: float) -> float | None:
    """As it is written in JSON, which has no infinity."""
    return logprob if math.isfinite(logprob) else None


def truncate_to_window(ids: Sequence[int], n_ctx: int) -> Sequence[int]:
    """What is kept of a prompt: all of it or, if it is longer than the window, its last n_ctx - 1 ids."""
    return ids if len(ids) <= n_ctx else ids[-max(1, n_ctx - 1) :]


class Part(NamedTuple):
    """What is computed of a row in one step."""

    row: Running
    start: int  # in the window
    size: int  # ids
    is_last: bool  # whether a choice follows

    @property
    def ids(self) -> np.ndarray:
        begin = self.row.first + self.start
        return self.row.ids[begin : begin + self.size]

    @property
    def is_echoed(self) -> bool:
        """Whether all of its ids want logits."""
        return self.row.row.echo and not self.row.new


class Running:
    """A row on its way.

    Its last choice counts as soon as it is in `new`; all else follows from that, so that a step that is interrupted can
    be made again.
    """

    def __init__(self, number: int, row: Row, n_ctx: int) -> None:
        self.number, self.row, self.n_ctx = number, row, n_ctx
        self.random = RandomNumbers(row.seed, row.sample)
        self.n_prompt = len(row.prompt)
        self.ids = np.array(row.prompt, np.int32)  # the prompt's and the new ones; perhaps room for more behind
        self.new: list[TokenChoice] = []
        self.echoed: list[
            TokenChoice | None
        ] = []  # for each id of the prompt that the window keeps, if they are asked for
        self.first = self.n_prompt - len(truncate_to_window(row.prompt, n_ctx))  # where the window begins
        self.most_blocks = row.most_blocks(n_ctx)
        self.blocks: list[int] = []
        self.filled = 0  # slots of the window that have been computed
        self.known = 0  # those of them that were found and not computed for this row
        self.begun = False

    @property
    def count(self) -> int:
        """How many ids there are."""
        return self.n_prompt + len(self.new)

    @property
    def window(self) -> np.ndarray:
        """The ids that are seen, those that have not been computed included."""
        return self.ids[self.first : self.count]

    @property
    def to_read(self) -> int:
        """How many ids of the window are not known when the row begins, or when it begins again."""
        return self.count - self.first - self.known

    @property
    def is_full(self) -> bool:
        """Whether the window has no room for the newest id."""
        return self.filled == self.n_ctx and self.count - self.first > self.n_ctx

    @property
    def grows_soon(self) -> bool:
        """Whether a quarter of its last block is filled, and another one may come."""
        return 0 < len(self.blocks) < self.most_blocks and 4 * self.filled > (4 * len(self.blocks) - 3) * SLOTS

    def part(self, most: int) -> Part:
        """The next ids that have to be computed, at least one and at most so many."""
        total = self.n_prompt + len(self.new) - self.first
        start = min(self.filled, total - 1)
        size = min(total - start, most)
        return Part(self, start, size, start + size == total)

    def choose(self, choice: TokenChoice) -> None:
        if self.count == len(self.ids):
            self.ids = np.concatenate([self.ids, np.zeros(max(64, len(self.ids) // 2), np.int32)])
        self.ids[self.count] = choice.id
        self.new.append(choice)

    def slide(self) -> list[int]:
        """A full window keeps its last n_ctx // 2 ids, which are computed again; the blocks are to be given back."""
        blocks, self.blocks = self.blocks, []
        self.first, self.filled, self.known = self.count - max(1, self.n_ctx // 2), 0, 0
        return blocks
