"""The words of the source code: phrases that readers stumble over stay out of docstrings, comments and messages."""

from __future__ import annotations

import re

import pytest
from source_texts import SRC, SourceText, source_files, texts

# Each phrase, and what to write instead. A regular expression, case-insensitive, between word boundaries.
BANNED = {
    r"so many": "the number, N, or how many",
    r"(go|goes|going|gone|went) on": "continue, resume",
    r"but (for|of)": "except",
    r"beside": "alongside, next to, compared with",
    r"what (is|was) (told|there|asked|wanted|said|read|written|known|new|made|found|left)": "the noun",
    r"(is|was|are|were|be) (told|said|heard)": "is notified, is called with, is logged",
    r"(is|was|are|were) asked": "is requested",
    r"anew": "again",
    r"who(ever|so)": "the reader, the caller, the client",
    r"of no effect": "is ignored, has no effect",
    r"(has|have|had) not(?= (a|an|any|the|its|such|got)\b|[,.;:]|$)": "does not have",
    r"(that|which|it|this) (is|are) (?-i:none)": "is not an X",
    r"(that|what) (is|are) there": "the noun",
    r"refus(e|es|ed|ing)": "reject",
    r"mend(s|ed|ing)?": "fix",
    r"(can|could|may|might)(not)? be had": "is available",
    r"perhaps": "(leave it out, or say when)",
    r"likeliest": "most likely",
    r"in vain": "without success",
    r"at hand": "available",
    r"till": "until",
    r"(optimis|normalis|quantis|initialis|recognis|serialis|tokenis|summaris)\w*": "American spelling: -iz-",
    r"(colour|behaviour|honour|favour|neighbour|flavour)\w*": "American spelling: -or",
}
PATTERN = re.compile("|".join(rf"\b(?:{phrase})\b" for phrase in BANNED), re.IGNORECASE)
# Names of flags, fields and files, which are contracts.
NAME = re.compile(r"`[^`]*`|--\w+|\"\w+\"")


def problems(text: SourceText) -> list[str]:
    """Return the banned phrases of a text."""
    return [match[0] for match in PATTERN.finditer(NAME.sub("", text.text))]


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(SRC)))
def test_no_banned_phrase(path):
    found = [f"{text}\n  -> {', '.join(words)}" for text in texts(path) if (words := problems(text))]
    assert not found, "\n\n".join(found)


def test_the_patterns_find_what_they_are_for():
    text = SourceText(SRC, 1, "comment", "Whoever goes on writes so many of the likeliest anew.")
    assert len(problems(text)) == 5
