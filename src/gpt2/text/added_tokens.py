"""Added tokens of a vocabulary: texts that become one id each, wherever they occur, before BPE sees the text.

The matching is that of Hugging Face's library `tokenizers`, which transformers uses: at each position the longest token
wins. Tokens that a normalizer would change are matched in a second pass. GPT-2 has no normalizer, so only their order
differs.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

# The characters with the property White_Space, as in the library; `str.isspace` knows four more (U+001C to U+001F).
WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029"
WHITE_SPACE += "\u202f\u205f\u3000"
LEADING_SPACE = re.compile(f"[{WHITE_SPACE}]*")
WORD_CHARACTER = r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]"  # \w in Unicode's technical standard 18


@dataclasses.dataclass(frozen=True)
class AddedToken:
    """A text that becomes one id wherever it occurs; the fields have the names and meanings of Hugging Face's class.

    Attributes:
        content: The text.
        id: The id.
        special: Whether the token controls the model, such as an end of text, and is not a word.
        lstrip: Whether the white space before the token belongs to it.
        rstrip: Whether the white space after the token belongs to it.
        single_word: Whether the token is ignored next to a letter, a digit or another character of a word.
        normalized: Whether the token is matched in a second pass, after the tokens that are not normalized.
    """

    content: str
    id: int
    special: bool = False
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False

    @property
    def is_plain(self) -> bool:
        """Return whether the token is its text alone, without conditions on the characters around it."""
        return not (self.lstrip or self.rstrip or self.single_word)


class AddedTokens:
    """The added tokens of a vocabulary.

    Args:
        tokens: The tokens. Of several tokens with one text, the last one is used.
    """

    def __init__(self, tokens: Iterable[AddedToken] = ()) -> None:
        """Compile the pattern of each pass."""
        self.tokens = tuple({token.content: token for token in tokens if token.content}.values())
        groups = ([token for token in self.tokens if token.normalized is normalized] for normalized in (False, True))
        self.passes = [_Pass(group) for group in groups if group]
        self.max_length = max((len(token.content) for token in self.tokens), default=0)  # characters

    def __bool__(self) -> bool:
        """Return whether there is a token."""
        return bool(self.tokens)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the tokens without the patterns."""
        return AddedTokens, (self.tokens,)

    def __contains__(self, text: object) -> bool:
        """Return whether a token has this text."""
        return any(text in matcher.token_of for matcher in self.passes)

    def split(self, text: str) -> list[str | int]:
        """Split a text into ordinary texts and the ids of added tokens.

        >>> AddedTokens([AddedToken("<sep>", 7)]).split("a<sep> b")
        ['a', 7, ' b']
        """
        parts: list[str | int] = [text]
        for matcher in self.passes:
            split = matcher.split
            parts = [each for part in parts for each in (split(part) if isinstance(part, str) else [part])]
        return parts

    def last_safe_cut(self, text: str, find_cut: Callable[[str, int], int]) -> int:
        """Return the last index at which a text can be cut without changing its ids, or 0 if there is none.

        Args:
            text: The text; more text may follow it.
            find_cut: Returns the last index below a limit at which the text could be cut if it had no added tokens, or
                0 if there is none. The character before each such index is not white space.
        """
        # A token that starts before the cut must be completely visible.
        cut = find_cut(text, len(text) - self.max_length + 1)
        while cut and self._touches(text, cut):
            cut = find_cut(text, cut)
        return cut

    def _touches(self, text: str, cut: int) -> bool:
        """Return whether the characters on both sides of a cut may affect one token."""
        for matcher in self.passes:
            for start in range(max(0, cut - self.max_length), cut + 1):
                for token in matcher.tokens_at(text, start):
                    end = start + len(token.content)
                    at_an_end = cut in (start, end) and (token.single_word or (token.rstrip and cut == end))
                    if start < cut < end or at_an_end:
                        return True
        return False


class _Pass:
    """The tokens that are matched in one pass over a text."""

    def __init__(self, tokens: Sequence[AddedToken]) -> None:
        self.token_of = {token.content: token for token in tokens}
        self.pattern = _compile_longest_first(sorted(self.token_of))

    def tokens_at(self, text: str, start: int) -> Iterator[AddedToken]:
        """Yield the tokens whose texts start at an index."""
        match = self.pattern.match(text, start)
        for end in range(match.end(), start, -1) if match else ():
            if token := self.token_of.get(text[start:end]):
                yield token

    def split(self, text: str) -> list[str | int]:
        """Split a text into ordinary texts and ids, step by step like the library's `find_matches`."""
        parts: list[str | int] = []
        done = 0
        for match in self.pattern.finditer(text):
            start, end = match.span()
            token = self.token_of[match[0]]
            if token.single_word and not _stands_alone(text, start, end):
                continue
            if token.lstrip:
                start = done + len(text[done:start].rstrip(WHITE_SPACE))
            if token.rstrip:
                end = LEADING_SPACE.match(text, end).end()  # type: ignore[union-attr] # the pattern always matches
            if start >= end:  # white space that already belongs to the previous token
                continue
            if done < start:
                parts.append(text[done:start])
            parts.append(token.id)
            done = end
        if done < len(text):
            parts.append(text[done:] if done else text)
        return parts


@functools.cache
def _word_pattern() -> Any:
    import regex  # imported late, like the pattern of BPE

    return regex.compile(WORD_CHARACTER)


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Return whether no character of a word is next to a span of a text."""
    is_word = _word_pattern().match
    return not (start and is_word(text[start - 1])) and not (end < len(text) and is_word(text[end]))


def _compile_longest_first(texts: Sequence[str]) -> re.Pattern[str]:
    """Return a pattern that matches the longest of the texts, which are sorted and not empty."""
    try:
        return re.compile(_prefix_tree(texts), re.DOTALL)
    except RecursionError:  # thousands of texts that are prefixes of each other
        return re.compile("|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True)))


def _prefix_tree(texts: Sequence[str]) -> str:
    """Return a pattern of sorted texts that writes common prefixes once, so that a search tries few alternatives."""
    prefix = os.path.commonprefix([texts[0], texts[-1]])
    rests = [text[len(prefix) :] for text in texts if len(text) > len(prefix)]
    if not rests:
        return re.escape(prefix)
    branches = "|".join(_prefix_tree(list(group)) for _, group in groupby(rests, key=lambda rest: rest[0]))
    return f"{re.escape(prefix)}(?:{branches}){'?' if len(rests) < len(texts) else ''}"
