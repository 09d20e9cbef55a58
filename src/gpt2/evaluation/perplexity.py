"""Perplexities and bits per byte: a text's log-probability per token, word, byte or character."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator

from gpt2.evaluation.scores import ScoredTokens

BITS_PER_NAT = 1 / math.log(2)
METRIC_NAMES = {  # names in reports for the keys of `text_metrics`
    "perplexity": "perplexity per token",
    "perplexity_per_word": "perplexity per word",
    "perplexity_per_word_or_line_end": "perplexity per word or line end",
    "bits_per_byte": "bits per byte",
    "bits_per_character": "bits per character",
}


@dataclasses.dataclass
class TextCounts:
    """The numbers of words, line ends, characters and bytes of texts.

    Attributes:
        words: Runs of characters other than white space.
        lines: Line ends.
        characters: Unicode code points.
        bytes: Bytes in UTF-8.
    """

    words: int = 0
    lines: int = 0
    characters: int = 0
    bytes: int = 0

    def count(self, parts: Iterable[str]) -> Iterator[str]:
        """Yield the parts of one text unchanged, and add their counts; a part may end within a word."""
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
    """Sums over scored tokens.

    Attributes:
        tokens: The number of scored tokens.
        nats: The sum of their negative log-probabilities, natural logarithm.
    """

    tokens: int = 0
    nats: float = 0.0

    def accumulate(self, scores: Iterable[ScoredTokens]) -> Iterator[ScoredTokens]:
        """Yield `scores` unchanged, and add each of them to the totals."""
        for scored in scores:
            if scored.tokens is not None:
                self.tokens += len(scored.ids)
                self.nats -= float(scored.tokens.logprobs.sum(dtype=float))
            yield scored


def text_metrics(nats: float, tokens: int, counts: TextCounts) -> dict[str, float]:
    """Return the metrics of a text by the keys of METRIC_NAMES; a metric with the divisor 0 is NaN.

    A perplexity is the exponential of the nats per token, per word, or per word and line end.

    Args:
        nats: The negative log-probability of the text, natural logarithm.
        tokens: The number of scored tokens.
        counts: The sizes of the text.
    """
    return {
        "perplexity": perplexity(nats, tokens),
        "perplexity_per_word": perplexity(nats, counts.words),
        "perplexity_per_word_or_line_end": perplexity(nats, counts.words + counts.lines),
        "bits_per_byte": mean(nats * BITS_PER_NAT, counts.bytes),
        "bits_per_character": mean(nats * BITS_PER_NAT, counts.characters),
    }


def perplexity(nats: float, count: int) -> float:
    """Return exp(nats / count): NaN if count is 0, infinity if the result exceeds the range of a float."""
    try:
        return math.exp(mean(nats, count))
    except OverflowError:
        return math.inf


def mean(total: float, count: int) -> float:
    """Return total / count, or NaN if count is 0."""
    return total / count if count else math.nan
