"""The choice of the next token from logits: bias and penalties, then filters, then one draw.

The order is OpenAI's: temperature, top-k, top-p; min-p follows. A filter returns the indices of the logits that it
keeps. Filters compose: each sees only the logits that the previous filters kept. The functions are pure and take one
row of logits. They use NumPy, because a row of 50,257 logits is too little work to be worth a TensorFlow call.

Shapes: V vocabulary, N candidates in the order of their ids.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gpt2.request import Sampling

LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
LARGEST_BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))
FIRST_SORT_SIZE = 1024  # candidates that top_p sorts before it sorts all: nearly every nucleus is smaller
BOUND_ROWS = 32  # rows in which logits are arranged to find a lower bound of the n largest
MIN_PRUNED_CANDIDATES = 1024  # for fewer candidates, pruning the draw costs more than it saves
ROUNDING_MARGIN = np.float32(1e-3)  # more than the rounding error of a logit plus its Gumbel number
WORD_VALUES = 2**32  # values of a random word
NUMBERS_PER_COUNTER = 4  # numbers of 64 bits that Philox generates from one counter value


def apply_bias_and_penalties(logits: np.ndarray, sampling: Sampling, prompt: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return the logits with biases and penalties applied.

    Args:
        logits: [V] float32.
        sampling: The biases and penalties.
        prompt: Ids of the prompt; only the repetition penalty counts them.
        new: Ids generated so far.

    Returns:
        [V] float32; the input itself if nothing applies.
    """
    bias = sampling.logit_bias
    if bias:
        logits = add_at(logits, np.array(list(bias)), np.array(list(bias.values()), np.float32))
    if sampling.repetition_penalty != 1:
        logits = apply_repetition_penalty(logits, np.concatenate([prompt, new]), sampling.repetition_penalty)
    if len(new) and (sampling.frequency_penalty or sampling.presence_penalty):
        ids, counts = np.unique(new, return_counts=True)
        penalties = counts * sampling.frequency_penalty + sampling.presence_penalty
        logits = add_at(logits, ids, -penalties.astype(np.float32))
    return logits


def add_at(logits: np.ndarray, ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return a copy of the logits [V] with values [N] added at the ids [N]."""
    logits = logits.copy()
    logits[ids] += values
    return logits


def apply_repetition_penalty(logits: np.ndarray, seen: np.ndarray, penalty: float) -> np.ndarray:
    """Return the logits with every seen id penalized once (Keskar et al. 2019).

    >>> apply_repetition_penalty(np.float32([2, -2, 3]), np.array([1, 0, 1]), 2.0).tolist()
    [1.0, -4.0, 3.0]

    Args:
        logits: [V].
        seen: Ids [N], which may repeat.
        penalty: Divides positive and multiplies negative logits.

    Returns:
        [V].
    """
    old = logits[seen]
    logits = logits.copy()
    logits[seen] = np.where(old > 0, old / np.float32(penalty), old * np.float32(penalty))
    return logits


def top_k(logits: np.ndarray, k: int) -> np.ndarray | None:
    """Return the indices of the k largest logits, ties by lowest index.

    >>> top_k(np.float32([1, 3, 2, 2]), 2).tolist()
    [1, 2]

    Args:
        logits: [N].
        k: Number of logits to keep; 0 and values of N or more keep all.

    Returns:
        Indices [k] in ascending order, or None if all are kept.
    """
    if not 0 < k < len(logits):
        return None
    indices = indices_above_bound(logits, k)
    candidates = logits[indices]
    return indices[indices_of_largest(candidates, k, np.partition(candidates, -k)[-k])]


def top_p(logits: np.ndarray, p: float, first_sort_size: int = FIRST_SORT_SIZE) -> np.ndarray | None:
    """Return the indices of the nucleus (Holtzman et al. 2019), ties by lowest index.

    The nucleus is the smallest set of most likely tokens whose probabilities sum to at least p; the token that
    crosses p is included. With the probabilities .5, .3, .15 and .05, a p of .6 keeps two tokens and .9 keeps three.

    >>> top_p(np.log([0.15, 0.5, 0.05, 0.3]), 0.6).tolist()
    [1, 3]

    Args:
        logits: [N].
        p: The probability that the nucleus has to reach; 0 and 1 keep all.
        first_sort_size: Number of largest logits that are sorted first; they usually contain the nucleus.

    Returns:
        Indices in ascending order, or None if all are kept.
    """
    if not 0 < p < 1:
        return None
    maximum = logits.max()
    log_total = maximum + np.log(np.exp(logits - maximum).sum())
    for n in (first_sort_size, len(logits)):  # the first size is nearly always enough
        candidates = sort_largest(logits, n)
        reached = np.cumsum(np.exp(candidates - log_total)) >= p
        if reached.any():
            break
    size = min(int(np.count_nonzero(~reached)) + 1, len(candidates))
    return indices_of_largest(logits, size, candidates[size - 1])


def min_p(logits: np.ndarray, p: float) -> np.ndarray | None:
    """Return the indices of tokens that are at least p times as likely as the most likely one (Nguyen et al. 2024).

    >>> min_p(np.log([0.15, 0.5, 0.05, 0.3]), 0.4).tolist()
    [1, 3]

    Args:
        logits: [N].
        p: The minimum share of the largest probability; 0 keeps all.

    Returns:
        Indices in ascending order, or None if all are kept.
    """
    return np.flatnonzero(logits >= logits.max() + np.float32(math.log(p))) if p else None


def top_ids(logits: np.ndarray, n: int) -> np.ndarray:
    """Return the ids of the n largest logits [V], largest first, ties by lowest id; all ids if n is 0 or above V.

    >>> top_ids(np.float32([1, 3, 2, 2]), 3).tolist()
    [1, 2, 3]
    """
    ids = top_k(logits, n)
    ids = np.arange(len(logits)) if ids is None else ids
    return ids[np.argsort(-logits[ids], kind="stable")]


def sort_largest(logits: np.ndarray, n: int) -> np.ndarray:
    """Return at least the n largest of the logits [N], in descending order."""
    return -np.sort(-logits[indices_above_bound(logits, n)])


def indices_above_bound(logits: np.ndarray, n: int) -> np.ndarray:
    """Return ascending indices of logits [N], which include the n largest and, if n is small, few others.

    The logits are arranged in BOUND_ROWS rows. The n-th largest of the columns' maxima is a lower bound of the n
    largest logits, because at least n logits, one in each of n columns, reach it.
    """
    covered = len(logits) // BOUND_ROWS * BOUND_ROWS
    maxima = logits[:covered].reshape(BOUND_ROWS, -1).max(axis=0)
    bound = np.partition(maxima, -n)[-n] if n <= len(maxima) else -np.inf
    return np.flatnonzero(logits >= bound)


def indices_of_largest(logits: np.ndarray, n: int, nth_largest: np.floating) -> np.ndarray:
    """Return the ascending indices [n] of the n largest logits [N], ties by lowest index.

    >>> indices_of_largest(np.float32([1, 3, 2, 2]), 2, nth_largest=np.float32(2)).tolist()
    [1, 2]

    Args:
        logits: [N].
        n: Number of indices to return.
        nth_largest: The value of the n-th largest logit.
    """
    indices = np.flatnonzero(logits >= nth_largest)
    surplus = len(indices) - n
    return np.delete(indices, np.flatnonzero(logits[indices] == nth_largest)[-surplus:]) if surplus else indices


class Candidates(NamedTuple):
    """The ids of one row that pass the filters, with their logits after the temperature."""

    ids: np.ndarray | None  # [N] in ascending order, or None for all
    logits: np.ndarray  # [N], at most 0


def is_greedy(sampling: Sampling) -> bool:
    """Return whether the temperature is 0 in float32, so that the most likely token is always chosen."""
    return not np.float32(min(sampling.temperature, LARGEST_FLOAT32))


def filter_candidates(logits: np.ndarray, sampling: Sampling) -> Candidates:
    """Apply the temperature, which must be above 0 in float32, and the filters.

    top_k comes before the temperature because its result does not depend on it: k logits are divided instead of V.

    Args:
        logits: [V], the result of `apply_bias_and_penalties`.
        sampling: The temperature and the filters.

    Returns:
        The candidates [N] to draw from.
    """
    ids = top_k(logits, sampling.top_k)
    logits = logits if ids is None else logits[ids]
    with np.errstate(over="ignore"):  # a very small temperature turns all but the largest into -inf
        logits = (logits - logits.max()) / np.float32(min(sampling.temperature, LARGEST_FLOAT32))
    for keep, setting in ((top_p, sampling.top_p), (min_p, sampling.min_p)):
        indices = keep(logits, setting)
        if indices is not None:
            ids = indices if ids is None else ids[indices]
            logits = logits[indices]
    return Candidates(ids, logits)


class RandomNumbers:
    """The random numbers of one sample, a row of numbers for each new token.

    They do not depend on other samples. They come from Philox (Salmon et al. 2011), keyed by the seed and the sample
    number, and are computed on the CPU. One seed therefore gives the same numbers on every device and machine. Philox
    is counter-based: any number can be computed without the numbers before it.

    Args:
        seed: From 0 to 2**64 - 1.
        sample: The sample number, from 0 to 2**64 - 1.
    """

    def __init__(self, seed: int, sample: int) -> None:
        """Create the generator at its first number."""
        # NumPy derives the same words from (5 + 7 * 2**32, 0) and (5, 7), so the high halves go into the spawn key.
        low = (seed % WORD_VALUES, sample % WORD_VALUES)
        high = (seed // WORD_VALUES, sample // WORD_VALUES)
        self.generator = np.random.Philox(np.random.SeedSequence(low, spawn_key=high if any(high) else ()))
        self.initial_state = self.generator.state
        self.key = np.asarray(self.initial_state["state"]["key"], np.uint64)  # [2]
        self.position = 0  # number of 64-bit numbers drawn so far

    def words(self, token: int, n_vocab: int, ids: np.ndarray | None = None) -> np.ndarray:
        """Return one random word for each id.

        Args:
            token: Index of the new token, from 0.
            n_vocab: Size of the vocabulary, V.
            ids: Ids [N] whose words to return; None for all.

        Returns:
            [N] or [V] uint32.
        """
        count = numbers_per_token(n_vocab)
        first = token * count
        if self.position != first:
            self.generator.state = self.initial_state
            self.generator.advance(first // NUMBERS_PER_COUNTER)
            self.generator.random_raw(first % NUMBERS_PER_COUNTER)
        words = self.generator.random_raw(count).astype("<u8", copy=False).view("<u4")[:n_vocab]
        self.position = first + count
        return words if ids is None else words[ids]


def numbers_per_token(n_vocab: int) -> int:
    """Return the number of 64-bit random numbers, of two words each, that a token uses."""
    return (n_vocab + 1) // 2


def to_uniform(words: np.ndarray) -> np.ndarray:
    """Convert words [N] uint32 to [N] float32, uniform in (0, 1), with small numbers as precise as large ones."""
    numbers = (words.astype(np.float32) + np.float32(0.5)) * np.float32(1 / WORD_VALUES)
    return np.minimum(numbers, LARGEST_BELOW_ONE)  # 1 would give the Gumbel number -inf, which excludes the id


def gumbel_argmax(logits: np.ndarray, words: np.ndarray) -> int:
    """Draw an index with the probabilities softmax(logits).

    This is the Gumbel-max trick (Maddison et al. 2014), with a separate random number for each id. A single random
    number compared with cumulative probabilities would accumulate the rounding errors of all ids before the chosen one.
    With another batch size, it would choose another id once in a few hundred tokens.

    Args:
        logits: [N].
        words: [N] uint32.

    Returns:
        An index from 0 to N - 1.
    """
    if len(logits) > MIN_PRUNED_CANDIDATES:
        indices = _possible_winners(logits, words)
        return int(indices[gumbel_argmax(logits[indices], words[indices])])
    gumbel = -np.log(-np.log1p(-to_uniform(words)))
    return int(np.argmax(logits + gumbel))


def _possible_winners(logits: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Return the few indices whose logit plus Gumbel number may be the largest, computing only one logarithm.

    The Gumbel number of u, -log(-log(1 - u)), is at most -log(u), and the exponent of u bounds -log(u) in turn.
    """
    exponents = (words.astype(np.float32).view(np.int32) >> 23) - (127 + 32)  # 2**exponent <= u
    bounds = logits - exponents.astype(np.float32) * np.float32(math.log(2))
    first = int(np.argmax(bounds))
    reached = logits[first] - np.log(-np.log1p(-to_uniform(words[first : first + 1])))
    return np.flatnonzero(bounds >= reached - ROUNDING_MARGIN)


def draw(candidates: Candidates, words: np.ndarray) -> int:
    """Draw one of the candidates' ids with their random words [N] uint32."""
    index = gumbel_argmax(candidates.logits, words)
    return index if candidates.ids is None else int(candidates.ids[index])


def next_token(
    logits: np.ndarray,
    sampling: Sampling,
    words: np.ndarray,
    prompt: Sequence[int] = (),
    new: Sequence[int] = (),
) -> int:
    """Return the next id of one row. The engine runs the same steps for many rows.

    Args:
        logits: [V] float32.
        sampling: The sampling parameters.
        words: [V] uint32, a random word for each id.
        prompt: Ids of the prompt.
        new: Ids generated so far.

    Returns:
        An id from 0 to V - 1.
    """
    logits = apply_bias_and_penalties(logits, sampling, np.array(prompt, np.int32), np.array(new, np.int32))
    if is_greedy(sampling):
        return int(np.argmax(logits))
    candidates = filter_candidates(logits, sampling)
    return draw(candidates, words if candidates.ids is None else words[candidates.ids])
