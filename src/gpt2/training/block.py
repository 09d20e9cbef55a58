"""A transformer block in training: `gpt2.model`'s forward pass, and a hand-written backward pass.

Automatic differentiation would store the result of every elementary operation until the backward pass. Here only the
inputs of the large matrix products are stored, or cheaper tensors that give them, and the rest is computed again.
Attention processes the queries in slices, each with the keys up to the slice's end, so that most of the masked scores
are never computed.

Shapes: B batch, T time, E embedding, F inner size of the mlp (4E except in some variants), H heads, D head size,
N = B*T; a slice of attention has R queries and S keys; I and O are the input and output sizes of a linear layer.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from gpt2 import model
from gpt2.hparams import GELU, HParams
from gpt2.model import Weights
from gpt2.training.update_slices import QUERY_ROWS

GELU_CUBIC = 0.044715  # coefficient of the tanh approximation, as in `gpt2.model`


class ForwardOptions(NamedTuple):
    """Options of the forward pass; with the defaults it equals `gpt2.model`'s."""

    dtype: tf.DType = tf.float32  # of the matrix products; norms, softmax and the residual stream stay float32
    dropout: float = 0.0  # share of the embeddings and of each sub-layer's outputs that is set to zero
    recompute: bool = False  # store only each block's input and compute the rest again (Chen et al. 2016)


class BlockActivations(NamedTuple):
    """The tensors that the backward pass needs from the forward pass, in the type of the matrix products."""

    x: tf.Tensor  # [N, E] float32, the block's input
    qkv: tf.Tensor  # [N, 3E]
    probs: list[tf.Tensor]  # attention probabilities, slices of [B, H, R, S]
    attended: tf.Tensor  # [N, E], the heads' outputs before the projection
    middle: tf.Tensor  # [N, E] float32, the residual stream between attention and mlp
    h: tf.Tensor  # [N, F], the mlp's hidden layer before gelu


class Block:
    """A block of a model for a batch of B windows.

    The methods take the weights of one block, whose matrices have the type `options.dtype`.
    """

    def __init__(self, hparams: HParams, options: ForwardOptions, batch_size: int) -> None:
        """Set the model's hyperparameters and the number of windows."""
        self.hparams = hparams
        self.options = options
        self.batch_size = batch_size
        self.exact_gelu = hparams.activation_function == GELU
        self.epsilon = hparams.layer_norm_epsilon

    def forward(
        self, x: tf.Tensor, w: Weights, scale: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, BlockActivations]:
        """Compute the block.

        Args:
            x: The block's input [N, E], float32.
            w: The block's weights.
            scale: Factor of the attention scores, a scalar.
            seed: Seed [2] of the dropout.

        Returns:
            The block's output [N, E], and the activations that `backward` needs.
        """
        qkv = model.linear(model.layer_norm(x, **w["ln_1"], epsilon=self.epsilon), **w["attn"]["c_attn"])
        heads, probs = attend(*self._split_qkv(qkv), scale)
        attended = self._merge_heads(heads)
        projected = tf.cast(model.linear(attended, **w["attn"]["c_proj"]), x.dtype)
        middle = x + drop(projected, self.options, seed, 0)
        h = model.linear(model.layer_norm(middle, **w["ln_2"], epsilon=self.epsilon), **w["mlp"]["c_fc"])
        projected = tf.cast(model.linear(model.gelu(h, self.exact_gelu), **w["mlp"]["c_proj"]), x.dtype)
        activations = BlockActivations(x, qkv, probs, attended, middle, h)
        return middle + drop(projected, self.options, seed, 1), activations

    def backward(
        self, dy: tf.Tensor, activations: BlockActivations, w: Weights, scale: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, Weights]:
        """Return the gradients of the block's input [N, E] and, in float32, of its weights.

        Args:
            dy: The gradient of the block's output [N, E].
            activations: The activations that `forward` returned.
            w: The block's weights.
            scale: As in `forward`.
            seed: As in `forward`.
        """
        dh, mlp = self._mlp_gradients(drop(dy, self.options, seed, 1), activations.h, w["mlp"])
        dx, ln_2, mlp["c_fc"] = norm_linear_gradients(dh, activations.middle, w["ln_2"], w["mlp"]["c_fc"], self.epsilon)
        dy += dx
        d_qkv, attn = self._attention_gradients(drop(dy, self.options, seed, 0), activations, w["attn"], scale)
        dx, ln_1, attn["c_attn"] = norm_linear_gradients(
            d_qkv, activations.x, w["ln_1"], w["attn"]["c_attn"], self.epsilon
        )
        return dy + dx, {"ln_1": ln_1, "attn": attn, "ln_2": ln_2, "mlp": mlp}

    def _mlp_gradients(self, dy: tf.Tensor, h: tf.Tensor, w: Weights) -> tuple[tf.Tensor, dict]:
        """Return the gradients of h [N, F] and of c_proj, from the mlp's gradient dy [N, E]."""
        y, slope = gelu_and_slope(h, self.exact_gelu)
        dy, c_proj = linear_gradients(dy, y, w["c_proj"])
        return dy * slope, {"c_proj": c_proj}

    def _attention_gradients(
        self, dy: tf.Tensor, activations: BlockActivations, w: Weights, scale: tf.Tensor
    ) -> tuple[tf.Tensor, dict]:
        """Return the gradients of qkv [N, 3E] and of c_proj, from the attention's gradient dy [N, E]."""
        d_attended, c_proj = linear_gradients(dy, activations.attended, w["c_proj"])
        products = tf.cast(d_attended, tf.float32) * tf.cast(activations.attended, tf.float32)
        mean = tf.reduce_sum(self._split_heads(products), -1)  # as in `attend_gradients`
        gradients = attend_gradients(
            self._split_heads(d_attended), mean, activations.probs, *self._split_qkv(activations.qkv), scale
        )
        d_qkv = tf.reshape(tf.transpose(tf.stack(gradients), [1, 3, 0, 2, 4]), tf.shape(activations.qkv))
        return d_qkv, {"c_proj": c_proj}

    def _split_qkv(self, qkv: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return queries, keys and values, each [B, H, T, D], from qkv [N, 3E]."""
        parts = tf.reshape(qkv, [self.batch_size, -1, 3, self.hparams.n_head, self.hparams.head_size])
        q, k, v = tf.unstack(tf.transpose(parts, [2, 0, 3, 1, 4]))
        return q, k, v

    def _split_heads(self, x: tf.Tensor) -> tf.Tensor:
        """Reshape [N, E] to [B, H, T, D]."""
        parts = tf.reshape(x, [self.batch_size, -1, self.hparams.n_head, self.hparams.head_size])
        return tf.transpose(parts, [0, 2, 1, 3])

    def _merge_heads(self, x: tf.Tensor) -> tf.Tensor:
        """Reshape [B, H, T, D] to [N, E]."""
        return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [-1, self.hparams.n_embd])


def drop(x: tf.Tensor, options: ForwardOptions, seed: tf.Tensor, number: int) -> tf.Tensor:
    """Apply dropout (Srivastava et al. 2014).

    The same seed [2] and number, 0 or 1, drop the same positions. The gradient of dropout is the same function.
    """
    if not options.dropout:
        return x
    seed = tf.random.split(seed, 2)[number]
    return tf.nn.experimental.stateless_dropout(x, options.dropout, seed=seed)


def attend(q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, scale: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Compute attention as `gpt2.model.attend` does, in slices of the queries.

    Returns:
        The heads' outputs [B, H, T, D], and the probabilities of each slice [B, H, R, S].
    """
    q *= tf.cast(scale, q.dtype)
    outputs = []
    probs = []
    for start, end in _slices(q):
        scores = tf.cast(tf.matmul(q[:, :, start:end], k[:, :, :end], transpose_b=True), tf.float32)
        is_visible = tf.range(start, end)[:, None] >= tf.range(end)
        probs.append(tf.cast(tf.nn.softmax(scores + tf.where(is_visible, 0.0, model.MASKED_SCORE)), q.dtype))
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
    """Return the gradients of q, k and v, each [B, H, T, D].

    Args:
        dy: The gradient of the heads' outputs [B, H, T, D].
        mean: The mean of the gradients of each query's probabilities [B, H, T], weighted by the probabilities. It
            equals the dot product of `dy` and the output of `attend` (Dao et al. 2022).
        probs: The probabilities of each slice, as `attend` returned them.
        q: The queries.
        k: The keys.
        v: The values.
        scale: Factor of the attention scores, a scalar.
    """
    dq = []
    dk = []
    dv = []
    scale = tf.cast(scale, q.dtype)
    scaled = q * scale
    for (start, end), p in zip(_slices(q), probs):
        d_out = dy[:, :, start:end]
        d_probs = tf.cast(tf.matmul(d_out, v[:, :, :end], transpose_b=True), tf.float32)
        d_scores = tf.cast(p, tf.float32) * (d_probs - mean[:, :, start:end, None])
        d_scores = tf.cast(d_scores, q.dtype)
        dq.append(tf.matmul(d_scores, k[:, :, :end]))
        padding = [[0, 0], [0, 0], [0, q.shape[2] - end], [0, 0]]  # for the keys after the slice
        dk.append(tf.pad(tf.matmul(d_scores, scaled[:, :, start:end], transpose_a=True), padding))
        dv.append(tf.pad(tf.matmul(p, d_out, transpose_a=True), padding))
    return tf.concat(dq, axis=2) * scale, tf.add_n(dk), tf.add_n(dv)


def _slices(q: tf.Tensor) -> list[tuple[int, int]]:
    """Return the start and the end of each slice of the queries."""
    time = q.shape[2]
    return [(start, min(time, start + QUERY_ROWS)) for start in range(0, time, QUERY_ROWS)]


def gelu_and_slope(h: tf.Tensor, exact: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """Return `gpt2.model.gelu` of h and its derivative, for any shape."""
    if exact:
        share = 0.5 * (1 + tf.math.erf(h / math.sqrt(2)))
        return h * share, share + h * tf.exp(-0.5 * h * h) / math.sqrt(2 * math.pi)
    factor = math.sqrt(2 / math.pi)
    square = h * h
    tanh = tf.tanh(h * (factor + factor * GELU_CUBIC * square))
    share = 0.5 * (1 + tanh)
    y = h * share
    return y, share + y * (1 - tanh) * (factor + 3 * factor * GELU_CUBIC * square)


def linear_gradients(dy: tf.Tensor, x: tf.Tensor, w: Weights) -> tuple[tf.Tensor, Weights]:
    """Return the gradients of a linear layer.

    Args:
        dy: The gradient of the layer's output [N, O].
        x: The layer's input [N, I].
        w: The layer's weights: w [I, O] and b [O].

    Returns:
        The gradient of x [N, I] in the type of w, and the gradients of w and b in float32.
    """
    dy = tf.cast(dy, w["w"].dtype)
    x = tf.cast(x, w["w"].dtype)
    dw = tf.matmul(x, dy, transpose_a=True)
    db = _column_sums(dy)
    return tf.matmul(dy, w["w"], transpose_b=True), {"w": tf.cast(dw, tf.float32), "b": tf.cast(db, tf.float32)}


def norm_linear_gradients(
    dy: tf.Tensor, x: tf.Tensor, ln: Weights, w: Weights, epsilon: float
) -> tuple[tf.Tensor, Weights, Weights]:
    """Return the gradients of a layer norm followed by a linear layer.

    Args:
        dy: The gradient of the linear layer's output [N, O].
        x: The norm's input [N, E].
        ln: The norm's weights g and b.
        w: The linear layer's weights.
        epsilon: The norm's epsilon.

    Returns:
        The gradients of x [N, E], of the norm's weights and of the linear layer's weights.
    """
    mean = tf.reduce_mean(x, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(x, mean), axis=-1, keepdims=True)
    inverse = tf.math.rsqrt(variance + epsilon)
    normed = (x - mean) * inverse
    dy, d_linear = linear_gradients(dy, normed * ln["g"] + ln["b"], w)
    dy = tf.cast(dy, tf.float32)
    d_norm = {"g": _column_sums(dy * normed), "b": _column_sums(dy)}
    dy *= ln["g"]
    projection = tf.reduce_mean(dy * normed, axis=-1, keepdims=True)
    return (dy - tf.reduce_mean(dy, axis=-1, keepdims=True) - normed * projection) * inverse, d_norm, d_linear


def _column_sums(x: tf.Tensor) -> tf.Tensor:
    """Return the sums over the rows of x [N, O] as [O].

    A matrix product accumulates in float32. In bfloat16, a long sum would stop growing.
    """
    return tf.matmul(tf.ones([1, x.shape[0]], x.dtype), x)[0]
