"""Rows of ids in, one new id per row and step out: prefill, decode steps, the window.

It knows nothing of text. Each row has its own length, settings and random numbers, so that a row's ids do not depend
on the rows beside it.

Shapes: B batch, N rows of it, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from gpt2 import sample
from gpt2.engine.backend import Backend
from gpt2.errors import UsageError
from gpt2.request import Sampling


@dataclasses.dataclass(frozen=True)
class Row:
    """One sample: its prompt's ids (at least one), its settings, and the key of its random numbers."""

    prompt: Sequence[int]
    sampling: Sampling = Sampling()
    seed: int = 0
    sample: int = 0


def last_of_window(ids: Sequence[int], n_ctx: int) -> list[int]:
    """What is kept of a prompt: all of it or, if it is longer than the window, its last n_ctx - 1 ids."""
    return list(ids) if len(ids) <= n_ctx else list(ids)[-max(1, n_ctx - 1) :]


class Batch:
    """Rows that are decoded together, each as if it were alone.

    >>> batch = Batch(backend, [Row([15496, 11])])
    >>> ids = [int(batch.next()[0]) for _ in range(20)]

    Raises UsageError for a prompt that is empty or holds ids outside the vocabulary.
    """

    def __init__(self, backend: Backend, rows: Sequence[Row]) -> None:
        hparams = backend.hparams
        for row in rows:
            if not row.prompt or not 0 <= min(row.prompt) <= max(row.prompt) < hparams.n_vocab:
                raise UsageError(f"a prompt needs at least one id, all from 0 to {hparams.n_vocab - 1}: {row.prompt}")
        self.backend = backend
        self.rows = rows
        self.n_ctx = hparams.n_ctx
        self.ids = [last_of_window(row.prompt, self.n_ctx) for row in rows]
        self.random = [sample.RandomNumbers(row.seed, row.sample) for row in rows]
        self.seen = [_seen(row, hparams.n_vocab) for row in rows]
        self.cache = backend.new_cache(len(rows))
        self.lengths: np.ndarray = np.zeros(len(rows), np.int32)  # used slots of each row
        self.done: np.ndarray = np.zeros(len(rows), bool)

    def finish(self, row: int) -> None:
        """This row's ids are no longer wanted: it is computed no further."""
        self.done[row] = True

    def next(self) -> np.ndarray:
        """One new id for each row [B] int32; those of finished rows mean nothing."""
        ids: np.ndarray = np.zeros(len(self.rows), np.int32)
        rows = np.flatnonzero(~self.done)
        if not len(rows):
            return ids
        if 2 * len(rows) <= len(self.cache.rows):  # seldom, since it copies what it retains
            self.cache.retain(rows)
        for row, logits in zip(rows.tolist(), self._logits(rows)):
            sampling, seen = self.rows[row].sampling, self.seen[row]
            words = self.random[row].next(len(logits)) if sampling.temperature else None
            ids[row] = token = sample.next_token(logits, sampling, words, seen)
            self.ids[row].append(token)
            if seen is not None:
                seen[token] = True
        return ids

    def _logits(self, rows: np.ndarray) -> np.ndarray:
        """What each of these rows says of its next id [N, V], after its last id has been fed.

        A row that is new is prefilled; one whose window is full keeps its last n_ctx // 2 ids and is prefilled again.
        """
        full = self.lengths[rows] == self.n_ctx
        for row in rows[full]:
            self.ids[row] = self.ids[row][-max(1, self.n_ctx // 2) :]
        begin = full | (self.lengths[rows] == 0)
        if begin.all():
            return self._prefill(rows)
        if not begin.any():
            return self._step(rows)
        order = np.argsort(np.concatenate([rows[~begin], rows[begin]]))
        return np.concatenate([self._step(rows[~begin]), self._prefill(rows[begin])])[order]

    def _step(self, rows: np.ndarray) -> np.ndarray:
        starts = self.lengths[rows]
        self.cache.reserve(int(starts.max()) + 1)
        tokens = np.array([[self.ids[row][-1]] for row in rows], np.int32)
        logits = self.backend.extend(self.cache, rows, tokens, starts, np.ones(len(rows), np.int32))
        self.lengths[rows] += 1
        return logits

    def _prefill(self, rows: np.ndarray) -> np.ndarray:
        """Rows with the same ids are computed once."""
        first: dict[tuple[int, ...], int] = {}  # ids -> the first row that has them
        sources = [first.setdefault(tuple(self.ids[row]), row) for row in rows]
        counts: np.ndarray = np.array([len(ids) for ids in first], np.int32)
        tokens: np.ndarray = np.zeros((len(first), counts.max()), np.int32)
        for line, ids in zip(tokens, first):
            line[: len(ids)] = ids
        self.cache.reserve(int(counts.max()))
        different = list(first.values())
        logits = self.backend.extend(self.cache, different, tokens, np.zeros(len(first), np.int32), counts)
        self.lengths[rows] = [len(self.ids[row]) for row in rows]
        if len(different) == len(rows):
            return logits
        copied = [(source, row) for source, row in zip(sources, rows) if source != row]
        self.cache.copy(*zip(*copied))
        return logits[[different.index(source) for source in sources]]


def _seen(row: Row, n_vocab: int) -> np.ndarray | None:
    """The ids that the row's penalty applies to [V] bool; None if it has none."""
    if row.sampling.repetition_penalty == 1:
        return None
    seen = np.zeros(n_vocab, bool)
    seen[list(row.prompt)] = True
    return seen
