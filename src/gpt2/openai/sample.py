"""OpenAI's module `sample`: texts as one tensor, which a session runs again and again.

The rules are those of `gpt2.sample` and `gpt2.engine.batch`; the random numbers are TensorFlow's. Shapes: B batch,
T tokens, V vocabulary, H heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from gpt2 import hparams as sizes
from gpt2 import model as blocks
from gpt2.errors import UsageError
from gpt2.openai import model
from gpt2.request import Sampling, require_integer


def top_k_logits(logits: tf.Tensor, k: Any) -> tf.Tensor:
    """logits [B, V] -> the same with -1e10 for all but each row's k largest, ties by lowest id; 0 keeps all."""
    batch, n_vocab = tf.unstack(tf.shape(logits))
    return tf.cond((k > 0) & (k < n_vocab), lambda: _largest(logits, tf.fill([batch], k)), lambda: logits)


def top_p_logits(logits: tf.Tensor, p: Any) -> tf.Tensor:
    """logits [B, V] -> the same with -1e10 for all but each row's nucleus (Holtzman et al. 2019); 0 and 1 keep all."""

    def nucleus() -> tf.Tensor:
        before = tf.cumsum(tf.nn.softmax(tf.sort(logits, direction="DESCENDING")), axis=-1, exclusive=True)
        return _largest(logits, tf.reduce_sum(tf.cast(before < p, tf.int32), axis=-1))

    p = tf.cast(p, logits.dtype)
    return tf.cond((p > 0) & (p < 1), nucleus, lambda: logits)


def _largest(logits: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """logits [B, V], counts [B] -> the same with -1e10 for all but so many of each row."""
    values, ids = tf.math.top_k(logits, tf.reduce_max(counts))  # of equal ones those of lowest id
    values = tf.where(tf.sequence_mask(counts, tf.shape(ids)[1]), values, blocks.MASKED_SCORE)
    rows = tf.broadcast_to(tf.range(tf.shape(ids)[0])[:, None], tf.shape(ids))
    masked = tf.fill(tf.shape(logits), blocks.MASKED_SCORE)
    return tf.tensor_scatter_nd_update(masked, tf.stack([rows, ids], -1), values)


def sample_sequence(
    *,
    hparams: Any,
    length: Any,
    start_token: Any = None,
    batch_size: int | None = None,
    context: Any = None,
    temperature: Any = 1,
    top_k: Any = 0,
    top_p: Any = 1,
) -> tf.Tensor:
    """The prompts `context` [B, T], or `start_token` for each of the batch, and `length` new ids [B, T + length] int32.

    length, temperature, top_k and top_p may be tensors; their values mean what they mean everywhere here: temperature
    0 is greedy, and beyond n_ctx the window slides. An empty context starts as the end-of-text token would. Raises
    UsageError for numbers that are not allowed, GPT2Error for impossible sizes and outside of a graph.
    """
    if (start_token is None) == (context is None):
        raise UsageError("Specify exactly one of start_token and context!")
    numbers = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    Sampling(**{name: value for name, value in numbers.items() if not tf.is_tensor(value)})
    if not tf.is_tensor(length):
        require_integer("length", length)
    wanted = model.checked(hparams)
    weights = model.variables(wanted, "model", model.v1.AUTO_REUSE)
    prompt = tf.fill([batch_size or 1, 1], start_token) if context is None else context
    prompt = tf.ensure_shape(tf.cast(prompt, tf.int32), [batch_size, None])
    return sample_text(
        weights, wanted, prompt, length, lambda logits, _: choose_token(logits, drawn, temperature, top_k, top_p)
    )


def drawn(logits: tf.Tensor) -> tf.Tensor:
    """logits [B, V] -> ids [B], by the random numbers of the graph."""
    return tf.random.categorical(logits, 1, dtype=tf.int32)[:, 0]


def choose_token(logits: tf.Tensor, draw: Callable, temperature: Any, top_k: Any, top_p: Any) -> tf.Tensor:
    """logits [B, V] -> ids [B]. draw: what takes one of those that are left, as `drawn` does."""
    temperature = tf.cast(temperature, logits.dtype)
    scaled = (logits - tf.reduce_max(logits, -1, keepdims=True)) / tf.where(temperature > 0, temperature, 1)
    left = draw(top_p_logits(top_k_logits(scaled, top_k), top_p))
    return tf.where(temperature > 0, left, tf.argmax(logits, axis=-1, output_type=tf.int32))


def sample_text(
    weights: blocks.Weights, hparams: sizes.HParams, prompt: tf.Tensor, length: Any, choose: Callable
) -> tf.Tensor:
    """The prompts [B, T] and `length` new ids [B, T + length] int32, in one loop of the graph.

    choose: the logits [B, V] of the last ids and all ids so far -> the next ids [B].
    """
    batch, n_prompt = tf.unstack(tf.shape(prompt))
    n_ctx = hparams.n_ctx

    def step(tokens: tf.Tensor, waiting: tf.Tensor, keys: list, values: list) -> tuple:
        """tokens [B, T] so far, of them those that are not in the cache [B, T'], the cache L x [B, H, P, D]."""
        used = tf.shape(keys[0])[2]
        cache = blocks.Cache(keys, values, tf.fill([batch], used))
        x, new_keys, new_values = blocks.hidden_states(weights, hparams, waiting, cache)
        new = choose(blocks.logits(weights, x[:, -1:])[:, 0], tokens)
        tokens = tf.concat([tokens, new[:, None]], axis=1)
        full = used + tf.shape(waiting)[1] >= n_ctx  # then half a window is read again
        kept = tf.where(full, 0, n_ctx)
        keys = [tf.concat(parts, axis=2)[:, :, :kept] for parts in zip(keys, new_keys)]
        values = [tf.concat(parts, axis=2)[:, :, :kept] for parts in zip(values, new_values)]
        return tokens, tokens[:, -tf.where(full, max(1, n_ctx // 2), 1) :], keys, values

    nothing = [tf.zeros([batch, hparams.n_head, 0, hparams.head_size])] * hparams.n_layer
    window = prompt[:, -tf.where(n_prompt > n_ctx, max(1, n_ctx - 1), n_prompt) :]
    start = tf.fill([batch, tf.where(n_prompt > 0, 0, 1)], hparams.n_vocab - 1)
    rows = prompt.shape[0]
    heads = [tf.TensorShape([rows, hparams.n_head, None, hparams.head_size])] * hparams.n_layer
    ids = tf.TensorShape([rows, None])
    state = (prompt, tf.concat([start, window], axis=1), nothing, nothing)
    end = n_prompt + length
    open_shapes = (ids, ids, heads, heads)
    return tf.while_loop(lambda tokens, *_: tf.shape(tokens)[1] < end, step, state, shape_invariants=open_shapes)[0]
