"""Logits -> next token: repetition penalty, temperature, top-k, top-p, then one draw. Pure functions of one row.

A filter sets the logits it drops to -inf and leaves the rest as they are, so filters compose; the order is OpenAI's:
temperature, top-k, top-p. In NumPy: a row of 50,257 logits is too little work to be worth TensorFlow's call.

Shapes: V vocabulary.
"""

from __future__ import annotations

import math

import numpy as np

from gpt2.request import Sampling

DROPPED = -math.inf
LARGEST = float(np.finfo(np.float32).max)
BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))
NUCLEUS_WINDOW = 1024  # candidates that are sorted before all are: nearly every nucleus is smaller
WORD = 2**32
SLICES = 32  # of the ids, side by side; of each place in them only the largest logit is looked at first


class RandomNumbers:
    """The random numbers of one sample: for its i-th new token the i-th row of them, whatever is generated beside it.

    Philox (Salmon et al. 2011), keyed by the seed and the sample's number and computed on the host, so that one seed
    gives the same numbers on every device and machine.
    """

    def __init__(self, seed: int, sample: int) -> None:
        # NumPy would take (5 + 7 * 2**32, 0) and (5, 7) for the same words; what is beyond 32 bits goes by another way.
        low, high = ((seed % WORD, sample % WORD), (seed // WORD, sample // WORD))
        self.bits = np.random.Philox(np.random.SeedSequence(low, spawn_key=high if any(high) else ()))

    def next(self, n_vocab: int) -> np.ndarray:
        """One number for each id [V] float32, uniform in (0, 1), the small ones as precise as the large ones."""
        words = self.bits.random_raw((n_vocab + 1) // 2).astype("<u8").view("<u4")[:n_vocab]
        uniform = (words.astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-32)
        return np.minimum(uniform, BELOW_ONE)  # 1 itself would be a Gumbel number of -inf, as if the id were dropped


def apply_repetition_penalty(logits: np.ndarray, seen: np.ndarray, penalty: float) -> np.ndarray:
    """Makes ids that were there already less likely (Keskar et al. 2019): logits [V], seen [V] bool -> [V].

    >>> apply_repetition_penalty(np.float32([2, -2, 3]), np.array([True, True, False]), 2.0).tolist()
    [1.0, -4.0, 3.0]
    """
    return np.where(seen, np.where(logits > 0, logits / np.float32(penalty), logits * np.float32(penalty)), logits)


def apply_top_k(logits: np.ndarray, k: int) -> np.ndarray:
    """logits [V] -> [V] with exactly the k largest kept, ties by lowest id; 0, or more than there are, keeps all.

    >>> apply_top_k(np.float32([1, 3, 2, 2]), 2).tolist()
    [-inf, 3.0, 2.0, -inf]
    """
    return keep_largest(logits, k, largest_sorted(logits, k)[k - 1]) if 0 < k < len(logits) else logits


def apply_top_p(logits: np.ndarray, p: float, window: int = NUCLEUS_WINDOW) -> np.ndarray:
    """logits [V] -> [V] with the nucleus kept (Holtzman et al. 2019): the token that crosses p is in it; 0 and 1 keep
    all.

    With the probabilities .5, .3, .15, .05 the sums before each are 0, .5, .8, .95: a p of .6 keeps the two whose sum
    before them is below it, and one of .9 three.

    >>> np.exp(apply_top_p(np.log([0.15, 0.5, 0.05, 0.3]), 0.6)).round(2).tolist()
    [0.0, 0.5, 0.0, 0.3]
    """
    if not 0 < p < 1:
        return logits
    largest = logits.max()
    log_total = largest + np.log(np.exp(logits - largest).sum())
    for n in (window, len(logits)):  # nearly always the first is enough
        candidates = largest_sorted(logits, n)
        reached = np.cumsum(np.exp(candidates - log_total)) >= p
        if reached.any():
            break
    size = min(int(np.count_nonzero(~reached)) + 1, len(candidates))
    return keep_largest(logits, size, candidates[size - 1])


def largest_sorted(logits: np.ndarray, n: int) -> np.ndarray:
    """The n largest of the logits [V], largest first; perhaps some more of them behind.

    The ids are laid out in rows, one below the other. The n-th largest of the columns' maxima is a bound that at least
    n logits reach, one in each of n columns: only what reaches it is sorted.
    """
    whole = len(logits) // SLICES * SLICES
    maxima = logits[:whole].reshape(SLICES, -1).max(axis=0)
    bound = np.partition(maxima, -n)[-n] if n <= len(maxima) else DROPPED
    return -np.sort(-logits[logits >= bound])


def keep_largest(logits: np.ndarray, n: int, smallest: np.floating) -> np.ndarray:
    """logits [V], the n-th largest of them -> [V] with the n largest kept, of equal ones those of lowest id.

    >>> keep_largest(np.float32([1, 3, 2, 2]), 2, smallest=np.float32(2)).tolist()
    [-inf, 3.0, 2.0, -inf]
    """
    kept = logits > smallest
    ties = np.flatnonzero(logits == smallest)
    kept[ties[: n - np.count_nonzero(kept)]] = True
    return np.where(kept, logits, logits.dtype.type(DROPPED))


def choose(logits: np.ndarray, uniform: np.ndarray) -> int:
    """An id, drawn with the probabilities softmax(logits); logits and uniform [V].

    By the Gumbel-max trick (Maddison et al. 2014): every id has a random number of its own. With one number for the row
    and cumulated probabilities, the rounding errors of all the ids before the chosen one would count, and another batch
    size would choose another id once in some hundred tokens.
    """
    gumbel = -np.log(-np.log1p(-uniform))
    return int(np.argmax(logits + gumbel))


def next_token(
    logits: np.ndarray, sampling: Sampling, uniform: np.ndarray | None, seen: np.ndarray | None = None
) -> int:
    """The next id.

    logits [V] float32; uniform [V] in (0, 1), None if the choice is greedy; seen [V] bool, None if there is no
    repetition penalty.
    """
    if seen is not None:
        logits = apply_repetition_penalty(logits, seen, sampling.repetition_penalty)
    temperature = np.float32(min(sampling.temperature, LARGEST))
    if not temperature or uniform is None:
        return int(np.argmax(logits))
    with np.errstate(over="ignore"):  # a very small temperature: all but the largest become -inf
        logits = (logits - logits.max()) / temperature
    return choose(apply_top_p(apply_top_k(logits, sampling.top_k), sampling.top_p), uniform)
