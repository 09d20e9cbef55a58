"""Which of several answers a model finds likeliest. What they have in common is computed once (`engine.scoring`)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from gpt2.engine.prefix_cache import common_prefix_length
from gpt2.engine.scoring import Span, score_spans
from gpt2.evaluation.datasets import DataFile
from gpt2.evaluation.perplexity import mean
from gpt2.evaluation.task import Progress, Task, TaskMetric, TaskResult, TaskSettings
from gpt2.generate import Model

SUM, MEAN = "accuracy, %", "normalized accuracy, %"  # by the log-probability of all tokens, and of one on average


class Question(NamedTuple):
    """Answers, each with all that stands before it, as ids; from which place on they are compared; the right one."""

    rows: list[np.ndarray]
    begin: int
    right: int


def fit_window(model: Model, ids: Iterable[int]) -> np.ndarray:
    """What the window can see of ids: the last n_ctx, and one that follows them. A lone one gets <|endoftext|> before
    it."""
    found = np.array(list(ids), np.int32)[-(model.hparams.n_ctx + 1) :]
    return found if len(found) > 1 else np.array([model.encoder.end_of_text, *found], np.int32)


def continuation(model: Model, context: str, ending: str) -> Span:
    """The tokens of the ending, given the context; both are encoded together."""
    whole = np.array(model.encoder.encode(context + ending), np.int32)
    before = common_prefix_length(np.array(model.encoder.encode(context), np.int32), whole)
    ids = fit_window(model, whole)
    return Span(ids, max(1, min(len(whole) - before, len(ids) - 1)))


def spans_of(model: Model, question: Question) -> list[Span]:
    """Its answers; the beginning of what does not fit the window is left out, of all of them alike."""
    left_out = max(0, max(map(len, question.rows)) - (model.hparams.n_ctx + 1))
    spans = []
    for row in question.rows:
        ids = row[min(left_out, len(row) - 2) :]
        spans.append(Span(ids, max(1, min(len(row) - question.begin, len(ids) - 1))))
    return spans


def answered(model: Model, questions: Iterable[Question]) -> Iterator[tuple[Question, np.ndarray, np.ndarray]]:
    """Each question with the log-probability and the number of tokens of each of its answers."""
    drawn: list[Question] = []

    def spans() -> Iterator[Span]:
        for question in questions:
            drawn.append(question)
            yield from spans_of(model, question)

    found = score_spans(model.backend, spans())
    for first in found:
        question = drawn.pop(0)
        parts = [first, *itertools.islice(found, len(question.rows) - 1)]
        sums = np.array([part.logprobs.sum(dtype=float) for part in parts])
        yield question, sums, np.array([len(part.logprobs) for part in parts])


def make_question(model: Model, rows: list[np.ndarray], begin: int, right: int) -> Question:
    """With <|endoftext|> before answers that have nothing before them."""
    if begin > 0:
        return Question(rows, begin, right)
    start = [model.encoder.end_of_text]
    return Question([np.concatenate([np.array(start, np.int32), row]) for row in rows], 1, right)


class MultipleChoiceTask(NamedTuple):
    """A task of questions. read: those of a file; columns: the measures that are reported, and for each that of the
    paper's table; questions: how many questions the data set has."""

    name: str
    protocol: str
    read: Callable[[Model, IO[bytes], Path], Iterator[Question]]
    columns: dict[str, str]
    questions: int

    def run(self, model: Model, file: IO[bytes], path: Path, settings: TaskSettings, progress: Progress) -> TaskResult:
        """See `Task`."""
        hits, done, total = {SUM: 0, MEAN: 0}, 0, min(self.questions, settings.limit or self.questions)
        asked = itertools.islice(self.read(model, file, path), settings.limit)
        for done, (question, sums, counts) in enumerate(answered(model, asked), start=1):
            hits[SUM] += int(np.argmax(sums)) == question.right
            hits[MEAN] += int(np.argmax(sums / counts)) == question.right
            progress(done, total)
        numbers = [
            TaskMetric(measure, 100 * mean(hits[measure], done), column) for measure, column in self.columns.items()
        ]
        return TaskResult(self.name, self.protocol, numbers, {"questions": done})

    def task(self, data: DataFile, member: str = "") -> Task:
        return Task(self.name, self.protocol, data, self.run, member)
