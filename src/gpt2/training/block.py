"""A block of the transformer in training: `gpt2.model`'s forward pass, and its gradients written out.

Automatic differentiation keeps what every elementary operation has given until the backward pass comes. Here the
inputs of the large products are kept, or what gives them at little cost, and the rest is computed again. Attention goes
over the queries in slices, each with the keys up to its own end: most of what causality masks is never computed.

Shapes: B batch, T time, E embedding, F = 4E but for some variants, H heads, D head size, N = B*T; a slice has R queries
and S keys.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from gpt2 import model
from gpt2.hparams import GELU, HParams
from gpt2.model import Weights
from gpt2.training.settings.settings import QUERIES

CUBIC = 0.044715  # gelu's, as in `gpt2.model`


class ForwardOptions(NamedTuple):
    """How the forward pass is computed; with the defaults it is `gpt2.model`'s."""

    dtype: tf.DType = tf.float32  # of the matrix products; norms, softmax and the residual stay float32
    dropout: float = 0.0  # share of the embeddings' and of each sub-layer's outputs that is zeroed
    recompute: bool = False  # keep each block's input alone and compute the rest again (Chen et al. 2016)


class BlockActivations(NamedTuple):
    """What the backward pass needs of the forward pass; but for the residual, in the type of the products."""

    x: tf.Tensor  # [N, E] float32, the block's input
    qkv: tf.Tensor  # [N, 3E]
    probs: list[tf.Tensor]  # slices of [B, H, R, S]
    attended: tf.Tensor  # [N, E], before the projection
    middle: tf.Tensor  # [N, E] float32, between attention and mlp
    h: tf.Tensor  # [N, F], before gelu


class Block:
    """The block of a model for a batch of B windows; w: a block's weights, those of its products in `regime.dtype`."""

    def __init__(self, hparams: HParams, regime: ForwardOptions, batch: int) -> None:
        self.hparams, self.regime, self.batch = hparams, regime, batch
        self.exact, self.epsilon = hparams.activation_function == GELU, hparams.layer_norm_epsilon

    def forward(
        self, x: tf.Tensor, w: Weights, scale: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, BlockActivations]:
        """x [N, E], scale [] of the scores, seed [2] of what is dropped -> [N, E], what `backward` needs."""
        qkv = model.linear(model.layer_norm(x, **w["ln_1"], epsilon=self.epsilon), **w["attn"]["c_attn"])
        a, probs = attend(*self._heads(qkv), scale)
        a = self._rows(a)
        projected = tf.cast(model.linear(a, **w["attn"]["c_proj"]), x.dtype)
        middle = x + drop(projected, self.regime, seed, 0)
        h = model.linear(model.layer_norm(middle, **w["ln_2"], epsilon=self.epsilon), **w["mlp"]["c_fc"])
        projected = tf.cast(model.linear(model.gelu(h, self.exact), **w["mlp"]["c_proj"]), x.dtype)
        return middle + drop(projected, self.regime, seed, 1), BlockActivations(x, qkv, probs, a, middle, h)

    def backward(
        self, dy: tf.Tensor, kept: BlockActivations, w: Weights, scale: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, Weights]:
        """dy [N, E] -> the gradients for x [N, E] and, in float32, for w."""
        dh, mlp = self._mlp_gradients(drop(dy, self.regime, seed, 1), kept.h, w["mlp"])
        dx, ln_2, mlp["c_fc"] = norm_linear_gradients(dh, kept.middle, w["ln_2"], w["mlp"]["c_fc"], self.epsilon)
        dy += dx
        d_qkv, attn = self._attention_gradients(drop(dy, self.regime, seed, 0), kept, w["attn"], scale)
        dx, ln_1, attn["c_attn"] = norm_linear_gradients(d_qkv, kept.x, w["ln_1"], w["attn"]["c_attn"], self.epsilon)
        return dy + dx, {"ln_1": ln_1, "attn": attn, "ln_2": ln_2, "mlp": mlp}

    def _mlp_gradients(self, dy: tf.Tensor, h: tf.Tensor, w: Weights) -> tuple[tf.Tensor, dict]:
        """dy [N, E] -> the gradient for h [N, F], that of c_proj."""
        y, slope = gelu_and_slope(h, self.exact)
        dy, c_proj = linear_gradients(dy, y, w["c_proj"])
        return dy * slope, {"c_proj": c_proj}

    def _attention_gradients(
        self, dy: tf.Tensor, kept: BlockActivations, w: Weights, scale: tf.Tensor
    ) -> tuple[tf.Tensor, dict]:
        """dy [N, E] -> the gradient for q, k and v [N, 3E], that of c_proj."""
        da, c_proj = linear_gradients(dy, kept.attended, w["c_proj"])
        # What softmax takes off each gradient, the mean of its row, is at hand where the scores are summed up already.
        mean = tf.reduce_sum(self._per_head(tf.cast(da, tf.float32) * tf.cast(kept.attended, tf.float32)), -1)
        gradients = attend_gradients(self._per_head(da), mean, kept.probs, *self._heads(kept.qkv), scale)
        return tf.reshape(tf.transpose(tf.stack(gradients), [1, 3, 0, 2, 4]), tf.shape(kept.qkv)), {"c_proj": c_proj}

    def _heads(self, qkv: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """[N, 3E] -> three of [B, H, T, D]."""
        parts = tf.reshape(qkv, [self.batch, -1, 3, self.hparams.n_head, self.hparams.head_size])
        q, k, v = tf.unstack(tf.transpose(parts, [2, 0, 3, 1, 4]))
        return q, k, v

    def _per_head(self, x: tf.Tensor) -> tf.Tensor:
        """[N, E] -> [B, H, T, D]"""
        parts = tf.reshape(x, [self.batch, -1, self.hparams.n_head, self.hparams.head_size])
        return tf.transpose(parts, [0, 2, 1, 3])

    def _rows(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, T, D] -> [N, E]"""
        return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [-1, self.hparams.n_embd])


def drop(x: tf.Tensor, regime: ForwardOptions, seed: tf.Tensor, number: int) -> tf.Tensor:
    """Dropout (Srivastava et al. 2014), and its gradient too: the same seed [2] and number, 0 or 1, drop the same."""
    if not regime.dropout:
        return x
    seed = tf.random.split(seed, 2)[number]
    return tf.nn.experimental.stateless_dropout(x, regime.dropout, seed=seed)


def attend(q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, scale: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """q, k, v [B, H, T, D] -> [B, H, T, D], the probabilities of each slice [B, H, R, S]: see `gpt2.model.attend`."""
    q *= tf.cast(scale, q.dtype)
    outputs, probs = [], []
    for start, end in _slices(q):
        scores = tf.cast(tf.matmul(q[:, :, start:end], k[:, :, :end], transpose_b=True), tf.float32)
        seen = tf.range(start, end)[:, None] >= tf.range(end)
        probs.append(tf.cast(tf.nn.softmax(scores + tf.where(seen, 0.0, model.MASKED_SCORE)), q.dtype))
        outputs.append(tf.matmul(probs[-1], v[:, :, :end]))
    return tf.concat(outputs, axis=2), probs


def attend_gradients(
    dy: tf.Tensor,
    mean: tf.Tensor,
    probs: list[tf.Tensor],
    q: tf.Tensor,
    k: tf.Tensor,
    v: tf.Tensor,
    scale: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """dy [B, H, T, D], mean [B, H, T] of what a query's probabilities get -> gradients for q, k, v [B, H, T, D].

    mean: by the probabilities, which makes it the product of `dy` and what `attend` gave (Dao et al. 2022).
    """
    dq, dk, dv = [], [], []
    scale = tf.cast(scale, q.dtype)
    scaled = q * scale
    for (start, end), p in zip(_slices(q), probs):
        d_out = dy[:, :, start:end]
        d_probs = tf.cast(tf.matmul(d_out, v[:, :, :end], transpose_b=True), tf.float32)
        d_scores = tf.cast(p, tf.float32) * (d_probs - mean[:, :, start:end, None])
        d_scores = tf.cast(d_scores, q.dtype)
        dq.append(tf.matmul(d_scores, k[:, :, :end]))
        unseen = [[0, 0], [0, 0], [0, q.shape[2] - end], [0, 0]]
        dk.append(tf.pad(tf.matmul(d_scores, scaled[:, :, start:end], transpose_a=True), unseen))
        dv.append(tf.pad(tf.matmul(p, d_out, transpose_a=True), unseen))
    return tf.concat(dq, axis=2) * scale, tf.add_n(dk), tf.add_n(dv)


def _slices(q: tf.Tensor) -> list[tuple[int, int]]:
    """Where slices of queries begin and end."""
    time = q.shape[2]
    return [(start, min(time, start + QUERIES)) for start in range(0, time, QUERIES)]


def gelu_and_slope(h: tf.Tensor, exact: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """What `gpt2.model.gelu` gives, and its derivative; any shape."""
    if exact:
        share = 0.5 * (1 + tf.math.erf(h / math.sqrt(2)))
        return h * share, share + h * tf.exp(-0.5 * h * h) / math.sqrt(2 * math.pi)
    factor = math.sqrt(2 / math.pi)
    square = h * h
    tanh = tf.tanh(h * (factor + factor * CUBIC * square))
    share = 0.5 * (1 + tanh)
    y = h * share
    return y, share + y * (1 - tanh) * (factor + 3 * factor * CUBIC * square)


def linear_gradients(dy: tf.Tensor, x: tf.Tensor, w: Weights) -> tuple[tf.Tensor, Weights]:
    """dy [N, O], x [N, I], w [I, O] and b -> the gradient for x [N, I] in w's type, for w and b in float32.

    That for b is a product too: products add up in float32, and in bfloat16 a long sum stops growing.
    """
    dy, x = tf.cast(dy, w["w"].dtype), tf.cast(x, w["w"].dtype)
    dw, db = tf.matmul(x, dy, transpose_a=True), _column_sums(dy)
    return tf.matmul(dy, w["w"], transpose_b=True), {"w": tf.cast(dw, tf.float32), "b": tf.cast(db, tf.float32)}


def norm_linear_gradients(
    dy: tf.Tensor, x: tf.Tensor, ln: Weights, w: Weights, epsilon: float
) -> tuple[tf.Tensor, Weights, Weights]:
    """dy [N, O], x [N, E] before the norm that comes before w -> gradients for x [N, E], for the norm, for w."""
    mean = tf.reduce_mean(x, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(x, mean), axis=-1, keepdims=True)
    inverse = tf.math.rsqrt(variance + epsilon)
    normed = (x - mean) * inverse
    dy, d_linear = linear_gradients(dy, normed * ln["g"] + ln["b"], w)
    dy = tf.cast(dy, tf.float32)
    d_norm = {"g": _column_sums(dy * normed), "b": _column_sums(dy)}
    dy *= ln["g"]
    along = tf.reduce_mean(dy * normed, axis=-1, keepdims=True)
    return (dy - tf.reduce_mean(dy, axis=-1, keepdims=True) - normed * along) * inverse, d_norm, d_linear


def _column_sums(x: tf.Tensor) -> tf.Tensor:
    """[N, O] -> [O]"""
    return tf.matmul(tf.ones([1, x.shape[0]], x.dtype), x)[0]
