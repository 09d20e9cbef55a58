"""A backend of TensorFlow: the model's functions, compiled, and a cache that they write into in place.

Shapes: N rows, T time, M blocks of a row, K new tokens of all rows, W positions that want logits, S slots of a block,
L layers, H heads, D head size, E embedding, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from gpt2 import devices, model
from gpt2.engine.backend import Logits, RandomWordsRequest, Segment
from gpt2.engine.kv_cache import BLOCK_SLOTS, BlockPool, blocks_for
from gpt2.engine.quantize import to_int8
from gpt2.formats.weights import LM_HEAD, WTE, Layout, Weight, Weights, nest
from gpt2.hparams import HParams
from gpt2.request import DEFAULT_PRECISION, FLOAT32, INT8

FIRST, GROWTH = 2, 4  # blocks of a row, and by what they are multiplied: each number of them is a shape to XLA


class TensorBlockPool(BlockPool):
    """Keys and values, a tensor of each for a layer [blocks * H, S, D] float32, in which a block is H heads."""

    def __init__(self, hparams: HParams) -> None:
        super().__init__(2 * hparams.n_layer * hparams.n_embd * BLOCK_SLOTS * tf.float32.size)
        self.n_head = hparams.n_head
        shape = [hparams.n_head, BLOCK_SLOTS, hparams.head_size]
        self.tensors = [tf.zeros(shape) for _ in range(2 * hparams.n_layer)]  # replaced as one

    @property
    def capacity(self) -> int:
        return len(self.tensors[0]) // self.n_head

    def has_memory(self, number: int) -> bool:
        return number < self.capacity

    def provide_memory(self, number: int, most: int | None = None) -> None:
        if number >= self.capacity:
            try:
                more = [[0, self.n_head * self.capacity], [0, 0], [0, 0]]
                self.tensors = [tf.pad(tensor, more) for tensor in self.tensors]
            except tf.errors.ResourceExhaustedError as error:
                raise MemoryError(str(error)) from error

    def discard_memory(self, number: int) -> None:
        """Nothing: a tensor cannot shrink."""

    def copy_memory(self, source: int, target: int) -> None:
        froms, to = (tf.range(block * self.n_head, (block + 1) * self.n_head) for block in (source, target))
        self.tensors = [tf.raw_ops.InplaceUpdate(x=x, i=to, v=tf.gather(x, froms)) for x in self.tensors]


class Fed(NamedTuple):
    """Pieces as tensors."""

    tokens: np.ndarray  # [N, T], zeros after a row's last one
    table: np.ndarray  # [N, M] numbers of blocks, anything where a row needs fewer
    starts: np.ndarray  # [N] slots before the new ones
    new: np.ndarray  # [K, 2] row and time of each new token
    slots: np.ndarray  # [K, 2] block and slot that it goes to
    wanted: np.ndarray  # [W, 2] row and time of what wants logits


class TensorFlowBackend:
    """See `engine.backend.Backend`: a model's compiled functions, shared by all batches; none keeps any state.

    weights: nested tensors or variables, used as they are: of variables, what they hold at each call counts; matrices
    may be `model.NarrowMatrix`. device: the name that `tensorflow_startup.start_tensorflow` returns. With
    `compiled=False` the same functions run op by op: slow, and the oracle for the others.
    """

    def __init__(
        self,
        weights: model.Weights,
        hparams: HParams,
        device: str = devices.CPU,
        name: str = "TensorFlow",
        compiled: bool = True,
    ) -> None:
        self.device, self.name = device, name
        self.weights = weights
        self.hparams = hparams
        function = tf.function if compiled else lambda f, **_: f
        # With their shapes left open, each is traced once, whatever the batch size, the length and the cache.
        ids, row = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)
        places = tf.TensorSpec([None, 2], tf.int32)
        cache = [tf.TensorSpec([None, BLOCK_SLOTS, hparams.head_size])] * (2 * hparams.n_layer)
        new = [tf.TensorSpec([None, hparams.n_head, None, hparams.head_size])] * (2 * hparams.n_layer)
        signature = [cache, ids, ids, row, places]
        self.forward = function(self._forward, input_signature=signature)
        self.write = function(self._write, input_signature=[cache, new, places, places])
        # XLA widens a narrow weight while it multiplies; elsewhere a widened copy is made, which only a prefill repays.
        narrow = compiled and isinstance(weights["wte"], model.NarrowMatrix)
        self.step = function(self._forward, input_signature=signature, jit_compile=True) if narrow else self.forward

    def new_pool(self) -> TensorBlockPool:
        return TensorBlockPool(self.hparams)

    def extend(self, blocks: BlockPool, pieces: Sequence[Segment]) -> Logits:
        """See `Backend`."""
        assert isinstance(blocks, TensorBlockPool)
        for piece in pieces:
            self._check(blocks, piece)
        found: list[np.ndarray] = [np.zeros([0, self.hparams.n_vocab], np.float32)] * len(pieces)
        for places in together(pieces):
            some = [pieces[place] for place in places]
            logits = self._extend(blocks, some, self.step if len(some[0].ids) == 1 else self.forward)
            ends = list(itertools.accumulate(piece.n_logits for piece in some))
            for place, lines in zip(places, np.split(logits, ends[:-1])):
                found[place] = lines
        values = np.concatenate(found)
        most = values.max(axis=1, keepdims=True, initial=-np.inf)
        return Logits(values, np.log(np.exp(values - most).sum(axis=1)) + most[:, 0])

    def random_words(self, wanted: Sequence[RandomWordsRequest]) -> list[np.ndarray]:
        """See `Backend`."""
        return [words.numbers.words(words.token, self.hparams.n_vocab, words.ids) for words in wanted]

    def _check(self, blocks: TensorBlockPool, piece: Segment) -> None:
        end = piece.start + len(piece.ids)
        if not 0 <= piece.n_logits <= len(piece.ids) > 0:
            raise ValueError("counts must be from 1, and at least what is wanted")
        if piece.start < 0 or end > min(len(piece.blocks) * BLOCK_SLOTS, self.hparams.n_ctx):
            raise ValueError("positions out of range")
        if not all(0 <= block < blocks.capacity for block in piece.blocks):
            raise ValueError("blocks out of range")
        if not 0 <= np.min(piece.ids) <= np.max(piece.ids) < self.hparams.n_vocab:
            raise ValueError("ids outside the vocabulary")

    def _extend(self, blocks: TensorBlockPool, pieces: Sequence[Segment], forward: Callable) -> np.ndarray:
        """The logits of what is wanted [W, V]. Other threads wait until the cache has its new tensors."""
        with blocks.lock:
            fed = tensors(pieces, padded=forward is not self.forward)
            logits, new = forward(blocks.tensors, fed.tokens, fed.table, fed.starts, fed.wanted)
            blocks.tensors = self.write(blocks.tensors, new, fed.new, fed.slots)
        return logits.numpy()[: sum(piece.n_logits for piece in pieces)]

    def _forward(
        self, blocks: list[tf.Tensor], tokens: tf.Tensor, table: tf.Tensor, starts: tf.Tensor, wanted: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """What is in `Fed` -> logits [W, V], and the new keys and values of all layers [N, H, T, D] each."""
        cache = [self._past(tensor, table) for tensor in blocks]
        half = self.hparams.n_layer
        past = model.Cache(cache[:half], cache[half:], starts)
        x, keys, values = model.hidden_states(self.weights, self.hparams, tokens, past)
        x = tf.gather_nd(x, wanted)[:, None]  # [W, 1, E]: no logits for the rest of a prompt
        return model.logits(self.weights, x)[:, 0], [*keys, *values]

    def _past(self, tensor: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
        """The blocks [N, M] of each row, one after another: [N, H, M * S, D]."""
        rows, n_blocks = tf.unstack(tf.shape(table))
        n_head, head_size = self.hparams.n_head, self.hparams.head_size
        heads = table[:, None] * n_head + tf.range(n_head)[:, None]  # [N, H, M]
        return tf.reshape(tf.gather(tensor, heads), [rows, n_head, n_blocks * BLOCK_SLOTS, head_size])

    def _write(
        self, blocks: list[tf.Tensor], news: list[tf.Tensor], new: tf.Tensor, slots: tf.Tensor
    ) -> list[tf.Tensor]:
        """Puts the new keys and values [N, H, T, D], those that are at `new` [K, 2] in their rows, into the cache's
        slots [K, 2], in place, and returns the cache's tensors, which take the place of the old ones.

        In place is what makes a step cost the new token and not the whole cache: `tf.Variable.assign` on a slice makes
        every later read copy the variable, `tf.tensor_scatter_nd_update` copies a tensor that anybody still holds.
        """
        n_head, head_size = self.hparams.n_head, self.hparams.head_size
        heads = slots[:, :1] * n_head + tf.range(n_head)  # [K, H]
        places = tf.reshape(heads * BLOCK_SLOTS + slots[:, 1:], [-1])  # [K * H]
        written = []
        for tensor, fresh in zip(blocks, news):
            lines = tf.reshape(tensor, [-1, head_size])  # [blocks * H * S, D]
            values = tf.reshape(tf.gather_nd(tf.transpose(fresh, [0, 2, 1, 3]), new), [-1, head_size])  # [K * H, D]
            lines = tf.raw_ops.InplaceUpdate(x=lines, i=places, v=values)
            written.append(tf.reshape(lines, tf.shape(tensor)))
        return written


def together(pieces: Sequence[Segment]) -> list[list[int]]:
    """Which pieces are computed at once, by their places: all steps, and all prompts from their first id on.

    What goes on in the midst of a prompt comes alone, without padding, for which the window may have no positions.
    """
    steps = [place for place, piece in enumerate(pieces) if len(piece.ids) == 1]
    begins = [place for place, piece in enumerate(pieces) if len(piece.ids) > 1 and not piece.start]
    others = [[place] for place, piece in enumerate(pieces) if len(piece.ids) > 1 and piece.start]
    return [places for places in (steps, begins, *others) if places]


def tensors(pieces: Sequence[Segment], padded: bool) -> Fed:
    """Pieces as tensors. padded: in few different shapes, with rows that mean nothing, for XLA compiles each shape."""
    counts = [len(piece.ids) for piece in pieces]
    n_rows, n_blocks = len(pieces), max(blocks_for(piece.start) for piece in pieces)
    if padded:
        n_rows = 1 << (n_rows - 1).bit_length()
        n_blocks = next(n for n in (FIRST * GROWTH**i for i in itertools.count()) if n >= n_blocks)
    tokens, table = np.zeros((n_rows, max(counts)), np.int32), np.zeros((n_rows, n_blocks), np.int32)
    for row, piece in enumerate(pieces):
        tokens[row, : counts[row]] = piece.ids
        there = piece.blocks[:n_blocks]
        table[row, : len(there)] = there
    new = [(row, time) for row, count in enumerate(counts) for time in range(count)]
    slots = [(piece.blocks[slot // BLOCK_SLOTS], slot % BLOCK_SLOTS) for piece in pieces for slot in _new_slots(piece)]
    wanted = [
        (row, time) for row, piece in enumerate(pieces) for time in range(counts[row] - piece.n_logits, counts[row])
    ]
    if padded:
        wanted += [(0, 0)] * (n_rows - len(wanted))
    starts = [piece.start for piece in pieces] + [0] * (n_rows - len(pieces))
    return Fed(tokens, table, np.array(starts, np.int32), *(_pairs(part) for part in (new, slots, wanted)))


def _pairs(pairs: list[tuple[int, int]]) -> np.ndarray:
    return np.array(pairs, np.int32).reshape(-1, 2)


def _new_slots(piece: Segment) -> range:
    return range(piece.start, piece.start + len(piece.ids))


def as_tensors(weights: Weights, precision: str = DEFAULT_PRECISION) -> model.Weights:
    """Weights as `model.py` wants them, nested: matrices [I, O] and wte [V, E], or in narrow types.

    Raises GPT2Error if they turn out to be damaged.
    """
    return nest((name, _tensor(name, weight, precision)) for name, weight in weights.items())


def _tensor(name: str, weight: Weight, precision: str) -> tf.Tensor | model.NarrowMatrix:
    if weight.layout is None or precision == FLOAT32:
        wanted = Layout.OUT_IN if name in (WTE, LM_HEAD) else Layout.IN_OUT
        return tf.constant(weight.array() if weight.layout in (None, wanted) else weight.array().T)
    rows = weight.pieces() if weight.layout is Layout.OUT_IN else [weight.array().T]
    parts = [_narrow(part, precision) for part in rows]
    return parts[0] if len(parts) == 1 else model.NarrowMatrix(*(tf.concat(column, axis=0) for column in zip(*parts)))


def _narrow(w: np.ndarray, precision: str) -> model.NarrowMatrix:
    """w [O, I] float32 -> the same in a narrow type, each row with a scale of its own."""
    if precision == INT8:
        return model.NarrowMatrix(*map(tf.constant, to_int8(w)))
    return model.NarrowMatrix(tf.cast(w, precision), tf.ones([len(w)]))
