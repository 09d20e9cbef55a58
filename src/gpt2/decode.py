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

SMALLEST_CACHE, CACHE_GROWTH = 128, 4  # slots, and by what they are multiplied when they are full


@dataclasses.dataclass(frozen=True)
class Row:
    """One sample: its prompt's ids (at least one), its settings, and the key of its random numbers."""

    prompt: Sequence[int]
    sampling: Sampling = Sampling()
    seed: int = 0
    sample: int = 0


class Decoder:
    """A model's compiled functions, shared by all batches; none keeps any state.

    With `compiled=False` the same functions run op by op: slow, and the oracle for the others.
    """

    def __init__(self, weights: Weights, hparams: HParams, compiled: bool = True) -> None:
        self.weights = weights
        self.hparams = hparams
        function = tf.function if compiled else lambda f, **_: f
        # With their shapes left open, each is traced once, whatever the batch size, the length and the cache.
        ids, row = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)
        heads = [tf.TensorSpec([None, hparams.n_head, None, hparams.head_size])] * hparams.n_layer
        self.forward = function(self._forward, input_signature=[ids, row, model.Cache(heads, heads, row)])
        self.write = function(self._write, input_signature=[heads * 2, heads * 2, row, row])
        self.next_tokens = function(sample.next_tokens)

    def prefill(self, tokens: tf.Tensor, counts: tf.Tensor) -> model.Hidden:
        """The beginning of texts: `forward` with a cache of no slots."""
        batch, hparams = tokens.shape[0], self.hparams
        nothing = [tf.zeros([batch, hparams.n_head, 0, hparams.head_size])] * hparams.n_layer
        return self.forward(tokens, counts, model.Cache(nothing, nothing, tf.zeros([batch], tf.int32)))

    def step(self, tokens: tf.Tensor, cache: model.Cache) -> model.Hidden:
        """tokens [B]: `forward` with one more token for each row."""
        return self.forward(tokens[:, None], tf.ones_like(tokens), cache)

    def _forward(self, tokens: tf.Tensor, counts: tf.Tensor, cache: model.Cache) -> model.Hidden:
        """tokens [B, T], of which the first counts[b] of row b mean something -> logits of each row's last one [B, V],
        keys and values L x [B, H, T, D]. No token sees the padding, which stands after it."""
        x, keys, values = model.hidden(self.weights, self.hparams, tokens, cache)
        last = tf.gather(x, counts - 1, batch_dims=1)[:, None]  # [B, 1, E]: no logits for the rest of a prompt
        return model.logits(self.weights, last)[:, 0], keys, values

    def _write(
        self, caches: list[tf.Tensor], news: list[tf.Tensor], rows: tf.Tensor, starts: tf.Tensor
    ) -> list[tf.Tensor]:
        """Puts each of `news` [N, H, T, D] into the slots starts[n], starts[n] + 1, ... of the rows [N] of its cache
        [B, H, P, D], in place, and returns the caches, which take the place of the old ones.

        In place is what makes a step cost the new token and not the whole cache: `tf.Variable.assign` on a slice makes
        every later read copy the variable, `tf.tensor_scatter_nd_update` copies a tensor that anybody still holds.
        """
        _, n_head, capacity, head_size = tf.unstack(tf.shape(caches[0]))
        time = tf.range(tf.shape(news[0])[2])
        heads = rows[:, None] * n_head + tf.range(n_head)  # [N, H]
        slots = heads[:, :, None] * capacity + starts[:, None, None] + time  # [N, H, T]
        written = []
        for cache, new in zip(caches, news):
            lines, new_lines = (tf.reshape(x, [-1, head_size]) for x in (cache, new))  # [B*H*P, D] and [N*H*T, D]
            lines = tf.raw_ops.InplaceUpdate(x=lines, i=tf.reshape(slots, [-1]), v=new_lines)
            written.append(tf.reshape(lines, tf.shape(cache)))
        return written


class KeyValueStore:
    """The tensors behind a `model.Cache`: one of keys and one of values for each layer, [B, H, P, D]."""

    def __init__(self, decoder: Decoder, batch: int) -> None:
        hparams = decoder.hparams
        self.decoder = decoder
        self.n_ctx, self.n_layer = hparams.n_ctx, hparams.n_layer
        self.capacity = min(SMALLEST_CACHE, self.n_ctx)
        shape = [batch, hparams.n_head, self.capacity, hparams.head_size]
        self.tensors = [tf.zeros(shape) for _ in range(2 * self.n_layer)]  # keys, then values

    def reserve(self, slots: int) -> None:
        """Makes room for so many slots.

        In few steps, because the memory of a smaller cache is seldom good for another; but in steps, because attention
        reads the whole capacity for every token.
        """
        old = self.capacity
        while self.capacity < slots:
            self.capacity = min(CACHE_GROWTH * self.capacity, self.n_ctx)
        if self.capacity > old:
            for i, tensor in enumerate(self.tensors):
                self.tensors[i] = tf.pad(tensor, [[0, 0], [0, 0], [0, self.capacity - old], [0, 0]])

    def write(self, keys: list[tf.Tensor], values: list[tf.Tensor], rows: Sequence[int], starts: np.ndarray) -> None:
        """Puts keys and values L x [N, H, T, D] into the slots from starts [N] of rows [N]."""
        rows, starts = tf.constant(rows, tf.int32), tf.constant(starts, tf.int32)
        self.tensors = self.decoder.write(self.tensors, [*keys, *values], rows, starts)

    def read(self, lengths: np.ndarray) -> model.Cache:
        keys, values = self.tensors[: self.n_layer], self.tensors[self.n_layer :]
        return model.Cache(keys, values, tf.constant(lengths, tf.int32))


def last_of_window(ids: Sequence[int], n_ctx: int) -> list[int]:
    """What is kept of a prompt: all of it or, if it is longer than the window, its last n_ctx - 1 ids."""
    return list(ids) if len(ids) <= n_ctx else list(ids)[-max(1, n_ctx - 1) :]


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
        self.store = KeyValueStore(decoder, len(rows))
        self.lengths: np.ndarray = np.zeros(len(rows), np.int32)  # used slots of each row
        self.done: np.ndarray = np.zeros(len(rows), bool)
        self.logits: tf.Tensor | None = None  # [B, V], what the last tokens were drawn from

    def finish(self, row: int) -> None:
        """This row's ids are no longer wanted: it keeps its place and grows no further."""
        self.done[row] = True

    def next(self) -> np.ndarray:
        """One new id for each row [B] int32; those of finished rows mean nothing."""
        self.logits = self._prefill(range(len(self.ids))) if self.logits is None else self._advance(self.logits)
        uniform = None
        if self.settings.temperature is not None:
            uniform = np.stack([numbers.next(self.logits.shape[-1]) for numbers in self.random])  # [B, V]
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
        logits, keys, values = self.decoder.step(tokens, self.store.read(at))
        self.store.write(keys, values, range(len(self.ids)), at)
        self.lengths = np.where(self.done, self.lengths, at + 1)
        return logits

    def _prefill(self, rows: Sequence[int]) -> tf.Tensor:
        prompts = [self.ids[row] for row in rows]
        lengths = [len(ids) for ids in prompts]
        padded = [ids + [0] * (max(lengths) - len(ids)) for ids in prompts]
        logits, keys, values = self.decoder.prefill(tf.constant(padded, tf.int32), tf.constant(lengths, tf.int32))
        self.store.reserve(max(lengths))
        self.store.write(keys, values, rows, np.zeros(len(rows)))
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
