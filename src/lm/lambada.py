"""LAMBADA (Paperno et al. 2016): how often the last word of a passage is what the model would write."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from gpt2 import files
from gpt2.errors import Damaged, GPT2Error
from gpt2.files import unheard
from gpt2.generate import Model
from lm import scores

JSON_LINES = ".jsonl"


class Result(NamedTuple):
    """right: of the last words, those of which each piece is the likeliest one; nats: of all pieces of last words."""

    right: int
    words: int
    nats: float

    @property
    def accuracy(self) -> float:
        return self.right / self.words

    @property
    def perplexity(self) -> float:
        """For each word."""
        return math.exp(min(self.nats / self.words, 700.0))


def passages(path: Path) -> list[str]:
    """Those of a file: of `.jsonl` the `text` of each line, else the lines. Raises GPT2Error for a file that has none,
    is damaged or cannot be read."""
    lines = [line for line in files.read_text(path).split("\n") if line.strip()]
    if path.suffix == JSON_LINES:
        try:
            lines = [json.loads(line)["text"] for line in lines]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Damaged(path, 'each line should be a JSON object with a "text"') from error
    if not lines or not all(isinstance(line, str) for line in lines):
        raise GPT2Error(f"{path} holds no passages; give LAMBADA's .jsonl, or a text with a passage a line")
    return lines


def evaluated(
    model: Model, texts: Iterable[str], at_once: int, report: Callable[[int, int | None], object] = unheard
) -> Result:
    """The last words of texts of at least two words; the others do not count. report: told how many are done."""
    asked = [ids for text in texts if (ids := _ids(model, text))]
    if not asked:
        raise GPT2Error("there is no passage of two words")
    right, nats = 0, 0.0
    echoes = scores.of_texts(model, (before + word for before, word in asked), likeliest=1, at_once=at_once)
    for number, ((_, word), echo) in enumerate(zip(asked, echoes), start=1):
        last = [choice for choice in echo[-len(word) :] if choice]
        right += all(choice.id == choice.likeliest[0][0] for choice in last)
        nats -= sum(choice.logprob for choice in last)
        report(number, len(asked))
    return Result(right, len(asked), nats)


def _ids(model: Model, text: str) -> tuple[list[int], list[int]] | None:
    """Of what is before the last word, after an end of text, and of that word."""
    parts = re.fullmatch(r"(.*\S)\s+(\S+)\s*", text, re.DOTALL)
    return (
        ([*_beginning(model), *model.encoder.encode(parts[1])], model.encoder.encode(f" {parts[2]}")) if parts else None
    )


def _beginning(model: Model) -> Iterator[int]:
    with contextlib.suppress(GPT2Error):  # a vocabulary without an end of text
        yield model.encoder.end_of_text
