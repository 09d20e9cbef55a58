"""Log-probabilities of given ids, computed with the logits of only one step in memory.

Spans of ids are computed in order, in steps of a fixed number of ids. A long span takes several steps, and several
short spans share a step. A prefix that a span shares with the previous span, such as a question with several answers,
is computed once.

Shapes: T ids of a span, S scored ids, N most likely ids, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from gpt2 import sample
from gpt2.engine.backend import Backend, Logits, Segment
from gpt2.engine.kv_cache import BLOCK_SLOTS, MIN_SHARED_IDS, BlockPool, blocks_for, common_prefix_length

# Ids of a step; their logits take 26 MB with GPT-2's vocabulary. Fewer ids are slower (64: 5%), and more are not
# faster: from 32 MB on, the C library requests new pages in every step, which can take several times as long.
STEP_IDS = 128
MAX_ACTIVE_SPANS = 16  # spans in progress; each takes at least one block of the cache


class Span(NamedTuple):
    """Consecutive ids, the last of which are scored.

    Attributes:
        ids: [T], at most n_ctx + 1 ids, because the last one is not computed.
        n_scored: Number of last ids that are scored, each given all ids before it; from 1 to T - 1.
    """

    ids: np.ndarray
    n_scored: int


class ScoreOptions(NamedTuple):
    """Options that select results in addition to log-probabilities.

    Attributes:
        ranks: Whether each id's rank is computed.
        top_logprobs: Number of most likely ids to return for each position.
    """

    ranks: bool = False
    top_logprobs: int = 0


class SpanScores(NamedTuple):
    """The scores of a span's scored ids.

    Attributes:
        logprobs: [S] float32, natural logarithms.
        ranks: [S] int32, 1 plus the number of more likely ids; empty unless requested.
        top_ids: [S, N] int32, most likely first.
        top_logprobs: [S, N] float32.
    """

    logprobs: np.ndarray
    ranks: np.ndarray
    top_ids: np.ndarray
    top_logprobs: np.ndarray


LOGPROBS_ONLY = ScoreOptions()


def score_spans(backend: Backend, spans: Iterable[Span], options: ScoreOptions = LOGPROBS_ONLY) -> Iterator[SpanScores]:
    """Yield the scores of each span in order.

    A few spans are taken from the iterable before the first is complete. Log-probabilities are computed from the raw
    logits.

    Raises:
        MemoryError: There is not enough memory for the blocks of a span.
    """
    pool = backend.new_pool()
    queue = _SpanQueue(spans, pool)
    while segments := queue.next_segments():
        logits = backend.extend(pool, segments)
        first = 0
        for active, segment in zip(queue.active, segments):
            end = first + segment.n_logits
            active.add_logits(segment, Logits(logits.values[first:end], logits.log_totals[first:end]), options)
            first = end
        yield from queue.pop_complete()


class _SpanQueue:
    """The spans in progress, in order, and the next span."""

    def __init__(self, spans: Iterable[Span], pool: BlockPool) -> None:
        self.pending = map(_ActiveSpan, spans)
        self.pool = pool
        self.active: deque[_ActiveSpan] = deque()
        self.newest: _ActiveSpan | None = None  # retains its blocks for the next span, which may share a prefix
        self.following = next(self.pending, None)

    def next_segments(self) -> list[Segment]:
        """Return the next ids of as many spans as fit into a step; empty if all are complete.

        Raises:
            MemoryError: There is not enough memory for a block.
        """
        segments: list[Segment] = []
        n_left = STEP_IDS
        while n_left and (len(segments) < len(self.active) or self._activate_next()):
            segment = self.active[len(segments)].next_segment(n_left, self.pool)
            segments.append(segment)
            n_left -= len(segment.ids)
        return segments

    def _activate_next(self) -> bool:
        """Start the next span if possible, and return whether it has started."""
        new = self.following
        previous = self.newest
        if new is None or len(self.active) == MAX_ACTIVE_SPANS or not new.start(previous, self.pool):
            return False
        self.active.append(new)
        self.newest = new
        self.following = next(self.pending, None)
        if previous is not None and previous.is_complete:
            previous.release(self.pool)
        return True

    def pop_complete(self) -> Iterator[SpanScores]:
        """Remove the leading complete spans and yield their scores."""
        while self.active and self.active[0].is_complete:
            span = self.active.popleft()
            if span is not self.newest:
                span.release(self.pool)
            yield span.scores()


class _ActiveSpan:
    """A span and its progress."""

    def __init__(self, span: Span) -> None:
        self.ids = span.ids
        self.inputs = np.asarray(span.ids[:-1], np.int32)
        self.first_scored = len(self.inputs) - span.n_scored  # the first position that needs logits
        assert 1 <= span.n_scored <= len(self.inputs), "n_scored must be from 1 to T - 1"
        self.blocks: list[int] = []
        self.n_computed = 0
        self.parts: list[SpanScores] = []

    @property
    def is_complete(self) -> bool:
        return self.n_computed == len(self.inputs)

    def start(self, previous: _ActiveSpan | None, pool: BlockPool) -> bool:
        """Start with the previous span's prefix; return False until that prefix is computed."""
        n_common = 0
        if previous is not None:
            n_common = min(common_prefix_length(previous.inputs, self.inputs), self.first_scored)
        if previous is None or n_common < MIN_SHARED_IDS:
            return True
        if previous.n_computed < n_common:
            return False
        n_whole, n_rest = divmod(n_common, BLOCK_SLOTS)
        self.blocks = previous.blocks[:n_whole]
        pool.share(self.blocks)
        if n_rest:
            self.blocks.append(pool.copy_block(previous.blocks[n_whole]))
        self.n_computed = n_common
        return True

    def next_segment(self, max_ids: int, pool: BlockPool) -> Segment:
        """Return the next ids, at most max_ids, with the blocks that they need.

        Raises:
            MemoryError: There is not enough memory for a block.
        """
        end = min(len(self.inputs), self.n_computed + max_ids)
        while len(self.blocks) < blocks_for(end):
            self.blocks.append(pool.allocate())
        n_logits = max(0, end - max(self.n_computed, self.first_scored))
        return Segment(self.blocks, self.n_computed, self.inputs[self.n_computed : end], n_logits)

    def add_logits(self, segment: Segment, logits: Logits, options: ScoreOptions) -> None:
        """Score the ids that follow the segment's positions."""
        self.n_computed += len(segment.ids)
        if segment.n_logits:
            targets = self.ids[self.n_computed - segment.n_logits + 1 : self.n_computed + 1]
            self.parts.append(score_logits(np.asarray(targets), logits, options))

    def scores(self) -> SpanScores:
        return SpanScores(*map(np.concatenate, zip(*self.parts)))

    def release(self, pool: BlockPool) -> None:
        pool.release(self.blocks)
        self.blocks = []


def score_logits(ids: np.ndarray, logits: Logits, options: ScoreOptions) -> SpanScores:
    """Return the scores of ids [S] from the logits of the S positions before them."""
    values = logits.values
    log_totals = logits.log_totals
    chosen = values[np.arange(len(ids)), ids]
    ranks = np.zeros(0, np.int32)
    if options.ranks:
        ranks = (1 + np.count_nonzero(values > chosen[:, None], axis=1)).astype(np.int32)
    top_ids = np.zeros((len(ids), 0), np.int32)
    if options.top_logprobs:
        top_ids = np.array([sample.top_ids(row, options.top_logprobs) for row in values], np.int32)
    top_logprobs = np.take_along_axis(values, top_ids, axis=1) - log_totals[:, None]
    return SpanScores(chosen - log_totals, ranks, top_ids, top_logprobs)
