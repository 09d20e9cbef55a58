"""The transformer, whole: `(weights, hparams, tokens, cache) -> (logits, new keys and values)`.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", as in OpenAI's published code. Pure
functions over a nested dictionary of weights whose keys are the names in a checkpoint (`weights["h0"]["mlp"]["c_fc"]`).
The model knows no vocabulary and keeps no state: the caller holds the cache and writes into it what comes back.

Shapes: B batch, T new tokens, P cache slots, S = P + T, L layers, H heads, D head size, E embedding, V vocabulary,
N = B*T rows of activations, I inputs and O outputs of a product. F = 4E and wte's width W = E, but for some variants.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from gpt2.hparams import GELU, HParams

Weights = Mapping[str, Any]
Hidden = tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]
Past = tuple[tf.Tensor, tf.Tensor]  # keys and values of one layer's cache [B, H, P, D]

MASKED = -1e10  # what OpenAI's code puts in place of a masked score; exp() of it is exactly 0


class Narrow(NamedTuple):
    """A matrix, or wte, in a narrow type: a row for each output, times a scale of its own."""

    values: tf.Tensor  # [O, I] bfloat16 or int8
    scale: tf.Tensor  # [O] float32


class Cache(NamedTuple):
    """Keys and values of the tokens before the new ones. Row b has used its first `lengths[b]` slots."""

    keys: Sequence[tf.Tensor]  # L x [B, H, P, D]
    values: Sequence[tf.Tensor]  # L x [B, H, P, D]
    lengths: tf.Tensor  # [B] int32


def gelu(x: tf.Tensor, exact: bool = False) -> tf.Tensor:
    """Hendrycks and Gimpel 2016, in their approximation by tanh unless `exact`; any shape."""
    if exact:
        return 0.5 * x * (1 + tf.math.erf(x / math.sqrt(2)))
    return 0.5 * x * (1 + tf.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))))


def layer_norm(x: tf.Tensor, g: tf.Tensor, b: tf.Tensor, epsilon: float) -> tf.Tensor:
    """x [N, E], gain g and bias b [E] -> [N, E] (Ba et al. 2016)."""
    mean = tf.reduce_mean(x, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(x, mean), axis=-1, keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + epsilon) * g + b


def product(x: tf.Tensor, w: tf.Tensor | Narrow) -> tf.Tensor:
    """x [N, I], w [I, O] -> [N, O], in w's type, or in x's if w is narrow: inside XLA it is widened as it is read."""
    if isinstance(w, Narrow):
        return tf.matmul(x, tf.cast(w.values, x.dtype), transpose_b=True) * w.scale
    return tf.matmul(tf.cast(x, w.dtype), w)


def linear(x: tf.Tensor, w: tf.Tensor | Narrow, b: tf.Tensor) -> tf.Tensor:
    """x [N, I], w [I, O], b [O] -> [N, O]."""
    return tf.nn.bias_add(product(x, w), b)


def embedding(wte: tf.Tensor | Narrow, tokens: tf.Tensor) -> tf.Tensor:
    """wte [V, E], tokens [...] -> their rows of wte [..., E]."""
    if isinstance(wte, Narrow):
        scale = tf.gather(wte.scale, tokens)
        return tf.cast(tf.gather(wte.values, tokens), scale.dtype) * scale[..., None]
    return tf.gather(wte, tokens)


def causal_mask(time: tf.Tensor, cache: Cache | None = None) -> tf.Tensor:
    """What each of T new tokens sees: of P slots those that are used, and of the new tokens those up to itself.

    [1, 1, T, T] bool; with a cache [B, 1, T, P+T].
    """
    new = tf.range(time)
    mask = (new[:, None] >= new)[None, None]  # [1, 1, T, T]
    if cache is None:
        return mask
    used = tf.sequence_mask(cache.lengths, tf.shape(cache.keys[0])[2])[:, None, None]  # [B, 1, 1, P]
    batch = tf.shape(cache.lengths)[0]
    return tf.concat([tf.tile(used, [1, 1, time, 1]), tf.tile(mask, [batch, 1, 1, 1])], axis=-1)


def score_scale(hparams: HParams, layer: int) -> float:
    """By what the scores of a layer, counted from 0, are multiplied."""
    return 1 / math.sqrt(hparams.head_size) / (layer + 1 if hparams.scale_attn_by_inverse_layer_idx else 1)


def attend(
    q: tf.Tensor, k: Sequence[tf.Tensor], v: Sequence[tf.Tensor], scale: float | tf.Tensor, mask: tf.Tensor
) -> tf.Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017): q [B, H, T, D], mask [B or 1, 1, T, S] -> [B, H, T, D].

    k, v: S positions in one or more parts [B, H, -, D], the past before what is new. To join them would copy the past
    for every token. scale: see `score_scale`.
    """
    q *= tf.cast(scale, q.dtype)
    scores = tf.concat([tf.matmul(q, part, transpose_b=True) for part in k], axis=-1)  # [B, H, T, S]
    probs = tf.nn.softmax(tf.where(mask, tf.cast(scores, tf.float32), MASKED))
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
    """x [B*T, E] -> [B*T, E], and the new keys and values [B, H, T, D]."""
    heads = [3, hparams.n_head, hparams.head_size]
    qkv = tf.reshape(linear(x, **c_attn), [batch, -1, *heads])  # [B*T, 3E] -> [B, T, 3, H, D]
    q, k, v = tf.unstack(tf.transpose(qkv, [2, 0, 3, 1, 4]))  # [B, H, T, D] each
    a = attend(q, [past[0], k] if past else [k], [past[1], v] if past else [v], scale, mask)
    a = tf.transpose(a, [0, 2, 1, 3])  # [B, H, T, D] -> [B, T, H, D]
    return linear(tf.reshape(a, [-1, hparams.n_embd]), **c_proj), k, v


def mlp(x: tf.Tensor, c_fc: Weights, c_proj: Weights, exact: bool) -> tf.Tensor:
    """x [N, E] -> [N, E]."""
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
    """x [B*T, E] -> [B*T, E], and the new keys and values [B, H, T, D]."""
    epsilon, exact = hparams.layer_norm_epsilon, hparams.activation_function == GELU
    normed = layer_norm(x, **w["ln_1"], epsilon=epsilon)
    a, k, v = attention(normed, **w["attn"], hparams=hparams, scale=scale, batch=batch, mask=mask, past=past)
    x += tf.cast(a, x.dtype)
    normed = layer_norm(x, **w["ln_2"], epsilon=epsilon)
    return x + tf.cast(mlp(normed, **w["mlp"], exact=exact), x.dtype), k, v


def hidden(weights: Weights, hparams: HParams, tokens: tf.Tensor, cache: Cache | None = None) -> Hidden:
    """tokens [B, T] int32 -> activations before the output projection [B, T, W], new keys and values L x [B, H, T, D].

    Row b's tokens stand at the positions lengths[b], lengths[b] + 1, ...; without a cache, at 0, 1, ...
    Positions must be below n_ctx: on a GPU, TensorFlow silently reads zeros past the end of wpe.
    """
    batch, time = tf.unstack(tf.shape(tokens))
    positions = tf.range(time)[None]  # [1, T]
    if cache is not None:
        positions += cache.lengths[:, None]  # [B, T]
    pasts = [None] * hparams.n_layer if cache is None else zip(cache.keys, cache.values)
    mask = causal_mask(time, cache)
    x = embedding(weights["wte"], tokens) + tf.gather(weights["wpe"], positions)  # [B, T, W]
    x = enter(weights, tf.reshape(x, [-1, hparams.token_size]))  # [B*T, E]: one large product beats B small ones
    keys, values = [], []
    for layer, past in enumerate(pasts):
        x, k, v = block(x, weights[f"h{layer}"], hparams, score_scale(hparams, layer), batch, mask, past)
        keys.append(k)
        values.append(v)
    return tf.reshape(leave(weights, hparams, x), [batch, time, hparams.token_size]), keys, values


def enter(weights: Weights, x: tf.Tensor) -> tf.Tensor:
    """Embeddings [N, W] -> what the first layer gets [N, E]: the same, but where W is not E."""
    return linear(x, **weights["in_proj"]) if "in_proj" in weights else x


def leave(weights: Weights, hparams: HParams, x: tf.Tensor) -> tf.Tensor:
    """What the last layer gives [N, E] -> what the output projection gets [N, W]."""
    x = layer_norm(x, **weights["ln_f"], epsilon=hparams.layer_norm_epsilon)
    return linear(x, **weights["out_proj"]) if "out_proj" in weights else x


def output(weights: Weights) -> tf.Tensor | Narrow:
    """The output projection [V, W]: the token embedding, but of variants that have one of its own."""
    return weights["lm_head"] if "lm_head" in weights else weights["wte"]


def logits(weights: Weights, x: tf.Tensor) -> tf.Tensor:
    """x [B, T, W] -> [B, T, V]"""
    w, flat = output(weights), tf.reshape(x, [-1, x.shape[-1]])  # [B*T, W]
    flat = product(flat, w) if isinstance(w, Narrow) else tf.matmul(flat, w, transpose_b=True)  # [B*T, V]
    return tf.reshape(flat, [tf.shape(x)[0], -1, flat.shape[-1]])


def model(weights: Weights, hparams: HParams, tokens: tf.Tensor, cache: Cache | None = None) -> Hidden:
    """tokens [B, T] int32 -> logits [B, T, V], new keys and values L x [B, H, T, D]."""
    x, keys, values = hidden(weights, hparams, tokens, cache)
    return logits(weights, x), keys, values
