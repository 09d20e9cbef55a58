"""LAMBADA (Paperno et al. 2016): how often the last word of a passage is what the model would write."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gpt2 import files
from gpt2.engine import scoring
from gpt2.errors import DamagedFileError, GPT2Error
from gpt2.files import no_callback
from gpt2.generate import Model

RANKS = scoring.ScoreOptions(ranks=True)
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
            raise DamagedFileError(path, 'each line should be a JSON object with a "text"') from error
    if not lines or not all(isinstance(line, str) for line in lines):
        raise GPT2Error(f"{path} holds no passages; give LAMBADA's .jsonl, or a text with a passage a line")
    return lines


def evaluated(model: Model, texts: Iterable[str], report: Callable[[int, int | None], object] = no_callback) -> Result:
    """The last words of texts of at least two words; the others do not count. report: told how many are done."""
    spans = [span for text in texts if (span := _span(model, text))]
    if not spans:
        raise GPT2Error("there is no passage of two words")
    right, nats = 0, 0.0
    for number, found in enumerate(scoring.score_spans(model.backend, spans, RANKS), start=1):
        right += bool(np.all(found.ranks == 1))
        nats -= float(found.logprobs.sum())
        report(number, len(spans))
    return Result(right, len(spans), nats)


def _span(model: Model, text: str) -> scoring.Span | None:
    """The last word, after what is before it and an end of text; of more than a window the end."""
    parts = re.fullmatch(r"(.*\S)\s+(\S+)\s*", text, re.DOTALL)
    if parts is None:
        return None
    before, word = ([*_beginning(model), *model.encoder.encode(parts[1])], model.encoder.encode(f" {parts[2]}"))
    ids = np.array([*before, *word][-model.hparams.n_ctx - 1 :])
    return scoring.Span(ids, min(len(word), len(ids) - 1))


def _beginning(model: Model) -> Iterator[int]:
    with contextlib.suppress(GPT2Error):  # a vocabulary without an end of text
        yield model.encoder.end_of_text
