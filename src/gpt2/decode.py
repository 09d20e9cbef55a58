"""Rows of ids in, one new id per row and step out: the cache, prefill, one decode step, the window.

It knows nothing of text. Each row has its own length, settings and random numbers, so that a row's ids do not depend
on the rows beside it.

Shapes: B batch, T time, P cache slots, L layers, H heads, D head size, E embedding, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from gpt2 import model, sample
from gpt2.errors import UsageError
from gpt2.hparams import HParams
from gpt2.model import Weights
from gpt2.request import Sampling

SMALLEST_CACHE = 128  # slots; doubled when they are full, so that few shapes are ever seen


@dataclasses.dataclass(frozen=True)
class Row:
    """One sample: its prompt's ids (at least one), its settings, and the key of its random numbers."""

    prompt: Sequence[int]
    sampling: Sampling = Sampling()
    seed: int = 0
    sample: int = 0


class Decoder:
    """A model's compiled functions; traced once for each batch size and shared by all batches.

    With `compiled=False` the same functions run op by op: slow, and the oracle for the others.
    """

    def __init__(self, weights: Weights, hparams: HParams, compiled: bool = True) -> None:
        self.weights = weights
        self.hparams = hparams
        function = tf.function if compiled else lambda f, **_: f
        ragged = [tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)]
        self.prefill = function(self._prefill, input_signature=ragged)
        self.step = function(self._step)
        self.next_tokens = function(sample.next_tokens)

    def _prefill(self, tokens: tf.Tensor, lengths: tf.Tensor) -> model.Hidden:
        """tokens [B, T], padded on the right to the longest; lengths [B] -> logits of each row's last token [B, V],
        keys and values L x [B, H, T, D]. No token sees the padding, which stands after it."""
        x, keys, values = model.hidden(self.weights, self.hparams, tokens)
        last = tf.gather(x, lengths - 1, batch_dims=1)[:, None]  # [B, 1, E]: no logits for the rest of the prompt
        return model.logits(self.weights, last)[:, 0], keys, values

    def _step(self, tokens: tf.Tensor, cache: model.Cache) -> tf.Tensor:
        """tokens [B], one more for each row -> logits [B, V]; its keys and values are written into the cache."""
        logits, keys, values = model.model(self.weights, self.hparams, tokens[:, None], cache)
        # Written after all has been read: TensorFlow copies a variable whole if it is assigned while being read.
        with tf.control_dependencies([logits]):
            for variable, new in zip([*cache.keys, *cache.values], [*keys, *values]):
                for row in range(tokens.shape[0]):
                    slot = cache.lengths[row]
                    variable[row, :, slot : slot + 1].assign(new[row])
        return logits[:, 0]


class KeyValueStore:
    """The variables behind a `model.Cache`: one for the keys and one for the values of each layer."""

    def __init__(self, hparams: HParams, batch: int) -> None:
        self.n_ctx = hparams.n_ctx
        self.capacity = min(SMALLEST_CACHE, self.n_ctx)
        head_size = hparams.n_embd // hparams.n_head
        empty = tf.zeros([batch, hparams.n_head, self.capacity, head_size])
        shape = [batch, hparams.n_head, None, head_size]
        self.keys, self.values = (
            [tf.Variable(empty, trainable=False, shape=shape) for _ in range(hparams.n_layer)] for _ in range(2)
        )

    def reserve(self, slots: int) -> None:
        """Makes room for so many slots by doubling: attention reads the whole capacity at every step."""
        old = self.capacity
        while self.capacity < slots:
            self.capacity = min(2 * self.capacity, self.n_ctx)
        if self.capacity > old:
            for variable in [*self.keys, *self.values]:
                variable.assign(tf.pad(variable, [[0, 0], [0, 0], [0, self.capacity - old], [0, 0]]))

    def write(self, rows: Sequence[int], keys: list[tf.Tensor], values: list[tf.Tensor]) -> None:
        """Puts keys and values L x [len(rows), H, T, D] into the first T slots of these rows."""
        for variable, new in zip([*self.keys, *self.values], [*keys, *values]):
            for i, row in enumerate(rows):
                variable[row, :, : new.shape[2]].assign(new[i])

    def read(self, lengths: np.ndarray) -> model.Cache:
        return model.Cache(self.keys, self.values, tf.constant(lengths, tf.int32))


def last_of_window(ids: Sequence[int], n_ctx: int) -> list[int]:
    """What is kept of a prompt: the last n_ctx - 1 ids, so that one more fits."""
    return list(ids)[-max(1, n_ctx - 1) :]


class Batch:
    """Rows that are decoded together, each as if it were alone.

    >>> batch = Batch(decoder, [Row([15496, 11])])
    >>> ids = [int(batch.next()[0]) for _ in range(20)]

    Raises UsageError for a prompt that is empty or holds ids outside the vocabulary.
    """

    def __init__(self, decoder: Decoder, rows: Sequence[Row]) -> None:
        hparams = decoder.hparams
        for row in rows:
            if not row.prompt or not 0 <= min(row.prompt) <= max(row.prompt) < hparams.n_vocab:
                raise UsageError(f"a prompt needs at least one id, all from 0 to {hparams.n_vocab - 1}: {row.prompt}")
        self.decoder = decoder
        self.n_ctx = hparams.n_ctx
        self.ids = [last_of_window(row.prompt, self.n_ctx) for row in rows]
        self.settings = sample.stack([row.sampling for row in rows])
        self.random = [sample.RandomNumbers(row.seed, row.sample) for row in rows]
        self.seen = _seen(rows, hparams.n_vocab)
        self.store = KeyValueStore(hparams, len(rows))
        self.lengths = np.zeros(len(rows), np.int32)  # used slots of each row
        self.done = np.zeros(len(rows), bool)
        self.logits: tf.Tensor | None = None  # [B, V], what the last tokens were drawn from

    def finish(self, row: int) -> None:
        """This row's ids are no longer wanted: it keeps its place and grows no further."""
        self.done[row] = True

    def next(self) -> np.ndarray:
        """One new id for each row [B] int32; those of finished rows mean nothing."""
        self.logits = self._prefill(range(len(self.ids))) if self.logits is None else self._advance(self.logits)
        uniform = tf.constant([numbers.next() for numbers in self.random], tf.float32)
        ids = self.decoder.next_tokens(self.logits, self.settings, uniform, self.seen).numpy()
        for row in np.flatnonzero(~self.done):
            self.ids[row].append(int(ids[row]))
            if self.seen is not None:
                self.seen[row, ids[row]] = True
        return ids

    def _advance(self, logits: tf.Tensor) -> tf.Tensor:
        """Feeds each row's last id; a row whose window is full keeps its last n_ctx // 2 ids and is prefilled again."""
        full = np.flatnonzero(~self.done & (self.lengths == self.n_ctx)).tolist()
        if len(full) < np.sum(~self.done):
            logits = self._step()
        if full:
            for row in full:
                self.ids[row] = self.ids[row][-max(1, self.n_ctx // 2) :]
            logits = tf.tensor_scatter_nd_update(logits, [[row] for row in full], self._prefill(full))
        return logits

    def _step(self) -> tf.Tensor:
        # Rows that are finished or full are stepped along; what they write is never read.
        at = np.minimum(self.lengths, self.n_ctx - 1)
        self.store.reserve(int(max(at)) + 1)
        tokens = tf.constant([ids[-1] for ids in self.ids], tf.int32)
        self.lengths = np.where(self.done, self.lengths, at + 1)
        return self.decoder.step(tokens, self.store.read(at))

    def _prefill(self, rows: Sequence[int]) -> tf.Tensor:
        prompts = [self.ids[row] for row in rows]
        lengths = [len(ids) for ids in prompts]
        padded = [ids + [0] * (max(lengths) - len(ids)) for ids in prompts]
        logits, keys, values = self.decoder.prefill(tf.constant(padded, tf.int32), tf.constant(lengths, tf.int32))
        self.store.reserve(max(lengths))
        self.store.write(rows, keys, values)
        self.lengths[list(rows)] = lengths
        return logits


def _seen(rows: Sequence[Row], n_vocab: int) -> np.ndarray | None:
    """Which ids each row's penalty applies to [B, V]; None where no row has a penalty."""
    if all(row.sampling.repetition_penalty == 1 for row in rows):
        return None
    seen = np.zeros((len(rows), n_vocab), bool)
    for flags, row in zip(seen, rows):
        flags[list(row.prompt)] = True
    return seen
