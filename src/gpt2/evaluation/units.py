"""Units of a report: scored tokens, or groups of them that form words, lines or files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from gpt2.errors import check_choice
from gpt2.evaluation.perplexity import BITS_PER_NAT
from gpt2.evaluation.scores import ScoredTokens
from gpt2.text.vocabulary import Vocabulary

TOKEN, WORD, LINE, FILE = UNITS = ("token", "word", "line", "file")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class ScoredToken(NamedTuple):
    """One token of a text.

    Attributes:
        text_index: The index of its text among the texts.
        token_text: The token as text.
        token_bytes: The bytes of the token.
        logprob: Its log-probability; None for an unscored first token.
        rank: Its rank, from 1 for the most likely token; None if it is unscored or ranks were not requested.
        top_tokens: The most likely tokens at its position as (text, log-probability), most likely first.
    """

    text_index: int
    token_text: str
    token_bytes: bytes
    logprob: float | None
    rank: int | None
    top_tokens: tuple[tuple[str, float], ...]


class Unit(NamedTuple):
    """A token, or the tokens of a word, a line or a file.

    Attributes:
        name: The name of its text.
        line: The number of the line in which it starts, from 1.
        text: Its text; for a file, the name of the text.
        tokens: The number of its tokens.
        logprob: The sum of the log-probabilities of its scored tokens; None if no token is scored.
        rank: The largest rank of its tokens; None if no token has a rank.
        top_tokens: The most likely tokens at its position as (text, log-probability); empty except for a token.
    """

    name: str
    line: int
    text: str
    tokens: int
    logprob: float | None
    rank: int | None
    top_tokens: tuple[tuple[str, float], ...] = ()

    @property
    def bits(self) -> float | None:
        """The surprisal in bits: the negative logarithm of the probability to base 2; None if not scored."""
        return None if self.logprob is None else 0.0 - self.logprob * BITS_PER_NAT


def escape_control(text: str, keep: str = "") -> str:
    """Return the text in one line, with control characters escaped as in Python, except characters in `keep`."""
    return CONTROL.sub(lambda match: match[0] if match[0] in keep else repr(match[0])[1:-1], text)


def check_unit(by: str) -> None:
    """Raise UsageError unless `by` is one of UNITS."""
    check_choice("by", by, UNITS)


def iterate_tokens(scores: Iterable[ScoredTokens], vocabulary: Vocabulary) -> Iterator[ScoredToken]:
    """Yield scored tokens one by one, with their text and bytes."""
    for text_index, ids, span_scores in scores:
        for position, token in enumerate(ids.tolist()):
            token_text = vocabulary.token_text(token)
            token_bytes = vocabulary.decode_bytes([token])
            if span_scores is None:
                yield ScoredToken(text_index, token_text, token_bytes, None, None, ())
                continue
            logprob = float(span_scores.logprobs[position])
            rank = int(span_scores.ranks[position]) if len(span_scores.ranks) else None
            top_ids = span_scores.top_ids[position].tolist()
            top_logprobs = span_scores.top_logprobs[position].tolist()
            top_tokens = tuple((vocabulary.token_text(top), value) for top, value in zip(top_ids, top_logprobs))
            yield ScoredToken(text_index, token_text, token_bytes, logprob, rank, top_tokens)


class _UnitBuilder:
    """A collector of the tokens of one unit; the bytes of a whole file are not stored."""

    def __init__(self, first: ScoredToken, by: str, line: int) -> None:
        self.first = first
        self.by = by
        self.line = line
        self.token_bytes: list[bytes] = []
        self.tokens = 0
        self.line_ends = 0
        self.logprob: float | None = None
        self.rank: int | None = None

    def add(self, token: ScoredToken) -> None:
        self.tokens += 1
        self.line_ends += token.token_bytes.count(b"\n")
        if self.by != FILE:
            self.token_bytes.append(token.token_bytes)
        if token.logprob is not None:
            self.logprob = (self.logprob or 0.0) + token.logprob
        if token.rank is not None:
            self.rank = max(self.rank or 0, token.rank)

    def ends_before(self, token: ScoredToken) -> bool:
        """Return whether the unit ends before `token`.

        White space belongs to the word after it, and a line end belongs to the line before it.
        """
        if token.text_index != self.first.text_index or self.by == TOKEN:
            return True
        if self.by == LINE:
            return b"\n" in self.token_bytes[-1]
        word_starts = self.by == WORD and (token.token_bytes[:1].isspace() or self.token_bytes[-1][-1:].isspace())
        return word_starts and not all(data.isspace() or not data for data in self.token_bytes)

    def build(self, names: Sequence[str]) -> Unit:
        name = names[self.first.text_index]
        if self.by == TOKEN:
            return Unit(name, self.line, self.first.token_text, 1, self.logprob, self.rank, self.first.top_tokens)
        text = name if self.by == FILE else b"".join(self.token_bytes).decode("utf-8", "replace")
        return Unit(name, self.line, text, self.tokens, self.logprob, self.rank)


def group_tokens(tokens: Iterable[ScoredToken], by: str, names: Sequence[str]) -> Iterator[Unit]:
    """Group the tokens of texts into units; a text without tokens yields no unit.

    Args:
        tokens: The tokens of all texts, in their order.
        by: One of UNITS.
        names: The names of the texts. The sequence may grow while the texts are read.
    """
    builder: _UnitBuilder | None = None
    for token in tokens:
        if builder is None:
            builder = _UnitBuilder(token, by, line=1)
        elif builder.ends_before(token):
            yield builder.build(names)
            same_text = builder.first.text_index == token.text_index
            builder = _UnitBuilder(token, by, builder.line + builder.line_ends if same_text else 1)
        builder.add(token)
    if builder is not None:
        yield builder.build(names)
