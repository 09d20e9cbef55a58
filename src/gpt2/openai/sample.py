"""OpenAI's module `sample`: texts as one tensor, which a session can run repeatedly.

The rules are the same as in `gpt2.sample` and `gpt2.engine.batch`, but the random numbers come from TensorFlow. With a
graph-level seed, TensorFlow numbers the random operations by the operations created before them. The order in which
this module creates operations therefore determines the text of a seed.

Shapes: B batch, T tokens, V vocabulary, L layers, H heads, P cached tokens, D head size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from gpt2 import model as transformer
from gpt2.errors import UsageError
from gpt2.hparams import HParams
from gpt2.openai import model
from gpt2.request import Sampling, require_integer


def top_k_logits(logits: tf.Tensor, k: Any) -> tf.Tensor:
    """Replace all logits of each row, except the k largest, with -1e10.

    Args:
        logits: The logits [B, V].
        k: Number of logits to retain, ties by lowest id; 0 retains all.

    Returns:
        The filtered logits [B, V].
    """
    batch, n_vocab = tf.unstack(tf.shape(logits))
    return tf.cond((k > 0) & (k < n_vocab), lambda: _keep_largest(logits, tf.fill([batch], k)), lambda: logits)


def top_p_logits(logits: tf.Tensor, p: Any) -> tf.Tensor:
    """Replace all logits outside of each row's nucleus (Holtzman et al. 2019) with -1e10.

    Args:
        logits: The logits [B, V].
        p: Probability that the nucleus has to reach; 0 and 1 retain all.

    Returns:
        The filtered logits [B, V].
    """

    def keep_nucleus() -> tf.Tensor:
        before = tf.cumsum(tf.nn.softmax(tf.sort(logits, direction="DESCENDING")), axis=-1, exclusive=True)
        return _keep_largest(logits, tf.reduce_sum(tf.cast(before < p, tf.int32), axis=-1))

    p = tf.cast(p, logits.dtype)
    return tf.cond((p > 0) & (p < 1), keep_nucleus, lambda: logits)


def _keep_largest(logits: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """Replace all logits of each row, except the largest ones, with -1e10.

    Args:
        logits: The logits [B, V].
        counts: Number of logits to retain in each row [B].
    """
    values, ids = tf.math.top_k(logits, tf.reduce_max(counts))  # breaks ties by lowest id
    values = tf.where(tf.sequence_mask(counts, tf.shape(ids)[1]), values, transformer.MASKED_SCORE)
    rows = tf.broadcast_to(tf.range(tf.shape(ids)[0])[:, None], tf.shape(ids))
    masked = tf.fill(tf.shape(logits), transformer.MASKED_SCORE)
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
    """Generate `length` new ids after each prompt of a batch.

    Beyond n_ctx the window slides. `length`, `temperature`, `top_k` and `top_p` may be tensors.

    Args:
        hparams: The sizes, as attributes of any object.
        length: Number of new ids.
        start_token: Id that each text starts with, instead of `context`.
        batch_size: Number of texts.
        context: The prompts [B, T]. An empty prompt counts as the end-of-text token.
        temperature: Divides the logits; 0 is greedy.
        top_k: Sample from the k most likely ids; 0 means all.
        top_p: Sample from the most likely ids whose probabilities reach p; 0 and 1 mean all.

    Returns:
        The prompts and the new ids, [B, T + length] int32.

    Raises:
        GPT2Error: If no model can have these sizes, or if there is no graph.
        UsageError: If a value is not allowed.
    """
    if (start_token is None) == (context is None):
        raise UsageError("Specify exactly one of start_token and context!")
    parameters = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    Sampling(**{name: value for name, value in parameters.items() if not tf.is_tensor(value)})
    if not tf.is_tensor(length):
        require_integer("length", length)
    checked = model.check_hparams(hparams)
    weights = model.variables(checked, "model", model.v1.AUTO_REUSE)
    prompt = tf.fill([batch_size or 1, 1], start_token) if context is None else context
    prompt = tf.ensure_shape(tf.cast(prompt, tf.int32), [batch_size, None])

    def choose(logits: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        return choose_token(logits, draw_categorical, temperature, top_k, top_p)

    return sample_text(weights, checked, prompt, length, choose)


def draw_categorical(logits: tf.Tensor) -> tf.Tensor:
    """Draw an id for each row of logits [B, V] with the graph's random numbers; return [B]."""
    return tf.random.categorical(logits, 1, dtype=tf.int32)[:, 0]


def choose_token(logits: tf.Tensor, draw: Callable, temperature: Any, top_k: Any, top_p: Any) -> tf.Tensor:
    """Choose the next id for each row of logits.

    Args:
        logits: The logits [B, V].
        draw: Function that draws ids [B] from filtered logits [B, V], such as `draw_categorical`.
        temperature: Divides the logits; 0 is greedy.
        top_k: Number of largest logits to retain; 0 retains all.
        top_p: Probability that the retained logits have to reach; 0 and 1 retain all.

    Returns:
        The ids [B].
    """
    temperature = tf.cast(temperature, logits.dtype)
    scaled = (logits - tf.reduce_max(logits, -1, keepdims=True)) / tf.where(temperature > 0, temperature, 1)
    drawn = draw(top_p_logits(top_k_logits(scaled, top_k), top_p))
    return tf.where(temperature > 0, drawn, tf.argmax(logits, axis=-1, output_type=tf.int32))


def sample_text(
    weights: transformer.Weights, hparams: HParams, prompt: tf.Tensor, length: Any, choose: Callable
) -> tf.Tensor:
    """Generate new ids in one loop of the graph.

    Args:
        weights: The model's weights.
        hparams: The model's sizes.
        prompt: The prompts [B, T].
        length: Number of new ids.
        choose: Function that returns the next ids [B] for the logits [B, V] of the last ids and all ids so far [B, T].

    Returns:
        The prompts and the new ids, [B, T + length] int32.
    """
    batch, n_prompt = tf.unstack(tf.shape(prompt))
    n_ctx = hparams.n_ctx

    def step(tokens: tf.Tensor, uncached: tf.Tensor, keys: list, values: list) -> tuple:
        return _step(weights, hparams, choose, batch, tokens, uncached, keys, values)

    empty_cache = [tf.zeros([batch, hparams.n_head, 0, hparams.head_size])] * hparams.n_layer
    window = prompt[:, -tf.where(n_prompt > n_ctx, max(1, n_ctx - 1), n_prompt) :]
    start = tf.fill([batch, tf.where(n_prompt > 0, 0, 1)], hparams.n_vocab - 1)
    static_batch = prompt.shape[0]
    cache_shapes = [tf.TensorShape([static_batch, hparams.n_head, None, hparams.head_size])] * hparams.n_layer
    ids_shape = tf.TensorShape([static_batch, None])
    state = (prompt, tf.concat([start, window], axis=1), empty_cache, empty_cache)
    end = n_prompt + length
    shapes = (ids_shape, ids_shape, cache_shapes, cache_shapes)
    return tf.while_loop(lambda tokens, *_: tf.shape(tokens)[1] < end, step, state, shape_invariants=shapes)[0]


def _step(
    weights: transformer.Weights,
    hparams: HParams,
    choose: Callable,
    batch: tf.Tensor,
    tokens: tf.Tensor,
    uncached: tf.Tensor,
    keys: list,
    values: list,
) -> tuple:
    """Append one id to each text.

    Args:
        weights: The model's weights.
        hparams: The model's sizes.
        choose: Function that returns the next ids, as in `sample_text`.
        batch: The number of texts, a scalar.
        tokens: All ids so far [B, T].
        uncached: The last ids, which are not in the cache yet [B, T'].
        keys: The cache's keys, L x [B, H, P, D].
        values: The cache's values, L x [B, H, P, D].

    Returns:
        The four loop variables `tokens`, `uncached`, `keys` and `values` after the step.
    """
    n_ctx = hparams.n_ctx
    n_cached = tf.shape(keys[0])[2]
    cache = transformer.Cache(keys, values, tf.fill([batch], n_cached))
    x, new_keys, new_values = transformer.hidden_states(weights, hparams, uncached, cache)
    new = choose(transformer.logits(weights, x[:, -1:])[:, 0], tokens)
    tokens = tf.concat([tokens, new[:, None]], axis=1)
    is_full = n_cached + tf.shape(uncached)[1] >= n_ctx  # then the cache is emptied and half a window prefilled again
    max_cached = tf.where(is_full, 0, n_ctx)
    keys = [tf.concat(parts, axis=2)[:, :, :max_cached] for parts in zip(keys, new_keys)]
    values = [tf.concat(parts, axis=2)[:, :, :max_cached] for parts in zip(values, new_values)]
    return tokens, tokens[:, -tf.where(is_full, max(1, n_ctx // 2), 1) :], keys, values
