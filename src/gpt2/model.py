"""The whole transformer: weights, sizes, tokens and a cache in, logits and new keys and values out.

It follows Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", and OpenAI's code. All functions
are pure. Weights are a nested dictionary whose keys are the names in a checkpoint (`weights["h0"]["mlp"]["c_fc"]`).
The model has no vocabulary and no state: the caller owns the cache and writes the returned keys and values into it.

Shapes: B batch, T new tokens, P cache slots, S = P + T, L layers, H heads, D head size, E embedding, V vocabulary,
N = B*T rows of activations, I inputs and O outputs of a matrix product, F inner size of the MLP, W width of wte and
wpe. In GPT-2, F = 4E and W = E; some variants differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from gpt2.hparams import GELU, HParams

Weights = Mapping[str, Any]
HiddenStates = tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]
Past = tuple[tf.Tensor, tf.Tensor]  # keys and values of one layer's cache [B, H, P, D]

MASKED_SCORE = -1e10  # replaces a masked score, as in OpenAI's code; its exp() is exactly 0


class NarrowMatrix(NamedTuple):
    """A weight matrix or wte in bfloat16 or int8: one row for each output, with a scale for each row."""

    values: tf.Tensor  # [O, I] bfloat16 or int8
    scale: tf.Tensor  # [O] float32


class Cache(NamedTuple):
    """Keys and values of the tokens before the new ones; row b uses its first `lengths[b]` slots."""

    keys: Sequence[tf.Tensor]  # L x [B, H, P, D]
    values: Sequence[tf.Tensor]  # L x [B, H, P, D]
    lengths: tf.Tensor  # [B] int32


def gelu(x: tf.Tensor, exact: bool = False) -> tf.Tensor:
    """Apply GELU (Hendrycks and Gimpel 2016), approximated with tanh unless `exact`, to x of any shape."""
    if exact:
        return 0.5 * x * (1 + tf.math.erf(x / math.sqrt(2)))
    return 0.5 * x * (1 + tf.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))))


def layer_norm(x: tf.Tensor, g: tf.Tensor, b: tf.Tensor, epsilon: float) -> tf.Tensor:
    """Normalize each row of x [N, E], then apply gain g and bias b [E] (Ba et al. 2016)."""
    mean = tf.reduce_mean(x, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(x, mean), axis=-1, keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + epsilon) * g + b


def product(x: tf.Tensor, w: tf.Tensor | NarrowMatrix) -> tf.Tensor:
    """Multiply x [N, I] by w [I, O].

    Returns:
        [N, O], in w's type. For a NarrowMatrix, in x's type: XLA widens the matrix while it reads it.
    """
    if isinstance(w, NarrowMatrix):
        return tf.matmul(x, tf.cast(w.values, x.dtype), transpose_b=True) * w.scale
    return tf.matmul(tf.cast(x, w.dtype), w)


def linear(x: tf.Tensor, w: tf.Tensor | NarrowMatrix, b: tf.Tensor) -> tf.Tensor:
    """Multiply x [N, I] by w [I, O] and add b [O]."""
    return tf.nn.bias_add(product(x, w), b)


def embedding(wte: tf.Tensor | NarrowMatrix, tokens: tf.Tensor) -> tf.Tensor:
    """Look up the rows of wte [V, W] for tokens [...]; return [..., W]."""
    if isinstance(wte, NarrowMatrix):
        scale = tf.gather(wte.scale, tokens)
        return tf.cast(tf.gather(wte.values, tokens), scale.dtype) * scale[..., None]
    return tf.gather(wte, tokens)


def causal_mask(time: tf.Tensor, cache: Cache | None = None) -> tf.Tensor:
    """Return the mask of the positions that each of T new tokens attends to.

    A token attends to the used cache slots and to the new tokens up to itself.

    Returns:
        [1, 1, T, T] bool; with a cache, [B, 1, T, P+T].
    """
    new = tf.range(time)
    mask = (new[:, None] >= new)[None, None]  # [1, 1, T, T]
    if cache is None:
        return mask
    used = tf.sequence_mask(cache.lengths, tf.shape(cache.keys[0])[2])[:, None, None]  # [B, 1, 1, P]
    batch = tf.shape(cache.lengths)[0]
    return tf.concat([tf.tile(used, [1, 1, time, 1]), tf.tile(mask, [batch, 1, 1, 1])], axis=-1)


def score_scale(hparams: HParams, layer: int) -> float:
    """Return the factor of the attention scores of a layer, counted from 0."""
    return 1 / math.sqrt(hparams.head_size) / (layer + 1 if hparams.scale_attn_by_inverse_layer_idx else 1)


def attend(
    q: tf.Tensor, k: Sequence[tf.Tensor], v: Sequence[tf.Tensor], scale: float | tf.Tensor, mask: tf.Tensor
) -> tf.Tensor:
    """Compute scaled dot-product attention (Vaswani et al. 2017).

    Args:
        q: Queries [B, H, T, D].
        k: Keys of S positions in one or more parts [B, H, -, D], cached ones first. Concatenating the parts would
            copy the cache for every token.
        v: Values, in the same parts.
        scale: Factor of the scores, from `score_scale`.
        mask: [B or 1, 1, T, S] bool.

    Returns:
        [B, H, T, D].
    """
    q *= tf.cast(scale, q.dtype)
    scores = tf.concat([tf.matmul(q, part, transpose_b=True) for part in k], axis=-1)  # [B, H, T, S]
    probs = tf.nn.softmax(tf.where(mask, tf.cast(scores, tf.float32), MASKED_SCORE))
    parts = tf.split(tf.cast(probs, q.dtype), [tf.shape(part)[2] for part in k], axis=-1)
    return tf.add_n([tf.matmul(p, part) for p, part in zip(parts, v)])


def attention(
    x: tf.Tensor,
    c_attn: Weights,
    c_proj: Weights,
    hparams: HParams,
    scale: float | tf.Tensor,
    batch: tf.Tensor,
    mask: tf.Tensor,
    past: Past | None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Apply one layer's multi-head attention to x [B*T, E].

    Returns:
        The result [B*T, E], and the new keys and values [B, H, T, D].
    """
    heads = [3, hparams.n_head, hparams.head_size]
    qkv = tf.reshape(linear(x, **c_attn), [batch, -1, *heads])  # [B*T, 3E] -> [B, T, 3, H, D]
    q, k, v = tf.unstack(tf.transpose(qkv, [2, 0, 3, 1, 4]))  # [B, H, T, D] each
    a = attend(q, [past[0], k] if past else [k], [past[1], v] if past else [v], scale, mask)
    a = tf.transpose(a, [0, 2, 1, 3])  # [B, H, T, D] -> [B, T, H, D]
    return linear(tf.reshape(a, [-1, hparams.n_embd]), **c_proj), k, v


def mlp(x: tf.Tensor, c_fc: Weights, c_proj: Weights, exact: bool) -> tf.Tensor:
    """Apply one layer's feed-forward network to x [N, E]; return [N, E]."""
    return linear(gelu(linear(x, **c_fc), exact), **c_proj)  # [N, E] -> [N, F] -> [N, E]


def block(
    x: tf.Tensor,
    w: Weights,
    hparams: HParams,
    scale: float | tf.Tensor,
    batch: tf.Tensor,
    mask: tf.Tensor,
    past: Past | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Apply one transformer layer to x [B*T, E].

    Returns:
        The activations [B*T, E], and the new keys and values [B, H, T, D].
    """
    epsilon = hparams.layer_norm_epsilon
    exact = hparams.activation_function == GELU
    normed = layer_norm(x, **w["ln_1"], epsilon=epsilon)
    a, k, v = attention(normed, **w["attn"], hparams=hparams, scale=scale, batch=batch, mask=mask, past=past)
    x += tf.cast(a, x.dtype)
    normed = layer_norm(x, **w["ln_2"], epsilon=epsilon)
    return x + tf.cast(mlp(normed, **w["mlp"], exact=exact), x.dtype), k, v


def hidden_states(weights: Weights, hparams: HParams, tokens: tf.Tensor, cache: Cache | None = None) -> HiddenStates:
    """Compute the activations before the output projection.

    Row b's tokens have the positions lengths[b], lengths[b] + 1, ...; without a cache 0, 1, ...
    Positions must be below n_ctx: on a GPU, TensorFlow silently reads zeros past the end of wpe.

    Args:
        weights: The model's weights.
        hparams: The model's sizes.
        tokens: [B, T] int32.
        cache: Keys and values of the previous tokens.

    Returns:
        The activations [B, T, W], and the new keys and values L x [B, H, T, D].
    """
    batch, time = tf.unstack(tf.shape(tokens))
    positions = tf.range(time)[None]  # [1, T]
    if cache is not None:
        positions += cache.lengths[:, None]  # [B, T]
    pasts = [None] * hparams.n_layer if cache is None else zip(cache.keys, cache.values)
    mask = causal_mask(time, cache)
    x = embedding(weights["wte"], tokens) + tf.gather(weights["wpe"], positions)  # [B, T, W]
    x = project_in(weights, tf.reshape(x, [-1, hparams.token_size]))  # [B*T, E]: one large product beats B small ones
    keys, values = [], []
    for layer, past in enumerate(pasts):
        x, k, v = block(x, weights[f"h{layer}"], hparams, score_scale(hparams, layer), batch, mask, past)
        keys.append(k)
        values.append(v)
    return tf.reshape(project_out(weights, hparams, x), [batch, time, hparams.token_size]), keys, values


def project_in(weights: Weights, x: tf.Tensor) -> tf.Tensor:
    """Project embeddings [N, W] to the first layer's input [N, E]; if W = E, return them unchanged."""
    return linear(x, **weights["in_proj"]) if "in_proj" in weights else x


def project_out(weights: Weights, hparams: HParams, x: tf.Tensor) -> tf.Tensor:
    """Apply ln_f to the last layer's output [N, E] and project it to the output projection's input [N, W]."""
    x = layer_norm(x, **weights["ln_f"], epsilon=hparams.layer_norm_epsilon)
    return linear(x, **weights["out_proj"]) if "out_proj" in weights else x


def output_projection(weights: Weights) -> tf.Tensor | NarrowMatrix:
    """Return the output projection [V, W]: wte, except for variants with a separate one."""
    return weights["lm_head"] if "lm_head" in weights else weights["wte"]


def logits(weights: Weights, x: tf.Tensor) -> tf.Tensor:
    """Multiply activations x [B, T, W] by the output projection; return logits [B, T, V]."""
    w = output_projection(weights)
    flat = tf.reshape(x, [-1, x.shape[-1]])  # [B*T, W]
    flat = product(flat, w) if isinstance(w, NarrowMatrix) else tf.matmul(flat, w, transpose_b=True)  # [B*T, V]
    return tf.reshape(flat, [tf.shape(x)[0], -1, flat.shape[-1]])


def model(weights: Weights, hparams: HParams, tokens: tf.Tensor, cache: Cache | None = None) -> HiddenStates:
    """Run the model.

    Args:
        weights: The model's weights.
        hparams: The model's sizes.
        tokens: [B, T] int32.
        cache: Keys and values of the previous tokens.

    Returns:
        Logits [B, T, V], and the new keys and values L x [B, H, T, D].
    """
    x, keys, values = hidden_states(weights, hparams, tokens, cache)
    return logits(weights, x), keys, values
