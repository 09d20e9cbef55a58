"""Texts that came cut into words, as people write them: what GPT-2 read in training.

White space and marks change, words do not: all that is dropped is white space, the @ around a hyphen, point or comma,
and the other way to write a bracket or a quotation mark. The paper calls its own "invertible de-tokenizers" (Radford et
al. 2019, section 3.1) and does not say what they do.
"""

from __future__ import annotations

import re

Rules = tuple[tuple[str, str], ...]


def _compiled(rules: Rules) -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(pattern, re.MULTILINE), to) for pattern, to in rules]


# WikiText: "M @-@ 82", "1 @,@ 500", `" quoted "`, "( aside )", "= = Title = =", "dogs '", "it 's", a space at both ends
# of each line.
WIKITEXT = _compiled(
    (
        (r" @([-,.])@ ", r"\1"),
        (r" ([,.;:!?%)\]}])(?=\s|$)", r"\1"),
        (r"(?<=[(\[{$£€#]) ", ""),
        (r'"[ ]([^"\n]*?)[ ]"', r'"\1"'),
        (r"(?<= )' ([^'\n]*?) '(?=[\s.,;:!?)]|$)", r"'\1'"),
        (r"(?<=s) '(?=\s|$)", "'"),
        (r" ('(?:s|re|ve|ll|d|m|t)|n't)\b", r"\1"),
        (r"(?<==) (?==)", ""),
        (r" (–|/) (?=\d)", r"\1"),
        (r"^ | $", ""),
    )
)
# Penn Treebank: no punctuation but what is part of words; "$ N", "do n't", "company 's", "the companies ' plans",
# a space at both ends of each line. <unk> and N stay.
PTB = _compiled(
    (
        (r" (n't)\b", r"\1"),
        (r" ('(?:s|re|ve|ll|d|m))\b", r"\1"),
        (r"(?<=s) '(?=\s|$)", "'"),
        (r"(?<=[$#]) (?=N\b)", ""),
        (r"^ | $", ""),
    )
)
# The Children's Book Test: Penn Treebank's marks, with punctuation.
CBT = _compiled(
    (
        (r"-LRB- ?", "("),
        (r" ?-RRB-", ")"),
        (r"`` ?", '"'),
        (r" ?''", '"'),
        (r"(?<![A-Za-z0-9])` ", "'"),
        (r" ([,.;:!?])(?=\s|[\"')]|$)", r"\1"),
        (r" (n't)\b", r"\1"),
        (r" ('(?:s|re|ve|ll|d|m|S|RE|VE|LL|D|M)?)(?=\s|$)", r"\1"),
    )
)


def detokenized(text: str, rules: list[tuple[re.Pattern[str], str]]) -> str:
    """
    >>> detokenized(' The M @-@ 82 ( " road " ) isn \\'t long . ', WIKITEXT)
    'The M-82 ("road") isn \\'t long.'
    """
    for pattern, to in rules:
        text = pattern.sub(to, text)
    return text
