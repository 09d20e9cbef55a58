"""The TensorFlow backend: the model's compiled functions, and a cache that they update in place.

Shapes: N sequences, T time, M blocks of a sequence, K new ids of all sequences, W positions that need logits, S slots
of a block, L layers, H heads, D head size, E embedding, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from gpt2 import devices, model
from gpt2.engine.backend import Logits, RandomWordsRequest, Segment, checked_logits
from gpt2.engine.kv_cache import BLOCK_SLOTS, BlockPool, blocks_for
from gpt2.engine.quantize import bfloat16_overflow, to_int8
from gpt2.formats.weights import LM_HEAD, WTE, Layout, Weight, Weights, is_moderate, nest
from gpt2.hparams import HParams
from gpt2.request import DEFAULT_PRECISION, FLOAT32, INT8

# XLA compiles each shape once, so a sequence's number of blocks is rounded up to FIRST_BLOCKS * BLOCK_GROWTH**n.
FIRST_BLOCKS = 2
BLOCK_GROWTH = 4


class TensorBlockPool(BlockPool):
    """Keys and values: two tensors per layer [blocks * H, S, D] float32, in which a block is H rows."""

    def __init__(self, hparams: HParams) -> None:
        """Create a pool with memory for one block."""
        super().__init__(2 * hparams.n_layer * hparams.n_embd * BLOCK_SLOTS * tf.float32.size)
        self.n_head = hparams.n_head
        shape = [hparams.n_head, BLOCK_SLOTS, hparams.head_size]
        self.tensors = [tf.zeros(shape) for _ in range(2 * hparams.n_layer)]  # always replaced together

    @property
    def capacity(self) -> int:
        """The number of blocks that have memory."""
        return len(self.tensors[0]) // self.n_head

    def has_memory(self, block: int) -> bool:
        """Implement `BlockPool.has_memory`."""
        return block < self.capacity

    def provide_memory(self, block: int, max_bytes: int | None = None) -> None:
        """Double the tensors' size if the block is beyond it."""
        if block >= self.capacity:
            try:
                paddings = [[0, self.n_head * self.capacity], [0, 0], [0, 0]]
                self.tensors = [tf.pad(tensor, paddings) for tensor in self.tensors]
            except tf.errors.ResourceExhaustedError as error:
                raise MemoryError(str(error)) from error

    def discard_memory(self, block: int) -> None:
        """Do nothing: a tensor cannot shrink."""

    def copy_memory(self, source: int, target: int) -> None:
        """Implement `BlockPool.copy_memory`."""
        source_rows = tf.range(source * self.n_head, (source + 1) * self.n_head)
        target_rows = tf.range(target * self.n_head, (target + 1) * self.n_head)
        self.tensors = [
            tf.raw_ops.InplaceUpdate(x=tensor, i=target_rows, v=tf.gather(tensor, source_rows))
            for tensor in self.tensors
        ]


class SegmentTensors(NamedTuple):
    """Segments as tensors.

    Attributes:
        tokens: [N, T] ids, zeros after a segment's last one.
        block_table: [N, M] numbers of blocks, arbitrary after a sequence's last one.
        starts: [N] number of slots before the new ids.
        new: [K, 2] sequence and time of each new id.
        slots: [K, 2] block and slot that each new id is written to.
        outputs: [W, 2] sequence and time of each position that needs logits.
    """

    tokens: np.ndarray
    block_table: np.ndarray
    starts: np.ndarray
    new: np.ndarray
    slots: np.ndarray
    outputs: np.ndarray


class TensorFlowBackend:
    """A backend that consists of a model's compiled functions, which hold no state and serve all batches."""

    def __init__(
        self,
        weights: model.Weights,
        hparams: HParams,
        device: str = devices.CPU,
        name: str = "TensorFlow",
        compiled: bool = True,
    ) -> None:
        """Prepare the model's functions.

        Args:
            weights: Nested tensors or variables; matrices may be `model.NarrowMatrix`. Each call uses the current
                values of variables.
            hparams: The model's sizes.
            device: The device that TensorFlow computes on, as `tensorflow_startup.start_tensorflow` returns it.
            name: The name of the backend, as users see it.
            compiled: Whether the functions are compiled. If False, they run op by op, which is slow but easy to check.
        """
        self.device = device
        self.name = name
        self.weights = weights
        self.hparams = hparams
        function = tf.function if compiled else lambda f, **_: f
        # With open shapes each function is traced once, whatever the batch size, the length and the cache.
        matrix = tf.TensorSpec([None, None], tf.int32)
        vector = tf.TensorSpec([None], tf.int32)
        pairs = tf.TensorSpec([None, 2], tf.int32)
        cache = [tf.TensorSpec([None, BLOCK_SLOTS, hparams.head_size])] * (2 * hparams.n_layer)
        new = [tf.TensorSpec([None, hparams.n_head, None, hparams.head_size])] * (2 * hparams.n_layer)
        signature = [cache, matrix, matrix, vector, pairs]
        self.forward = function(self._forward, input_signature=signature)
        self.write = function(self._write, input_signature=[cache, new, pairs, pairs])
        self.step = self.forward
        # XLA widens a narrow weight while it multiplies. Without XLA, a widened copy is made,
        # which is worthwhile only for prefill.
        if compiled and isinstance(weights["wte"], model.NarrowMatrix):
            self.step = function(self._forward, input_signature=signature, jit_compile=True)

    def new_pool(self) -> TensorBlockPool:
        """Implement `Backend.new_pool`."""
        return TensorBlockPool(self.hparams)

    def extend(self, pool: BlockPool, segments: Sequence[Segment]) -> Logits:
        """Implement `Backend.extend`."""
        assert isinstance(pool, TensorBlockPool)
        for segment in segments:
            self._check(pool, segment)
        rows: list[np.ndarray] = [np.zeros([0, self.hparams.n_vocab], np.float32)] * len(segments)
        for indices in group_segments(segments):
            group = [segments[index] for index in indices]
            logits = self._extend(pool, group, self.step if len(group[0].ids) == 1 else self.forward)
            ends = list(itertools.accumulate(segment.n_logits for segment in group))
            for index, values in zip(indices, np.split(logits, ends[:-1])):
                rows[index] = values
        values = np.concatenate(rows)
        largest = values.max(axis=1, keepdims=True, initial=-np.inf)
        with np.errstate(all="ignore"):  # weights that are too large have their own error
            log_totals = np.log(np.exp(values - largest).sum(axis=1)) + largest[:, 0]
        return checked_logits(values, log_totals)

    def random_words(self, requests: Sequence[RandomWordsRequest]) -> list[np.ndarray]:
        """Implement `Backend.random_words`."""
        return [request.numbers.words(request.token, self.hparams.n_vocab, request.ids) for request in requests]

    def _check(self, pool: TensorBlockPool, segment: Segment) -> None:
        end = segment.start + len(segment.ids)
        if not 0 <= segment.n_logits <= len(segment.ids) > 0:
            raise ValueError("a segment needs at least one id, and at most as many logits as ids")
        if segment.start < 0 or end > min(len(segment.blocks) * BLOCK_SLOTS, self.hparams.n_ctx):
            raise ValueError("a segment's positions exceed its blocks or the window")
        if not all(0 <= block < pool.capacity for block in segment.blocks):
            raise ValueError("a segment has a block that the cache does not have")
        if not 0 <= np.min(segment.ids) <= np.max(segment.ids) < self.hparams.n_vocab:
            raise ValueError("a segment has an id outside the vocabulary")

    def _extend(self, pool: TensorBlockPool, segments: Sequence[Segment], forward: Callable) -> np.ndarray:
        """Return the logits [W, V]; other threads wait until the cache has its new tensors."""
        with pool.lock:
            inputs = segment_tensors(segments, padded=forward is not self.forward)
            logits, new = forward(pool.tensors, inputs.tokens, inputs.block_table, inputs.starts, inputs.outputs)
            pool.tensors = self.write(pool.tensors, new, inputs.new, inputs.slots)
        return logits.numpy()[: sum(segment.n_logits for segment in segments)]

    def _forward(
        self,
        cache_tensors: list[tf.Tensor],
        tokens: tf.Tensor,
        block_table: tf.Tensor,
        starts: tf.Tensor,
        outputs: tf.Tensor,
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Compute the model for segments.

        Args:
            cache_tensors: The cache's tensors.
            tokens: Ids [N, T]; this and the other arguments are the fields of `SegmentTensors`.
            block_table: Numbers of blocks [N, M].
            starts: Numbers of slots before the new ids [N].
            outputs: Positions that need logits [W, 2].

        Returns:
            The logits [W, V], and the new keys and values of all layers, [N, H, T, D] each.
        """
        past = [self._gather_past(tensor, block_table) for tensor in cache_tensors]
        n_layer = self.hparams.n_layer
        cache = model.Cache(past[:n_layer], past[n_layer:], starts)
        x, keys, values = model.hidden_states(self.weights, self.hparams, tokens, cache)
        x = tf.gather_nd(x, outputs)[:, None]  # [W, 1, E]: no logits for the rest of a prompt
        return model.logits(self.weights, x)[:, 0], [*keys, *values]

    def _gather_past(self, tensor: tf.Tensor, block_table: tf.Tensor) -> tf.Tensor:
        """Return the content of each sequence's blocks [N, M], joined to [N, H, M * S, D]."""
        n_sequences, n_blocks = tf.unstack(tf.shape(block_table))
        n_head = self.hparams.n_head
        head_size = self.hparams.head_size
        rows = block_table[:, None] * n_head + tf.range(n_head)[:, None]  # [N, H, M]
        return tf.reshape(tf.gather(tensor, rows), [n_sequences, n_head, n_blocks * BLOCK_SLOTS, head_size])

    def _write(
        self, cache_tensors: list[tf.Tensor], new_tensors: list[tf.Tensor], new: tf.Tensor, slots: tf.Tensor
    ) -> list[tf.Tensor]:
        """Write new keys and values into the cache in place.

        The cost of a step then depends on the new ids and not on the size of the cache. `tf.Variable.assign` on a slice
        would make every later read copy the variable, and `tf.tensor_scatter_nd_update` would copy a referenced tensor.

        Args:
            cache_tensors: The cache's tensors.
            new_tensors: The new keys and values of all layers, [N, H, T, D] each.
            new: [K, 2] sequence and time of each new id.
            slots: [K, 2] block and slot of each new id.

        Returns:
            The cache's tensors, which replace the old ones.
        """
        n_head = self.hparams.n_head
        head_size = self.hparams.head_size
        rows = slots[:, :1] * n_head + tf.range(n_head)  # [K, H]
        lines = tf.reshape(rows * BLOCK_SLOTS + slots[:, 1:], [-1])  # [K * H]
        written = []
        for tensor, new_tensor in zip(cache_tensors, new_tensors):
            flat = tf.reshape(tensor, [-1, head_size])  # [blocks * H * S, D]
            by_time = tf.transpose(new_tensor, [0, 2, 1, 3])  # [N, T, H, D]
            values = tf.reshape(tf.gather_nd(by_time, new), [-1, head_size])  # [K * H, D]
            flat = tf.raw_ops.InplaceUpdate(x=flat, i=lines, v=values)
            written.append(tf.reshape(flat, tf.shape(tensor)))
        return written


def group_segments(segments: Sequence[Segment]) -> list[list[int]]:
    """Return the indices of the segments that are computed together: all single ids, and all starts of prompts.

    A later chunk of a prompt is computed alone and without padding, for which the window may have no positions left.
    """
    steps: list[int] = []
    starts: list[int] = []
    later_chunks: list[list[int]] = []
    for index, segment in enumerate(segments):
        if len(segment.ids) == 1:
            steps.append(index)
        elif not segment.start:
            starts.append(index)
        else:
            later_chunks.append([index])
    return [indices for indices in (steps, starts, *later_chunks) if indices]


def segment_tensors(segments: Sequence[Segment], padded: bool) -> SegmentTensors:
    """Convert segments to tensors.

    Args:
        segments: The segments.
        padded: Whether to pad with unused rows and blocks, so that XLA has fewer shapes to compile.
    """
    counts = [len(segment.ids) for segment in segments]
    n_rows = len(segments)
    n_blocks = max(blocks_for(segment.start) for segment in segments)
    if padded:
        n_rows = 1 << (n_rows - 1).bit_length()
        sizes = (FIRST_BLOCKS * BLOCK_GROWTH**power for power in itertools.count())
        n_blocks = next(size for size in sizes if size >= n_blocks)
    tokens = np.zeros((n_rows, max(counts)), np.int32)
    block_table = np.zeros((n_rows, n_blocks), np.int32)
    starts = np.zeros(n_rows, np.int32)
    new: list[tuple[int, int]] = []
    slots: list[tuple[int, int]] = []
    outputs: list[tuple[int, int]] = []
    for row, segment in enumerate(segments):
        count = counts[row]
        blocks = segment.blocks[:n_blocks]
        tokens[row, :count] = segment.ids
        block_table[row, : len(blocks)] = blocks
        starts[row] = segment.start
        new += [(row, time) for time in range(count)]
        positions = range(segment.start, segment.start + count)
        slots += [(segment.blocks[position // BLOCK_SLOTS], position % BLOCK_SLOTS) for position in positions]
        outputs += [(row, time) for time in range(count - segment.n_logits, count)]
    if padded:
        outputs += [(0, 0)] * (n_rows - len(outputs))
    return SegmentTensors(tokens, block_table, starts, _to_pairs(new), _to_pairs(slots), _to_pairs(outputs))


def _to_pairs(pairs: list[tuple[int, int]]) -> np.ndarray:
    return np.array(pairs, np.int32).reshape(-1, 2)


def as_tensors(weights: Weights, precision: str = DEFAULT_PRECISION) -> model.Weights:
    """Return nested weights as `model.py` takes them: matrices [I, O] and wte [V, E], or narrow matrices.

    Raises:
        GPT2Error: A weight is damaged.
    """
    return nest((name, _as_tensor(name, weight, precision)) for name, weight in weights.items())


def _as_tensor(name: str, weight: Weight, precision: str) -> tf.Tensor | model.NarrowMatrix:
    if weight.layout is None or precision == FLOAT32:
        layout = Layout.OUT_IN if name in (WTE, LM_HEAD) else Layout.IN_OUT
        return tf.constant(weight.array() if weight.layout in (None, layout) else weight.array().T)
    rows = weight.unchecked_pieces() if weight.layout is Layout.OUT_IN else [weight.unchecked_array().T]
    parts = [_narrow(weight, part, precision) for part in rows]
    return parts[0] if len(parts) == 1 else model.NarrowMatrix(*(tf.concat(column, axis=0) for column in zip(*parts)))


def _narrow(weight: Weight, w: np.ndarray, precision: str) -> model.NarrowMatrix:
    """Return rows w [O, I] float32 of a weight in a narrow type, each row with its own scale.

    Raises:
        GPT2Error: A number is NaN, infinite or too large for the type.
    """
    is_checked = is_moderate(w.T if weight.layout is Layout.IN_OUT else w)  # in the order of the memory
    if not is_checked:
        weight.check_finite(w)
    if precision == INT8:
        return model.NarrowMatrix(*map(tf.constant, to_int8(w)))
    narrow = tf.cast(w, precision)
    if not is_checked and not tf.reduce_all(tf.math.is_finite(narrow)):
        raise bfloat16_overflow(weight, w)
    return model.NarrowMatrix(narrow, tf.ones([len(w)]))
