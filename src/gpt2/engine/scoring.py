"""How likely ids are that are known already. Nothing is chosen, and of the logits those of one step alone are kept.

Spans are computed one after the other in steps of some length: a long one in several, several short ones in one. What a
span has in common with the beginning of the one before it is computed once, as of a question with several answers.

Shapes: T ids of a span, S of them scored, N likeliest ids, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from gpt2 import sample
from gpt2.engine.backend import Backend, Logits, Segment
from gpt2.engine.kv_cache import BLOCK_SLOTS, MIN_SHARED_IDS, BlockPool, blocks_for, common_prefix_length

# Ids of a step, whose logits are 26 MB with GPT-2's vocabulary. Fewer take longer (64: 5%) and more save nothing; from
# 32 MB on the C library asks the system for new pages in every step, which takes several times as long now and then.
AT_ONCE = 128
SPANS = 16  # that are computed at once: each takes at least a block of the cache


class Span(NamedTuple):
    """Ids that follow each other [T], at most n_ctx + 1 of them: the last is not fed.

    scored: how many of the last ones, each given all those before it; from 1 to T - 1.
    """

    ids: np.ndarray
    scored: int


class ScoreOptions(NamedTuple):
    """What is wanted besides the log-probabilities. likeliest: how many of the likeliest ids at each place."""

    ranks: bool = False
    likeliest: int = 0


class SpanScores(NamedTuple):
    """Of the ids of a span that are scored."""

    logprobs: np.ndarray  # [S] float32
    ranks: np.ndarray  # [S] int32: 1 for the likeliest, one more for each that is likelier; [0] if not asked for
    likeliest: np.ndarray  # [S, N] int32, the likeliest first
    likeliest_logprobs: np.ndarray  # [S, N] float32


LOGPROBS = ScoreOptions()


def score_spans(backend: Backend, spans: Iterable[Span], asked: ScoreOptions = LOGPROBS) -> Iterator[SpanScores]:
    """What the backend says of each span, in their order; a few are drawn before the first is returned.

    Log-probabilities are those of the raw logits. Raises MemoryError where there is none for a window.
    """
    blocks = backend.new_pool()
    queue = _Queue(spans, blocks)
    while plan := queue.plan():
        logits, line = backend.extend(blocks, plan), 0
        for one, piece in zip(queue.reading, plan):
            one.take(piece, Logits(*(part[line : line + piece.n_logits] for part in logits)), asked)
            line += piece.n_logits
        yield from queue.done()


class _Queue:
    """The spans that are being computed, in their order, and the one that comes next."""

    def __init__(self, spans: Iterable[Span], blocks: BlockPool) -> None:
        self.waiting, self.blocks = map(_Reading, spans), blocks
        self.reading: deque[_Reading] = deque()
        self.newest: _Reading | None = None  # keeps its blocks for the next, which may begin alike
        self.following = next(self.waiting, None)

    def plan(self) -> list[Segment]:
        """The next ids of as many spans as a step has room for; none when all is done. Raises MemoryError."""
        plan: list[Segment] = []
        left = AT_ONCE
        while left and (len(plan) < len(self.reading) or self._begin()):
            plan.append(self.reading[len(plan)].part(left, self.blocks))
            left -= len(plan[-1].ids)
        return plan

    def _begin(self) -> bool:
        """Whether one more span could begin."""
        new, newest = self.following, self.newest
        if new is None or len(self.reading) == SPANS or not new.begin(newest, self.blocks):
            return False
        self.reading.append(new)
        self.newest, self.following = new, next(self.waiting, None)
        if newest is not None and newest.is_done:
            newest.leave(self.blocks)
        return True

    def done(self) -> Iterator[SpanScores]:
        """What is known of the spans that are complete, which leave."""
        while self.reading and self.reading[0].is_done:
            one = self.reading.popleft()
            if one is not self.newest:
                one.leave(self.blocks)
            yield one.score_spans()


class _Reading:
    """A span on its way into the cache."""

    def __init__(self, span: Span) -> None:
        self.ids, self.scored = span
        self.fed = np.asarray(self.ids[:-1], np.int32)
        self.first = len(self.fed) - self.scored  # the place whose logits are the first that are wanted
        assert 1 <= self.scored <= len(self.fed), "something is scored, and something stands before it"
        self.blocks: list[int] = []
        self.filled = 0
        self.parts: list[SpanScores] = []

    @property
    def is_done(self) -> bool:
        return self.filled == len(self.fed)

    def begin(self, before: _Reading | None, blocks: BlockPool) -> bool:
        """Takes over what it has in common with the one before; whether it can begin, as that has got so far."""
        common = min(common_prefix_length(before.fed, self.fed), self.first) if before else 0
        if before is None or common < MIN_SHARED_IDS:
            return True
        if before.filled < common:
            return False
        whole, rest = divmod(common, BLOCK_SLOTS)
        self.blocks = before.blocks[:whole]
        blocks.share(self.blocks)
        if rest:
            self.blocks.append(blocks.copy_block(before.blocks[whole]))
        self.filled = common
        return True

    def part(self, most: int, blocks: BlockPool) -> Segment:
        """The next ids, at most so many, and the blocks that they need. Raises MemoryError."""
        end = min(len(self.fed), self.filled + most)
        while len(self.blocks) < blocks_for(end):
            self.blocks.append(blocks.allocate())
        return Segment(
            self.blocks, self.filled, self.fed[self.filled : end], max(0, end - max(self.filled, self.first))
        )

    def take(self, piece: Segment, logits: Logits, asked: ScoreOptions) -> None:
        """What the piece's places say of the ids after them."""
        self.filled += len(piece.ids)
        if piece.n_logits:
            targets = self.ids[self.filled - piece.n_logits + 1 : self.filled + 1]
            self.parts.append(score_logits(np.asarray(targets), logits, asked))

    def score_spans(self) -> SpanScores:
        return SpanScores(*map(np.concatenate, zip(*self.parts)))

    def leave(self, blocks: BlockPool) -> None:
        blocks.release(self.blocks)
        self.blocks = []


def score_logits(ids: np.ndarray, logits: Logits, asked: ScoreOptions) -> SpanScores:
    """What S places' logits [S, V] say of the ids [S] that follow."""
    values, totals = logits
    own = values[np.arange(len(ids)), ids]
    ranks = 1 + np.count_nonzero(values > own[:, None], axis=1) if asked.ranks else np.zeros(0)
    likeliest = np.zeros((len(ids), 0), np.int32)
    if asked.likeliest:
        likeliest = np.array([sample.top_ids(row, asked.likeliest) for row in values], np.int32)
    others = np.take_along_axis(values, likeliest, axis=1) - totals[:, None]
    return SpanScores(own - totals, ranks.astype(np.int32), likeliest, others)
