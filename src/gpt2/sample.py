"""Logits -> next token: repetition penalty, temperature, top-k, top-p, then one draw. Pure functions of one row.

A filter says which of the logits that it is given it keeps, so that filters compose and what comes after looks at those
alone; the order is OpenAI's: temperature, top-k, top-p. In NumPy: a row of 50,257 logits is too little work to be worth
TensorFlow's call.

Shapes: V vocabulary, N candidates, in the order of their ids.
"""

from __future__ import annotations

import math

import numpy as np

from gpt2.request import Sampling

LARGEST = float(np.finfo(np.float32).max)
BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))
NUCLEUS_WINDOW = 1024  # candidates that are sorted before all are: nearly every nucleus is smaller
WORD = 2**32
SLICES = 32  # of the ids, side by side; of each place in them only the largest logit is looked at first
FEW = 1024  # candidates of which nothing is gained by looking for those that cannot win
ROUNDING = np.float32(1e-3)  # more than what the sums of logits and Gumbel numbers are off by


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
        """One random word for each id [V] uint32."""
        return self.bits.random_raw((n_vocab + 1) // 2).astype("<u8", copy=False).view("<u4")[:n_vocab]


def uniform(words: np.ndarray) -> np.ndarray:
    """words [N] uint32 -> [N] float32, uniform in (0, 1), the small ones as precise as the large ones."""
    numbers = (words.astype(np.float32) + np.float32(0.5)) * np.float32(1 / WORD)
    return np.minimum(numbers, BELOW_ONE)  # 1 itself would be a Gumbel number of -inf, as if the id were dropped


def apply_repetition_penalty(logits: np.ndarray, seen: np.ndarray, penalty: float) -> np.ndarray:
    """Makes ids that were there already less likely (Keskar et al. 2019): logits [V], seen [V] bool -> [V].

    >>> apply_repetition_penalty(np.float32([2, -2, 3]), np.array([True, True, False]), 2.0).tolist()
    [1.0, -4.0, 3.0]
    """
    return np.where(seen, np.where(logits > 0, logits / np.float32(penalty), logits * np.float32(penalty)), logits)


def top_k(logits: np.ndarray, k: int) -> np.ndarray | None:
    """logits [N] -> where the k largest are [k], ties by lowest id; None for all, as 0 and more than there are mean.

    >>> top_k(np.float32([1, 3, 2, 2]), 2).tolist()
    [1, 2]
    """
    return where_largest(logits, k, largest_sorted(logits, k)[k - 1]) if 0 < k < len(logits) else None


def top_p(logits: np.ndarray, p: float, window: int = NUCLEUS_WINDOW) -> np.ndarray | None:
    """logits [N] -> where the nucleus is (Holtzman et al. 2019), ties by lowest id: the token that crosses p is in it;
    None for all, as 0 and 1 mean.

    With the probabilities .5, .3, .15, .05 the sums before each are 0, .5, .8, .95: a p of .6 keeps the two whose sum
    before them is below it, and one of .9 three.

    >>> top_p(np.log([0.15, 0.5, 0.05, 0.3]), 0.6).tolist()
    [1, 3]
    """
    if not 0 < p < 1:
        return None
    most = logits.max()
    log_total = most + np.log(np.exp(logits - most).sum())
    for n in (window, len(logits)):  # nearly always the first is enough
        candidates = largest_sorted(logits, n)
        reached = np.cumsum(np.exp(candidates - log_total)) >= p
        if reached.any():
            break
    size = min(int(np.count_nonzero(~reached)) + 1, len(candidates))
    return where_largest(logits, size, candidates[size - 1])


def largest_sorted(logits: np.ndarray, n: int) -> np.ndarray:
    """The n largest of the logits [N], largest first; perhaps some more of them behind.

    The ids are laid out in rows, one below the other. The n-th largest of the columns' maxima is a bound that at least
    n logits reach, one in each of n columns: only what reaches it is sorted.
    """
    whole = len(logits) // SLICES * SLICES
    maxima = logits[:whole].reshape(SLICES, -1).max(axis=0)
    bound = np.partition(maxima, -n)[-n] if n <= len(maxima) else -np.inf
    return -np.sort(-logits[logits >= bound])


def where_largest(logits: np.ndarray, n: int, smallest: np.floating) -> np.ndarray:
    """logits [N], the n-th largest of them -> where the n largest are [n], of equal ones those of lowest id.

    >>> where_largest(np.float32([1, 3, 2, 2]), 2, smallest=np.float32(2)).tolist()
    [1, 2]
    """
    places = np.flatnonzero(logits >= smallest)
    surplus = len(places) - n
    return np.delete(places, np.flatnonzero(logits[places] == smallest)[-surplus:]) if surplus else places


def choose(logits: np.ndarray, words: np.ndarray) -> int:
    """A place in the logits [N], drawn with the probabilities softmax(logits) by random words [N] uint32.

    By the Gumbel-max trick (Maddison et al. 2014): every id has a random number of its own. With one number for the row
    and cumulated probabilities, the rounding errors of all the ids before the chosen one would count, and another batch
    size would choose another id once in some hundred tokens.
    """
    if len(logits) > FEW:
        places = _that_can_win(logits, words)
        return int(places[choose(logits[places], words[places])])
    gumbel = -np.log(-np.log1p(-uniform(words)))
    return int(np.argmax(logits + gumbel))


def _that_can_win(logits: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Those of the places [N] whose logit plus Gumbel number may be the largest: a few, found without a logarithm.

    The Gumbel number of u, -log(-log(1 - u)), is at most -log(u); and of that, u's exponent tells a bound.
    """
    exponents = (words.astype(np.float32).view(np.int32) >> 23) - (127 + 32)  # 2**exponent <= u
    bounds = logits - exponents.astype(np.float32) * np.float32(math.log(2))
    first = int(np.argmax(bounds))
    reached = logits[first] - np.log(-np.log1p(-uniform(words[first : first + 1])))
    return np.flatnonzero(bounds >= reached - ROUNDING)


def next_token(logits: np.ndarray, sampling: Sampling, words: np.ndarray | None, seen: np.ndarray | None = None) -> int:
    """The next id.

    logits [V] float32; words [V] uint32, None if the choice is greedy; seen [V] bool, None if there is no repetition
    penalty.
    """
    if seen is not None:
        logits = apply_repetition_penalty(logits, seen, sampling.repetition_penalty)
    temperature = np.float32(min(sampling.temperature, LARGEST))
    if not temperature or words is None:
        return int(np.argmax(logits))
    with np.errstate(over="ignore"):  # a very small temperature: all but the largest become -inf
        logits = (logits - logits.max()) / temperature
    ids: np.ndarray = np.arange(len(logits))
    for keep in (lambda x: top_k(x, sampling.top_k), lambda x: top_p(x, sampling.top_p)):
        places = keep(logits)
        if places is not None:
            ids, logits = ids[places], logits[places]
    return int(ids[choose(logits, words if len(ids) == len(words) else words[ids])])
