"""Detokenizers, which restore ordinary text, as in GPT-2's training data, from text that was split into words.

Words do not change. A detokenizer only removes white space and the @ around a hyphen, point or comma, and restores
replaced brackets and quotation marks. The paper (Radford et al. 2019, section 3.1) mentions "invertible de-tokenizers"
but does not describe them.
"""

from __future__ import annotations

import re

Rules = list[tuple[re.Pattern[str], str]]  # (pattern, replacement), applied in this order


def _compile(rules: tuple[tuple[str, str], ...]) -> Rules:
    return [(re.compile(pattern, re.MULTILINE), replacement) for pattern, replacement in rules]


# WikiText has "M @-@ 82", "1 @,@ 500", `" quoted "`, "( aside )", "= = Title = =", "dogs '", "it 's", and a space at
# both ends of each line.
WIKITEXT = _compile(
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
# Penn Treebank has no punctuation except within words. It has "$ N", "do n't", "company 's", "the companies ' plans",
# and a space at both ends of each line. <unk> and N are not changed.
PTB = _compile(
    (
        (r" (n't)\b", r"\1"),
        (r" ('(?:s|re|ve|ll|d|m))\b", r"\1"),
        (r"(?<=s) '(?=\s|$)", "'"),
        (r"(?<=[$#]) (?=N\b)", ""),
        (r"^ | $", ""),
    )
)
# The Children's Book Test has the same marks as Penn Treebank, and punctuation.
CBT = _compile(
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


def detokenize(text: str, rules: Rules) -> str:
    r"""Apply all rules to a text in order, and return the result.

    >>> detokenize(' The M @-@ 82 ( " road " ) isn \'t long . ', WIKITEXT)
    'The M-82 ("road") isn\'t long.'
    """
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text
