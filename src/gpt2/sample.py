"""Logits -> next token: bias, penalties, temperature, top-k, top-p, min-p, then one draw. Pure functions of one row.

A filter says which of the logits that it is given it keeps, so that filters compose and what comes after looks at those
alone; the order is OpenAI's: temperature, top-k, top-p, and then min-p. In NumPy: a row of 50,257 logits is too little
work to be worth TensorFlow's call.

Shapes: V vocabulary, N candidates, in the order of their ids.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gpt2.request import Sampling

LARGEST = float(np.finfo(np.float32).max)
BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))
NUCLEUS_WINDOW = 1024  # candidates that are sorted before all are: nearly every nucleus is smaller
WORD = 2**32
DRAWN_AT_ONCE = 4  # numbers that Philox makes of one count
SLICES = 32  # of the ids, side by side; of each place in them only the largest logit is looked at first
FEW = 1024  # candidates of which nothing is gained by looking for those that cannot win
ROUNDING = np.float32(1e-3)  # more than what the sums of logits and Gumbel numbers are off by


class RandomNumbers:
    """The random numbers of one sample: for its i-th new token the i-th row of them, whatever is generated beside it.

    Philox (Salmon et al. 2011), keyed by the seed and the sample's number and computed on the host, so that one seed
    gives the same numbers on every device and machine. It counts: each number can be had without those before it.
    """

    def __init__(self, seed: int, sample: int) -> None:
        # NumPy would take (5 + 7 * 2**32, 0) and (5, 7) for the same words; what is beyond 32 bits goes by another way.
        low, high = ((seed % WORD, sample % WORD), (seed // WORD, sample // WORD))
        self.bits = np.random.Philox(np.random.SeedSequence(low, spawn_key=high if any(high) else ()))
        self.beginning = self.bits.state
        self.key = np.asarray(self.beginning["state"]["key"], np.uint64)  # [2]
        self.at = 0  # how many numbers of 64 bits have been drawn

    def words(self, token: int, n_vocab: int, ids: np.ndarray | None = None) -> np.ndarray:
        """For a sample's new token with this number, from 0: one random word for each of these ids [N], or of all [V],
        uint32."""
        count = numbers_per_token(n_vocab)
        if self.at != token * count:
            self.bits.state = self.beginning
            self.bits.advance(token * count // DRAWN_AT_ONCE)
            self.bits.random_raw(token * count % DRAWN_AT_ONCE)
        words = self.bits.random_raw(count).astype("<u8", copy=False).view("<u4")[:n_vocab]
        self.at = (token + 1) * count
        return words if ids is None else words[ids]


def numbers_per_token(n_vocab: int) -> int:
    """Of 64 bits: two words each."""
    return (n_vocab + 1) // 2


def uniform(words: np.ndarray) -> np.ndarray:
    """words [N] uint32 -> [N] float32, uniform in (0, 1), the small ones as precise as the large ones."""
    numbers = (words.astype(np.float32) + np.float32(0.5)) * np.float32(1 / WORD)
    return np.minimum(numbers, BELOW_ONE)  # 1 itself would be a Gumbel number of -inf, as if the id were dropped


def apply_bias_and_penalties(logits: np.ndarray, sampling: Sampling, prompt: np.ndarray, new: np.ndarray) -> np.ndarray:
    """logits [V] -> the same with biases and penalties, by the ids of the prompt and those that are new."""
    bias = sampling.logit_bias
    if bias:
        logits = added(logits, np.array(list(bias)), np.array(list(bias.values()), np.float32))
    if sampling.repetition_penalty != 1:
        logits = apply_repetition_penalty(logits, np.concatenate([prompt, new]), sampling.repetition_penalty)
    if len(new) and (sampling.frequency_penalty or sampling.presence_penalty):
        ids, counts = np.unique(new, return_counts=True)
        penalties = counts * sampling.frequency_penalty + sampling.presence_penalty
        logits = added(logits, ids, -penalties.astype(np.float32))
    return logits


def added(logits: np.ndarray, ids: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    logits = logits.copy()
    logits[ids] += numbers
    return logits


def apply_repetition_penalty(logits: np.ndarray, seen: np.ndarray, penalty: float) -> np.ndarray:
    """Makes ids that were there already less likely (Keskar et al. 2019), each once: logits [V], seen ids [N] -> [V].

    >>> apply_repetition_penalty(np.float32([2, -2, 3]), np.array([1, 0, 1]), 2.0).tolist()
    [1.0, -4.0, 3.0]
    """
    logits, old = logits.copy(), logits[seen]
    logits[seen] = np.where(old > 0, old / np.float32(penalty), old * np.float32(penalty))
    return logits


def top_k(logits: np.ndarray, k: int) -> np.ndarray | None:
    """logits [N] -> where the k largest are [k], ties by lowest id; None for all, as 0 and more than there are mean.

    >>> top_k(np.float32([1, 3, 2, 2]), 2).tolist()
    [1, 2]
    """
    if not 0 < k < len(logits):
        return None
    places = where_above_bound(logits, k)
    filter_candidates = logits[places]
    return places[where_largest(filter_candidates, k, np.partition(filter_candidates, -k)[-k])]


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
        filter_candidates = largest_sorted(logits, n)
        reached = np.cumsum(np.exp(filter_candidates - log_total)) >= p
        if reached.any():
            break
    size = min(int(np.count_nonzero(~reached)) + 1, len(filter_candidates))
    return where_largest(logits, size, filter_candidates[size - 1])


def min_p(logits: np.ndarray, p: float) -> np.ndarray | None:
    """logits [N] -> where those are that are at least p times as likely as the likeliest; None for all, as 0 means.

    >>> min_p(np.log([0.15, 0.5, 0.05, 0.3]), 0.4).tolist()
    [1, 3]
    """
    return np.flatnonzero(logits >= logits.max() + np.float32(math.log(p))) if p else None


def largest_sorted(logits: np.ndarray, n: int) -> np.ndarray:
    """The n largest of the logits [N], largest first; perhaps some more of them behind."""
    return -np.sort(-logits[where_above_bound(logits, n)])


def where_above_bound(logits: np.ndarray, n: int) -> np.ndarray:
    """logits [N] -> places among which those of the n largest are, few more if n is small, in order.

    The ids are laid out in rows, one below the other. The n-th largest of the columns' maxima is a bound that at least
    n logits reach, one in each of n columns.
    """
    whole = len(logits) // SLICES * SLICES
    maxima = logits[:whole].reshape(SLICES, -1).max(axis=0)
    bound = np.partition(maxima, -n)[-n] if n <= len(maxima) else -np.inf
    return np.flatnonzero(logits >= bound)


def top_ids(logits: np.ndarray, n: int) -> np.ndarray:
    """logits [V] -> the ids of the n largest, largest first, ties by lowest id; all if there are fewer.

    >>> likeliest(np.float32([1, 3, 2, 2]), 3).tolist()
    [1, 2, 3]
    """
    places = top_k(logits, n)
    places = np.arange(len(logits)) if places is None else places
    return places[np.argsort(-logits[places], kind="stable")]


def where_largest(logits: np.ndarray, n: int, smallest: np.floating) -> np.ndarray:
    """logits [N], the n-th largest of them -> where the n largest are [n], of equal ones those of lowest id.

    >>> where_largest(np.float32([1, 3, 2, 2]), 2, smallest=np.float32(2)).tolist()
    [1, 2]
    """
    places = np.flatnonzero(logits >= smallest)
    surplus = len(places) - n
    return np.delete(places, np.flatnonzero(logits[places] == smallest)[-surplus:]) if surplus else places


def gumbel_argmax(logits: np.ndarray, words: np.ndarray) -> int:
    """A place in the logits [N], drawn with the probabilities softmax(logits) by random words [N] uint32.

    By the Gumbel-max trick (Maddison et al. 2014): every id has a random number of its own. With one number for the row
    and cumulated probabilities, the rounding errors of all the ids before the chosen one would count, and another batch
    size would choose another id once in some hundred tokens.
    """
    if len(logits) > FEW:
        places = _that_can_win(logits, words)
        return int(places[gumbel_argmax(logits[places], words[places])])
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


class Candidates(NamedTuple):
    """What is left of a row's logits after temperature and filters."""

    ids: np.ndarray | None  # [N], None for all
    logits: np.ndarray  # [N], at most 0


def filter_candidates(logits: np.ndarray, sampling: Sampling) -> Candidates:
    """logits [V], already `shaped`, for a temperature above 0.

    top_k comes first because it is indifferent to the temperature, which then divides k logits instead of all.
    """
    ids = top_k(logits, sampling.top_k)
    logits = logits if ids is None else logits[ids]
    with np.errstate(over="ignore"):  # a very small temperature: all but the largest become -inf
        logits = (logits - logits.max()) / np.float32(min(sampling.temperature, LARGEST))
    for keep, setting in ((top_p, sampling.top_p), (min_p, sampling.min_p)):
        places = keep(logits, setting)
        if places is not None:
            ids, logits = (places if ids is None else ids[places]), logits[places]
    return Candidates(ids, logits)


def is_greedy(sampling: Sampling) -> bool:
    """Whether no random number counts; a temperature that is 0 in float32 is 0."""
    return not np.float32(min(sampling.temperature, LARGEST))


def draw(left: Candidates, words: np.ndarray) -> int:
    """One of the candidates' ids, by random words for each [N]."""
    place = gumbel_argmax(left.logits, words)
    return place if left.ids is None else int(left.ids[place])


def next_token(
    logits: np.ndarray,
    sampling: Sampling,
    words: np.ndarray,
    prompt: Sequence[int] = (),
    new: Sequence[int] = (),
) -> int:
    """The next id of one row, all in one: what the engine does for many rows together.

    logits [V] float32; words [V] uint32, one for each id; the ids that are there already.
    """
    logits = apply_bias_and_penalties(logits, sampling, np.array(prompt, np.int32), np.array(new, np.int32))
    if is_greedy(sampling):
        return int(np.argmax(logits))
    left = filter_candidates(logits, sampling)
    return draw(left, words if left.ids is None else words[left.ids])
