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
BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))
NUCLEUS_WINDOW = 1024  # candidates that are sorted before all are: nearly every nucleus is smaller
SLICE = 32  # ids of which only the largest logit is looked at first


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


def penalize(logits: np.ndarray, seen: np.ndarray, penalty: float) -> np.ndarray:
    """logits [V], seen [V] bool -> [V]."""
    return np.where(seen, np.where(logits > 0, logits / np.float32(penalty), logits * np.float32(penalty)), logits)


def falling(logits: np.ndarray, n: int) -> np.ndarray:
    """The n largest of the logits [V], or some more of them, in falling order.

    The n-th largest among the maxima of slices is a bound that at least n logits reach: only those are sorted.
    """
    whole = len(logits) // SLICE * SLICE
    maxima = logits[:whole].reshape(SLICE, -1).max(axis=0)
    bound = np.partition(maxima, -n)[-n] if n <= len(maxima) else DROPPED
    return -np.sort(-logits[logits >= bound])


def keep(logits: np.ndarray, n: int, smallest: float) -> np.ndarray:
    """logits [V] -> logits with the n largest kept, whose smallest is given; of equal ones those of lowest id."""
    kept = logits > smallest
    equal = np.flatnonzero(logits == smallest)
    kept[equal[: n - np.count_nonzero(kept)]] = True
    return np.where(kept, logits, logits.dtype.type(DROPPED))


def keep_top_k(logits: np.ndarray, top_k: int) -> np.ndarray:
    """logits [V] -> logits with exactly the k largest kept, ties by lowest id; 0, or more than there are, keeps all."""
    return keep(logits, top_k, falling(logits, top_k)[top_k - 1]) if 0 < top_k < len(logits) else logits


def keep_top_p(logits: np.ndarray, top_p: float, window: int = NUCLEUS_WINDOW) -> np.ndarray:
    """logits [V] -> logits with the nucleus kept: the token that crosses p is in it. 0 and 1 keep all.

    With the probabilities .5, .3, .15, .05 a top_p of .6 keeps two tokens and one of .9 keeps three.
    """
    if not 0 < top_p < 1:
        return logits
    largest = logits.max()
    total = largest + np.log(np.exp(logits - largest).sum())
    for n in (window, len(logits)):
        candidates = falling(logits, n)
        before = np.cumsum(np.exp(candidates - total)) < top_p  # what does not reach p yet
        if not before.all():
            break
    nucleus = min(int(np.count_nonzero(before)) + 1, len(candidates))
    return keep(logits, nucleus, candidates[nucleus - 1])


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
        logits = penalize(logits, seen, sampling.repetition_penalty)
    temperature = np.float32(sampling.temperature)
    if not temperature or uniform is None:
        return int(np.argmax(logits))
    with np.errstate(over="ignore"):  # a very small temperature: all but the largest become -inf
        logits = (logits - logits.max()) / temperature
    return choose(keep_top_p(keep_top_k(logits, sampling.top_k), sampling.top_p), uniform)
