"""Logits -> next token: repetition penalty, temperature, top-k, top-p, then one draw. Pure functions, one row each.

Every row of a batch has its own settings, given as tensors [B]. A filter sets the logits it drops to -inf and leaves
the rest as they are, so filters compose; the order is OpenAI's: temperature, top-k, top-p.

Shapes: B batch, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from gpt2.request import Sampling

DROPPED = -math.inf
BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))
NUCLEUS_WINDOW = 1024  # candidates that are sorted before all are: nearly every nucleus is smaller


class Settings(NamedTuple):
    """The settings of all rows, as tensors; one that no row uses is None and costs nothing."""

    temperature: tf.Tensor | None  # [B] float32; None: all rows are greedy
    top_k: tf.Tensor | None  # [B] int32
    top_p: tf.Tensor | None  # [B] float32
    repetition_penalty: tf.Tensor | None  # [B] float32


def stack(rows: Sequence[Sampling]) -> Settings:
    def column(name: str, off: float, dtype: tf.DType) -> tf.Tensor | None:
        values = [min(getattr(row, name), dtype.max) for row in rows]
        return tf.constant(values, dtype) if any(value != off for value in values) else None

    return Settings(
        column("temperature", 0, tf.float32),
        column("top_k", 0, tf.int32),
        column("top_p", 1, tf.float32),
        column("repetition_penalty", 1, tf.float32),
    )


class RandomNumbers:
    """The random numbers of one sample: for its i-th new token the i-th row of them, whatever is generated beside it.

    Philox (Salmon et al. 2011), keyed by the seed and the sample's number and computed on the host, so that one seed
    gives the same numbers on every device and machine.
    """

    def __init__(self, seed: int, sample: int) -> None:
        self.bits = np.random.Philox(np.random.SeedSequence((seed, sample)))

    def next(self, n_vocab: int) -> np.ndarray:
        """One number for each id [V] float32, uniform in (0, 1), the small ones as precise as the large ones."""
        words = self.bits.random_raw((n_vocab + 1) // 2).astype("<u8").view("<u4")[:n_vocab]
        uniform = (words.astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-32)
        return np.minimum(uniform, BELOW_ONE)  # 1 itself would be a Gumbel number of -inf, as if the id were dropped


def penalize(logits: tf.Tensor, seen: tf.Tensor, penalty: tf.Tensor) -> tf.Tensor:
    """logits [B, V], seen [B, V] bool, penalty [B] -> [B, V]."""
    penalty = penalty[:, None]
    return tf.where(seen, tf.where(logits > 0, logits / penalty, logits * penalty), logits)


def keep_top_k(logits: tf.Tensor, top_k: tf.Tensor) -> tf.Tensor:
    """logits [B, V], top_k [B] -> logits with exactly the k largest kept in each row, ties by lowest id."""
    n_vocab = tf.shape(logits)[-1]
    active = (top_k > 0) & (top_k < n_vocab)
    k = tf.where(active, top_k, 1)
    values, ids = tf.math.top_k(logits, tf.reduce_max(k))  # [B, K] each; equal values come with the lowest id first
    return tf.where(active[:, None], keep_down_to(logits, values, ids, k - 1), logits)


def keep_top_p(logits: tf.Tensor, top_p: tf.Tensor, window: int = NUCLEUS_WINDOW) -> tf.Tensor:
    """logits [B, V], top_p [B] -> logits with each row's nucleus kept: the token that crosses p is in it.

    With the probabilities .5, .3, .15, .05 a top_p of .6 keeps two tokens and one of .9 keeps three.
    """
    n_vocab = tf.shape(logits)[-1]
    active = (top_p > 0) & (top_p < 1)
    total = tf.reduce_logsumexp(logits, axis=-1, keepdims=True)  # [B, 1]

    def nucleus(n: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        values, ids = tf.math.top_k(logits, n)  # [B, n]
        mass = tf.cumsum(tf.exp(values - total), axis=-1)  # [B, n]
        last = tf.reduce_sum(tf.cast(mass < top_p[:, None], tf.int32), axis=-1)  # [B]: the one that crosses p
        return keep_down_to(logits, values, ids, tf.minimum(last, n - 1)), tf.reduce_all((last < n) | ~active)

    kept, complete = nucleus(tf.minimum(window, n_vocab))
    kept = tf.cond(complete, lambda: kept, lambda: nucleus(n_vocab)[0])
    return tf.where(active[:, None], kept, logits)


def keep_down_to(logits: tf.Tensor, values: tf.Tensor, ids: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
    """Keeps what stands at or before place `last` [B] of the order (larger logit first, then lower id).

    values, ids [B, K]: the beginning of that order.
    """
    value, index = (tf.gather(x, last, batch_dims=1)[:, None] for x in (values, ids))  # [B, 1]
    keep = (logits > value) | ((logits == value) & (tf.range(tf.shape(logits)[-1]) <= index))
    return tf.where(keep, logits, DROPPED)


def choose(logits: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """One id per row, drawn with the probabilities softmax(logits); logits and uniform [B, V] -> [B].

    By the Gumbel-max trick (Maddison et al. 2014): every id has a random number of its own. With one number for the row
    and cumulated probabilities, the rounding errors of all the ids before the chosen one would count, and another batch
    size would choose another id once in some hundred tokens.
    """
    gumbel = -tf.math.log(-tf.math.log1p(-uniform))
    return tf.argmax(logits + gumbel, axis=-1, output_type=tf.int32)


def next_tokens(logits: tf.Tensor, settings: Settings, uniform: tf.Tensor, seen: tf.Tensor | None = None) -> tf.Tensor:
    """The next id of each row.

    logits [B, V] float32; uniform [B, V] in (0, 1), None if all rows are greedy; seen [B, V] bool, None if no row has a
    repetition penalty -> [B] int32.
    """
    if settings.repetition_penalty is not None:
        logits = penalize(logits, seen, settings.repetition_penalty)
    best = tf.argmax(logits, axis=-1, output_type=tf.int32)
    if settings.temperature is None:
        return best
    greedy = settings.temperature == 0
    logits -= tf.reduce_max(logits, axis=-1, keepdims=True)  # or a very small temperature would make infinities of them
    logits /= tf.where(greedy, 1.0, settings.temperature)[:, None]
    if settings.top_k is not None:
        logits = keep_top_k(logits, settings.top_k)
    if settings.top_p is not None:
        logits = keep_top_p(logits, settings.top_p)
    return tf.where(greedy, best, choose(logits, uniform))
