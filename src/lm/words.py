"""Pieces -> words and their log-probabilities, as transformer-lm's web page scores them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from gpt2.text.sentencepiece import WORD_START

Scored = list[tuple[float, str]]


def is_word(piece: str) -> bool:
    """Whether it is part of a word, not punctuation alone."""
    return bool(re.search(r"\w", piece))


def is_continuation(piece: str) -> bool:
    """Whether it goes on with a word."""
    return is_word(piece) and not piece.startswith(WORD_START)


def scored(pieces: Sequence[str], log_probs: np.ndarray, known: Sequence[str], id_of: Callable[[str], int]) -> Scored:
    """The words among the pieces, from the second piece on, each with its log-probability among words.

    log_probs [T, V]: what stands before each next piece; known [V]: the pieces of the vocabulary. A word's is the sum
    over its pieces, each among those that are parts of words, and that of its end: that what follows does not go on
    with it. The last word has no such end. Punctuation is left out.
    """
    continues, words = (np.array([kind(piece) for piece in known]) for kind in (is_continuation, is_word))
    found: Scored = []
    word: list[str] = []
    total = 0.0

    def finish(of_its_end: float) -> None:
        nonlocal total
        if word:
            found.append((float(total + of_its_end), "".join(piece.lstrip(WORD_START) for piece in word)))
        word.clear()
        total = 0.0

    for before, piece in zip(log_probs, pieces[1:]):
        if not is_continuation(piece):
            finish(_log_sum(before[~continues]))
        if is_word(piece):
            word.append(piece)
            total += float(before[id_of(piece)]) - _log_sum(before[words])
    finish(0.0)
    return found


def _log_sum(log_probs: np.ndarray) -> float:
    """The logarithm of the sum of their exponentials."""
    largest = log_probs.max(initial=-np.inf)
    return float(largest + np.log(np.exp(log_probs - largest).sum())) if np.isfinite(largest) else -np.inf
