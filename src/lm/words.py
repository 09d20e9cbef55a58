"""Log-probabilities of words, computed from the log-probabilities of their pieces, as on transformer-lm's web page."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from gpt2.text.sentencepiece import WORD_START

ScoredTexts = list[tuple[float, str]]  # (log-probability, piece or word)


def is_word(piece: str) -> bool:
    """Return whether a piece is part of a word, not punctuation alone."""
    return bool(re.search(r"\w", piece))


def is_continuation(piece: str) -> bool:
    """Return whether a piece continues a word."""
    return is_word(piece) and not piece.startswith(WORD_START)


def score_words(
    pieces: Sequence[str], log_probs: np.ndarray, vocabulary: Sequence[str], id_of: Callable[[str], int]
) -> ScoredTexts:
    """Return the words of a text, from its second piece on, with their log-probabilities.

    A word's log-probability is the sum of two parts. The first is the log-probabilities of its pieces, each normalized
    over all pieces that can be part of a word. The second is the log-probability that the next piece does not continue
    the word; the last word has no second part. Punctuation is left out.

    Args:
        pieces: The T pieces of the text.
        log_probs: Log-probabilities of the next piece at each position, [T, V].
        vocabulary: All V pieces, in the order of their ids.
        id_of: Function from a piece to its id.
    """
    continues = np.array([is_continuation(piece) for piece in vocabulary])
    in_words = np.array([is_word(piece) for piece in vocabulary])
    scored: ScoredTexts = []
    word_pieces: list[str] = []
    total = 0.0

    def finish_word(end_log_prob: float) -> None:
        nonlocal total
        if word_pieces:
            scored.append((float(total + end_log_prob), "".join(piece.lstrip(WORD_START) for piece in word_pieces)))
        word_pieces.clear()
        total = 0.0

    for next_log_probs, piece in zip(log_probs, pieces[1:]):
        if not is_continuation(piece):
            finish_word(_log_sum_exp(next_log_probs[~continues]))
        if is_word(piece):
            word_pieces.append(piece)
            total += float(next_log_probs[id_of(piece)]) - _log_sum_exp(next_log_probs[in_words])
    finish_word(0.0)
    return scored


def _log_sum_exp(log_probs: np.ndarray) -> float:
    largest = log_probs.max(initial=-np.inf)
    return float(largest + np.log(np.exp(log_probs - largest).sum())) if np.isfinite(largest) else -np.inf
