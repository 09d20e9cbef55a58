"""From tokens to what people look at: tokens, words, lines, files, each with what the model thinks of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from gpt2.errors import UsageError
from gpt2.evaluation.perplexity import BITS_PER_NAT
from gpt2.evaluation.scores import ScoredTokens
from gpt2.text.vocabulary import Vocabulary

TOKEN, WORD, LINE, FILE = UNITS = ("token", "word", "line", "file")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class ScoredToken(NamedTuple):
    """A token of a text."""

    text: int  # the place of its text among the texts
    piece: str  # as people look at it
    data: bytes  # that it stands for
    logprob: float | None  # None of a first token that is not scored
    rank: int | None
    likeliest: tuple[tuple[str, float], ...]  # (piece, log-probability), the likeliest first


class Unit(NamedTuple):
    """A token, or several that make a word, a line or a text."""

    name: str  # of its text
    line: int  # in which it begins, from 1
    text: str
    tokens: int
    logprob: float | None  # the sum over its tokens that are scored; None if none is
    rank: int | None  # the largest of its tokens'; 1 if each was the likeliest
    likeliest: tuple[tuple[str, float], ...] = ()  # of a token

    @property
    def bits(self) -> float | None:
        """Its surprise."""
        return None if self.logprob is None else 0.0 - self.logprob * BITS_PER_NAT


def printable(text: str, but: str = "") -> str:
    """In one line, control characters as Python writes them. but: those that stay."""
    return CONTROL.sub(lambda found: found[0] if found[0] in but else repr(found[0])[1:-1], text)


def check_unit(by: str) -> None:
    """Raises UsageError unless it is one of UNITS."""
    if by not in UNITS:
        raise UsageError(f"by must be one of {', '.join(UNITS)}, not {by!r}")


def iterate_tokens(told: Iterable[ScoredTokens], vocabulary: Vocabulary) -> Iterator[ScoredToken]:
    """What was scored, token by token."""
    for text, ids, scores in told:
        for place, token in enumerate(ids.tolist()):
            piece, data = vocabulary.token_text(token), vocabulary.decode_bytes([token])
            if scores is None:
                yield ScoredToken(text, piece, data, None, None, ())
                continue
            rank = int(scores.ranks[place]) if len(scores.ranks) else None
            others = zip(scores.likeliest[place].tolist(), scores.likeliest_logprobs[place].tolist())
            likeliest = tuple((vocabulary.token_text(other), logprob) for other, logprob in others)
            yield ScoredToken(text, piece, data, float(scores.logprobs[place]), rank, likeliest)


class _Held:
    """Tokens on their way to a unit; of a whole text their bytes are not kept."""

    def __init__(self, first: ScoredToken, by: str, line: int) -> None:
        self.first, self.by, self.line = first, by, line
        self.data: list[bytes] = []
        self.count = self.lines = 0
        self.logprobs, self.scored = 0.0, False
        self.rank: int | None = None

    def add(self, token: ScoredToken) -> None:
        self.count, self.lines = self.count + 1, self.lines + token.data.count(b"\n")
        if self.by != FILE:
            self.data.append(token.data)
        if token.logprob is not None:
            self.logprobs, self.scored = self.logprobs + token.logprob, True
        if token.rank is not None:
            self.rank = max(self.rank or 0, token.rank)

    def ends_before(self, token: ScoredToken) -> bool:
        """Whether the unit is complete. White space belongs to the word after it, and an end of line to its line."""
        if token.text != self.first.text or self.by == TOKEN:
            return True
        if self.by == LINE:
            return b"\n" in self.data[-1]
        begins = self.by == WORD and (token.data[:1].isspace() or self.data[-1][-1:].isspace())
        return begins and not all(data.isspace() or not data for data in self.data)

    def unit(self, names: Sequence[str]) -> Unit:
        name = names[self.first.text]
        text = {TOKEN: self.first.piece, FILE: name}.get(self.by) or b"".join(self.data).decode("utf-8", "replace")
        logprob = self.logprobs if self.scored else None
        return Unit(name, self.line, text, self.count, logprob, self.rank, self.first.likeliest * (self.by == TOKEN))


def group_tokens(told: Iterable[ScoredToken], by: str, names: Sequence[str]) -> Iterator[Unit]:
    """The tokens of texts, together as they make what is asked for. names: of the texts, more of them as they are read.

    A text without tokens makes no unit.
    """
    held: _Held | None = None
    for token in told:
        if held is not None and held.ends_before(token):
            yield held.unit(names)
            line = held.line + held.lines if held.first.text == token.text else 1
            held = _Held(token, by, line)
        held = held or _Held(token, by, 1)
        held.add(token)
    if held is not None:
        yield held.unit(names)
