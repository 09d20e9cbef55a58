"""Multiple-choice tasks, measured by the fraction of questions whose correct answer is the most likely one.

The common prefix of a question's answers is computed once (`engine.scoring`).
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from gpt2.engine.kv_cache import common_prefix_length
from gpt2.engine.scoring import Span, score_spans
from gpt2.evaluation.datasets import DataFile
from gpt2.evaluation.perplexity import mean
from gpt2.evaluation.task import ProgressCallback, Task, TaskMetric, TaskResult, TaskSettings
from gpt2.text_batch import Model

ACCURACY = "accuracy, %"  # answers compared by the sum of their tokens' log-probabilities
NORMALIZED_ACCURACY = "normalized accuracy, %"  # answers compared by the mean over their tokens


class Question(NamedTuple):
    """A multiple-choice question.

    Attributes:
        answers: The ids of each answer [T], its context included.
        answer_start: The index of the first scored id in each answer.
        correct: The index of the correct answer.
    """

    answers: list[np.ndarray]
    answer_start: int
    correct: int


def fit_window(model: Model, ids: Iterable[int]) -> np.ndarray:
    """Return the last n_ctx + 1 ids [T], a full window and the id after it.

    If there is only one id, `<|endoftext|>` is its context.
    """
    window = np.array(list(ids), np.int32)[-(model.hparams.n_ctx + 1) :]
    return window if len(window) > 1 else np.array([model.encoder.end_of_text, *window], np.int32)


def continuation_span(model: Model, context: str, ending: str) -> Span:
    """Return a span that scores the tokens of `ending` after `context`; both are encoded as one text."""
    all_ids = np.array(model.encoder.encode(context + ending), np.int32)
    context_length = common_prefix_length(np.array(model.encoder.encode(context), np.int32), all_ids)
    ids = fit_window(model, all_ids)
    return Span(ids, max(1, min(len(all_ids) - context_length, len(ids) - 1)))


def answer_spans(model: Model, question: Question) -> list[Span]:
    """Return a span for each answer.

    If an answer exceeds the window, the same number of ids is removed from the start of all answers.
    """
    excess = max(0, max(map(len, question.answers)) - (model.hparams.n_ctx + 1))
    spans = []
    for answer in question.answers:
        ids = answer[min(excess, len(answer) - 2) :]
        spans.append(Span(ids, max(1, min(len(answer) - question.answer_start, len(ids) - 1))))
    return spans


def score_questions(model: Model, questions: Iterable[Question]) -> Iterator[tuple[Question, np.ndarray, np.ndarray]]:
    """Score the answers of questions.

    Args:
        model: The model.
        questions: The questions.

    Yields:
        The question, the log-probability of each answer [A], and the number of scored tokens of each answer [A].
    """
    pending: deque[Question] = deque()

    def spans() -> Iterator[Span]:
        for question in questions:
            pending.append(question)
            yield from answer_spans(model, question)

    scores = score_spans(model.backend, spans())
    for first in scores:
        question = pending.popleft()
        answers = [first, *itertools.islice(scores, len(question.answers) - 1)]
        sums = np.array([answer.logprobs.sum(dtype=float) for answer in answers])
        yield question, sums, np.array([len(answer.logprobs) for answer in answers])


def make_question(model: Model, answers: list[np.ndarray], answer_start: int, correct: int) -> Question:
    """Return a question; if its answers have no context, `<|endoftext|>` becomes the context.

    Args:
        model: The model.
        answers: The ids of each answer [T], its context included.
        answer_start: The index of the first scored id in each answer.
        correct: The index of the correct answer.
    """
    if answer_start > 0:
        return Question(answers, answer_start, correct)
    start = np.array([model.encoder.end_of_text], np.int32)
    return Question([np.concatenate([start, ids]) for ids in answers], 1, correct)


class MultipleChoiceTask(NamedTuple):
    """A task that consists of multiple-choice questions.

    Attributes:
        name: The name on the command line.
        protocol: A description of the scoring, in one sentence.
        read_questions: Called with (model, opened file, its path); yields the questions.
        metrics: The column of the paper's table for each reported metric; "" if there is none.
        question_count: The number of questions in the data set.
    """

    name: str
    protocol: str
    read_questions: Callable[[Model, IO[bytes], Path], Iterator[Question]]
    metrics: dict[str, str]
    question_count: int

    def run(
        self, model: Model, file: IO[bytes], path: Path, settings: TaskSettings, progress: ProgressCallback
    ) -> TaskResult:
        """Answer the questions of a file; see `Task.run`."""
        hits = {ACCURACY: 0, NORMALIZED_ACCURACY: 0}
        total = min(self.question_count, settings.limit or self.question_count)
        questions = itertools.islice(self.read_questions(model, file, path), settings.limit)
        done = 0
        for done, (question, sums, token_counts) in enumerate(score_questions(model, questions), start=1):
            hits[ACCURACY] += int(np.argmax(sums)) == question.correct
            hits[NORMALIZED_ACCURACY] += int(np.argmax(sums / token_counts)) == question.correct
            progress(done, total)
        metrics = [TaskMetric(name, 100 * mean(hits[name], done), column) for name, column in self.metrics.items()]
        return TaskResult(self.name, self.protocol, metrics, {"questions": done})

    def as_task(self, data: DataFile, member: str = "") -> Task:
        """Return the `Task` that runs these questions.

        Args:
            data: The file with the questions, or an archive.
            member: The file to read in the archive; "" if `data` is not an archive.
        """
        return Task(self.name, self.protocol, data, self.run, member)
