"""LAMBADA (Paperno et al. 2016): the share of passages whose last word a model predicts."""

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
from gpt2.text_batch import Model

RANKS = scoring.ScoreOptions(ranks=True)
JSON_LINES = ".jsonl"


class LambadaResult(NamedTuple):
    """Totals over the last words of passages."""

    correct: int  # number of words of which every piece is the most likely one
    words: int
    nats: float  # sum of the negative log-probabilities of the words

    @property
    def accuracy(self) -> float:
        """The share of words that the model predicts."""
        return self.correct / self.words

    @property
    def perplexity(self) -> float:
        """The perplexity per word."""
        return math.exp(min(self.nats / self.words, 700.0))


def read_passages(path: Path) -> list[str]:
    """Return the passages of a file: the "text" of each line of a `.jsonl`, the lines of any other file.

    Raises:
        GPT2Error: If the file cannot be read, is damaged, or holds no passages.
    """
    lines = [line for line in files.read_text(path).split("\n") if line.strip()]
    if path.suffix == JSON_LINES:
        try:
            lines = [json.loads(line)["text"] for line in lines]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DamagedFileError(path, 'each line should be a JSON object with a "text"') from error
    if not lines or not all(isinstance(line, str) for line in lines):
        raise GPT2Error(f"{path} holds no passages; give LAMBADA's .jsonl, or a text file with one passage per line")
    return lines


def evaluate(
    model: Model, passages: Iterable[str], report: Callable[[int, int | None], object] = no_callback
) -> LambadaResult:
    """Return the totals over the last words of passages.

    Args:
        model: The model.
        passages: The passages. A passage of fewer than two words is left out.
        report: Progress callback, called with (done, total) passages.

    Raises:
        GPT2Error: If no passage has two words.
    """
    spans = [span for passage in passages if (span := _last_word(model, passage))]
    if not spans:
        raise GPT2Error("there is no passage of at least two words; give whole passages")
    correct = 0
    nats = 0.0
    for done, span_scores in enumerate(scoring.score_spans(model.backend, spans, RANKS), start=1):
        correct += bool(np.all(span_scores.ranks == 1))
        nats -= float(span_scores.logprobs.sum())
        report(done, len(spans))
    return LambadaResult(correct, len(spans), nats)


def _last_word(model: Model, passage: str) -> scoring.Span | None:
    """Return the last word as the scored end of a span.

    The span starts with an end-of-text token. If the passage is longer than the window, the span holds its end.
    """
    match = re.fullmatch(r"(.*\S)\s+(\S+)\s*", passage, re.DOTALL)
    if match is None:
        return None
    context = [*_start_ids(model), *model.encoder.encode(match[1])]
    word = model.encoder.encode(f" {match[2]}")
    ids = np.array([*context, *word][-model.hparams.n_ctx - 1 :])
    return scoring.Span(ids, min(len(word), len(ids) - 1))


def _start_ids(model: Model) -> Iterator[int]:
    with contextlib.suppress(GPT2Error):  # the vocabulary has no end-of-text token
        yield model.encoder.end_of_text
