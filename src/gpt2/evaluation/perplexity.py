"""Perplexities and bits: what a text's log-probabilities come to, by each of the things that one may divide by."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator

from gpt2.evaluation.scores import ScoredTokens

BITS_PER_NAT = 1 / math.log(2)  # of a nat


@dataclasses.dataclass
class TextCounts:
    """What a text has, as it is written: words are what white space parts."""

    words: int = 0
    lines: int = 0  # ends of lines
    characters: int = 0
    bytes: int = 0  # in UTF-8

    def count(self, parts: Iterable[str]) -> Iterator[str]:
        """The parts of a text, counted as they pass; a word may be cut by them."""
        in_word = False
        for part in parts:
            self.words += len(part.split()) - (in_word and not part[:1].isspace() and bool(part))
            self.lines += part.count("\n")
            self.characters += len(part)
            self.bytes += len(part.encode("utf-8", "replace"))
            in_word = not part[-1].isspace() if part else in_word
            yield part


@dataclasses.dataclass
class ScoreTotals:
    """Sums over the tokens that were scored."""

    tokens: int = 0
    nats: float = 0.0

    def accumulate(self, told: Iterable[ScoredTokens]) -> Iterator[ScoredTokens]:
        """The same, added up as it passes."""
        for scored in told:
            if scored.tokens is not None:
                self.tokens += len(scored.ids)
                self.nats -= float(scored.tokens.logprobs.sum(dtype=float))
            yield scored


def measures(nats: float, tokens: int, counts: TextCounts) -> dict[str, float]:
    """All that is usually reported of a text, NaN where there is nothing to divide by.

    A perplexity is the exponential of the nats for each token, word, or word and line end; the bits are those for each
    byte and character.
    """
    return {
        "perplexity": perplexity(nats, tokens),
        "perplexity_per_word": perplexity(nats, counts.words),
        "perplexity_per_word_or_line_end": perplexity(nats, counts.words + counts.lines),
        "bits_per_byte": mean(nats * BITS_PER_NAT, counts.bytes),
        "bits_per_character": mean(nats * BITS_PER_NAT, counts.characters),
    }


def perplexity(nats: float, count: int) -> float:
    """Infinite from e**709 on, which is beyond all numbers."""
    try:
        return math.exp(mean(nats, count))
    except OverflowError:
        return math.inf


def mean(total: float, count: int) -> float:
    return total / count if count else math.nan
