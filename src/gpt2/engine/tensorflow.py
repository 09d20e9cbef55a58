"""A backend of TensorFlow: the model's functions, compiled, and a cache that they write into in place.

Shapes: B batch, N rows of it, T time, P cache slots, L layers, H heads, D head size, E embedding, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from gpt2 import machine, model
from gpt2.engine.backend import Rows
from gpt2.engine.cache import KeyValueCache, slot_bytes
from gpt2.engine.quantize import to_int8
from gpt2.formats.weights import WTE, Layout, Weight, Weights, nest
from gpt2.hparams import HParams
from gpt2.request import DEFAULT_PRECISION, FLOAT32, INT8


class TensorCache(KeyValueCache):
    """Keys and values as tensors [B, H, P, D] float32."""

    def zeros(self, shape: list[int]) -> tf.Tensor:
        return tf.zeros(shape)

    def grown(self, array: tf.Tensor, more: int) -> tf.Tensor:
        return tf.pad(array, [[0, 0], [0, 0], [0, more], [0, 0]])

    def taken(self, array: tf.Tensor, places: np.ndarray) -> tf.Tensor:
        return tf.gather(array, places)

    def put(self, array: tf.Tensor, to: np.ndarray, froms: np.ndarray) -> tf.Tensor:
        return tf.raw_ops.InplaceUpdate(x=array, i=to, v=tf.gather(array, froms))


class TensorFlowBackend:
    """See `engine.backend.Backend`: a model's compiled functions, shared by all batches; none keeps any state.

    weights: nested tensors or variables, used as they are: of variables, what they hold at each call counts; matrices
    may be `model.Narrow`. device: what TensorFlow computes on, as `machine.start` says. With `compiled=False` the same
    functions run op by op: slow, and the oracle for the others.
    """

    def __init__(
        self,
        weights: model.Weights,
        hparams: HParams,
        device: str = machine.CPU,
        name: str = "TensorFlow",
        compiled: bool = True,
    ) -> None:
        self.device, self.name = device, name
        self.weights = weights
        self.hparams, self.slot_bytes = hparams, slot_bytes(hparams, tf.float32.size)
        function = tf.function if compiled else lambda f, **_: f
        # With their shapes left open, each is traced once, whatever the batch size, the length and the cache.
        ids, row = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)
        heads = [tf.TensorSpec([None, hparams.n_head, None, hparams.head_size])] * hparams.n_layer
        signature = [ids, row, model.Cache(heads, heads, row)]
        self.forward = function(self._forward, input_signature=signature)
        self.write = function(self._write, input_signature=[heads * 2, heads * 2, row, row])
        # XLA widens a narrow weight while it multiplies; elsewhere a widened copy is made, which only a prefill repays.
        narrow = compiled and isinstance(weights["wte"], model.Narrow)
        self.step = function(self._forward, input_signature=signature, jit_compile=True) if narrow else self.forward

    def new_cache(self, batch: int) -> TensorCache:
        return TensorCache(self.hparams, batch)

    def extend(
        self, cache: TensorCache, rows: Rows, tokens: np.ndarray, starts: np.ndarray, counts: np.ndarray
    ) -> np.ndarray:
        """See `Backend`."""
        if np.min(counts) < 1 or np.max(counts) > tokens.shape[1]:
            raise ValueError("counts must be from 1 to the tokens' width")
        if np.min(starts) < 0 or np.max(starts + counts) > min(cache.capacity, self.hparams.n_ctx):
            raise ValueError("positions out of range")
        if not starts.any():
            return self._prefill(cache, rows, tokens, counts)
        if tokens.shape[1] == 1:
            return self._step(cache, rows, tokens[:, 0], starts)
        parts = zip(rows, tokens, starts, counts)  # each without padding, for which its row may have no room
        return np.concatenate([self._chunk(cache, row, ids[:count], start) for row, ids, start, count in parts])

    def _prefill(self, cache: TensorCache, rows: Rows, tokens: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """tokens [N, T] from each row's first slot on."""
        hparams, starts = self.hparams, np.zeros(len(rows), np.int32)
        nothing = [tf.zeros([len(rows), hparams.n_head, 0, hparams.head_size])] * hparams.n_layer
        empty = model.Cache(nothing, nothing, tf.constant(starts, tf.int32))
        logits, keys, values = self.forward(tf.constant(tokens, tf.int32), tf.constant(counts, tf.int32), empty)
        self.store(cache, keys, values, cache.places(rows), starts)
        return logits.numpy()

    def _chunk(self, cache: TensorCache, row: int, ids: np.ndarray, start: int) -> np.ndarray:
        """ids [T] from a row's slot `start` on."""
        places, starts = cache.places([row]), np.array([start], np.int32)
        keys, values = ([tf.gather(array, places) for array in kind] for kind in (cache.keys, cache.values))
        past = model.Cache(keys, values, starts)
        logits, keys, values = self.forward(ids[None].astype(np.int32), np.array([len(ids)], np.int32), past)
        self.store(cache, keys, values, places, starts)
        return logits.numpy()

    def _step(self, cache: TensorCache, rows: Rows, tokens: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """tokens [N], one a row. All rows of the cache are fed, since to pick some would copy it."""
        places = cache.places(rows)
        all_tokens, all_starts = np.zeros((2, len(cache.rows)), np.int32)
        all_tokens[places], all_starts[places] = tokens, starts
        past = model.Cache(cache.keys, cache.values, tf.constant(all_starts))
        logits, keys, values = self.step(tf.constant(all_tokens[:, None]), tf.ones_like(past.lengths), past)
        if len(places) < len(all_tokens):
            keys, values = ([tf.gather(new, places) for new in news] for news in (keys, values))
        self.store(cache, keys, values, places, starts)
        return logits.numpy()[places]

    def store(
        self,
        cache: TensorCache,
        keys: list[tf.Tensor],
        values: list[tf.Tensor],
        places: np.ndarray,
        starts: np.ndarray,
    ) -> None:
        """Puts keys and values L x [N, H, T, D] into the slots from starts [N] of these places [N] in the cache."""
        places, starts = tf.constant(places, tf.int32), tf.constant(starts, tf.int32)
        written = self.write([*cache.keys, *cache.values], [*keys, *values], places, starts)
        cache.held = cache.held._replace(keys=written[: len(keys)], values=written[len(keys) :])

    def _forward(self, tokens: tf.Tensor, counts: tf.Tensor, cache: model.Cache) -> model.Hidden:
        """tokens [N, T], of which the first counts[n] of row n mean something -> logits of each row's last one [N, V],
        keys and values L x [N, H, T, D]."""
        x, keys, values = model.hidden(self.weights, self.hparams, tokens, cache)
        last = tf.gather(x, counts - 1, batch_dims=1)[:, None]  # [N, 1, E]: no logits for the rest of a prompt
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


def as_tensors(weights: Weights, precision: str = DEFAULT_PRECISION) -> model.Weights:
    """Weights as `model.py` wants them, nested: matrices [I, O] and wte [V, E], or in narrow types.

    Raises GPT2Error if they turn out to be damaged.
    """
    return nest((name, _tensor(name, weight, precision)) for name, weight in weights.items())


def _tensor(name: str, weight: Weight, precision: str) -> tf.Tensor | model.Narrow:
    if weight.layout is None or precision == FLOAT32:
        wanted = Layout.OUT_IN if name == WTE else Layout.IN_OUT
        return tf.constant(weight.array() if weight.layout in (None, wanted) else weight.array().T)
    rows = weight.pieces() if weight.layout is Layout.OUT_IN else [weight.array().T]
    parts = [_narrow(part, precision) for part in rows]
    return parts[0] if len(parts) == 1 else model.Narrow(*(tf.concat(column, axis=0) for column in zip(*parts)))


def _narrow(w: np.ndarray, precision: str) -> model.Narrow:
    """w [O, I] float32 -> the same in a narrow type, each row with a scale of its own."""
    if precision == INT8:
        return model.Narrow(*map(tf.constant, to_int8(w)))
    return model.Narrow(tf.cast(w, precision), tf.ones([len(w)]))
