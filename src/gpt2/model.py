"""The transformer, whole: `(weights, hparams, tokens, cache) -> (logits, new keys and values)`.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", as in OpenAI's published code. Pure
functions over a nested dictionary of weights whose keys are the names in a checkpoint (`weights["h0"]["mlp"]["c_fc"]`).
The model knows no vocabulary and keeps no state: the caller holds the cache and writes into it what comes back.

Shapes: B batch, T new tokens, P cache slots, L layers, H heads, D head size, E embedding, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import tensorflow as tf

from gpt2.hparams import HParams

Weights = Mapping[str, Any]
Hidden = tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]
Past = tuple[tf.Tensor, tf.Tensor]  # keys and values of one layer's cache [B, H, P, D]
Attend = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]  # q, k, v [B, H, T, D] -> [B, H, T, D]
Drop = Callable[[tf.Tensor], tf.Tensor]  # what training does to activations (Srivastava et al. 2014), else nothing


class Narrow(NamedTuple):
    """A kernel, or wte, in a narrow type: row by row for each output, times a scale of its own."""

    values: tf.Tensor  # [O, I] bfloat16 or int8
    scale: tf.Tensor  # [O] float32


MASKED = -1e10  # what OpenAI's code puts in place of a masked score; exp() of it is exactly 0


class Cache(NamedTuple):
    """Keys and values of the tokens before the new ones. Row b has used its first `lengths[b]` slots."""

    keys: Sequence[tf.Tensor]  # L x [B, H, P, D]
    values: Sequence[tf.Tensor]  # L x [B, H, P, D]
    lengths: tf.Tensor  # [B] int32


def keep(x: tf.Tensor) -> tf.Tensor:
    return x


def gelu(x: tf.Tensor) -> tf.Tensor:
    return 0.5 * x * (1 + tf.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))))


def layer_norm(x: tf.Tensor, g: tf.Tensor, b: tf.Tensor, epsilon: float = 1e-5) -> tf.Tensor:
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
    """tokens [...] -> their rows of wte [..., E]."""
    if isinstance(wte, Narrow):
        scale = tf.gather(wte.scale, tokens)
        return tf.cast(tf.gather(wte.values, tokens), scale.dtype) * scale[..., None]
    return tf.gather(wte, tokens)


def attend_to_past(q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, past: Past, visible: tf.Tensor) -> tf.Tensor:
    """Attention of the new tokens to the visible ones among the past and themselves.

    q, k, v [B, H, T, D]; visible [B, 1, T, P+T] -> [B, H, T, D]. Joining the past with the new keys and values would
    copy it for every token.
    """
    past_k, past_v = past
    q *= 1 / math.sqrt(q.shape[-1])
    scores = tf.matmul(q, k, transpose_b=True)  # [B, H, T, T]
    scores = tf.concat([tf.matmul(q, past_k, transpose_b=True), scores], axis=-1)  # [B, H, T, P+T]
    probs = tf.nn.softmax(tf.where(visible, scores, MASKED))
    past_probs, probs = tf.split(probs, [tf.shape(past_k)[2], -1], axis=-1)
    return tf.matmul(past_probs, past_v) + tf.matmul(probs, v)


def attend_from_start(q: tf.Tensor, k: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
    """Attention where there is no past: q, k, v [B, H, T, D] -> [B, H, T, D]."""
    time = tf.range(tf.shape(q)[2])
    scores = tf.matmul(q * tf.cast(1 / math.sqrt(q.shape[-1]), q.dtype), k, transpose_b=True)  # [B, H, T, T]
    probs = tf.nn.softmax(tf.where(time[:, None] >= time, tf.cast(scores, tf.float32), MASKED))
    return tf.matmul(tf.cast(probs, v.dtype), v)


def attention(
    x: tf.Tensor, c_attn: Weights, c_proj: Weights, n_head: int, batch: tf.Tensor, attend: Attend
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """x [B*T, E] -> [B*T, E], and the new keys and values [B, H, T, D]."""
    n_embd = x.shape[-1]
    qkv = tf.reshape(linear(x, **c_attn), [batch, -1, 3, n_head, n_embd // n_head])  # [B*T, 3E] -> [B, T, 3, H, D]
    q, k, v = tf.unstack(tf.transpose(qkv, [2, 0, 3, 1, 4]))  # [B, H, T, D] each
    a = tf.transpose(attend(q, k, v), [0, 2, 1, 3])  # [B, H, T, D] -> [B, T, H, D]
    return linear(tf.reshape(a, [-1, n_embd]), **c_proj), k, v


def mlp(x: tf.Tensor, c_fc: Weights, c_proj: Weights) -> tf.Tensor:
    return linear(gelu(linear(x, **c_fc)), **c_proj)  # [B*T, E] -> [B*T, 4E] -> [B*T, E]


def block(
    x: tf.Tensor, w: Weights, n_head: int, batch: tf.Tensor, attend: Attend, drop: Drop = keep
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """x [B*T, E] -> [B*T, E], and the new keys and values [B, H, T, D]."""
    a, k, v = attention(layer_norm(x, **w["ln_1"]), **w["attn"], n_head=n_head, batch=batch, attend=attend)
    x += drop(tf.cast(a, x.dtype))
    return x + drop(tf.cast(mlp(layer_norm(x, **w["ln_2"]), **w["mlp"]), x.dtype)), k, v


def see(time: tf.Tensor, cache: Cache) -> tf.Tensor:
    """Which of P slots and T new tokens each new token sees, [B, 1, T, P+T]."""
    new = tf.range(time)
    visible = tf.tile((new[:, None] >= new[None, :])[None], [tf.shape(cache.lengths)[0], 1, 1])  # [B, T, T]
    used = tf.sequence_mask(cache.lengths, tf.shape(cache.keys[0])[2])[:, None, :]  # [B, 1, P]
    return tf.concat([tf.tile(used, [1, time, 1]), visible], axis=-1)[:, None]


def hidden(weights: Weights, hparams: HParams, tokens: tf.Tensor, cache: Cache | None = None) -> Hidden:
    """tokens [B, T] int32 -> activations before the output projection [B, T, E], new keys and values L x [B, H, T, D].

    Row b's tokens stand at the positions lengths[b], lengths[b] + 1, ...; without a cache, at 0, 1, ...
    Positions must be below n_ctx: on a GPU, TensorFlow silently reads zeros past the end of wpe.
    """
    batch, time = tf.unstack(tf.shape(tokens))
    positions = tf.range(time)[None]  # [1, T]
    attends: list[Attend] = [attend_from_start] * hparams.n_layer
    if cache is not None:
        positions += cache.lengths[:, None]  # [B, T]
        visible = see(time, cache)
        attends = [partial(attend_to_past, past=past, visible=visible) for past in zip(cache.keys, cache.values)]
    x = embedding(weights["wte"], tokens) + tf.gather(weights["wpe"], positions)  # [B, T, E]
    x = tf.reshape(x, [-1, hparams.n_embd])  # [B*T, E]: one large product is faster than B small ones
    keys, values = [], []
    for layer, attend in enumerate(attends):
        x, k, v = block(x, weights[f"h{layer}"], hparams.n_head, batch, attend)
        keys.append(k)
        values.append(v)
    x = layer_norm(x, **weights["ln_f"])
    return tf.reshape(x, [batch, time, hparams.n_embd]), keys, values


def logits(weights: Weights, x: tf.Tensor) -> tf.Tensor:
    """x [B, T, E] -> [B, T, V]; the output projection is the token embedding, transposed."""
    wte, flat = weights["wte"], tf.reshape(x, [-1, x.shape[-1]])  # [B*T, E]
    flat = product(flat, wte) if isinstance(wte, Narrow) else tf.matmul(flat, wte, transpose_b=True)  # [B*T, V]
    return tf.reshape(flat, [tf.shape(x)[0], -1, flat.shape[-1]])


def model(weights: Weights, hparams: HParams, tokens: tf.Tensor, cache: Cache | None = None) -> Hidden:
    """tokens [B, T] int32 -> logits [B, T, V], new keys and values L x [B, H, T, D]."""
    x, keys, values = hidden(weights, hparams, tokens, cache)
    return logits(weights, x), keys, values
