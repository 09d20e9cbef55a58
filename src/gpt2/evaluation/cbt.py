"""The Children's Book Test: choose the word that belongs in the blank, out of ten (Hill et al. 2016)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from gpt2.engine.kv_cache import common_prefix_length
from gpt2.errors import DamagedFileError
from gpt2.evaluation import detokenize, paper
from gpt2.evaluation.datasets import CBT
from gpt2.evaluation.multiple_choice import ACCURACY, MultipleChoiceTask, Question, make_question
from gpt2.evaluation.task import Task
from gpt2.text_batch import Model

BLANK = "XXXXX"
LINES_PER_QUESTION = 21  # 20 sentences, and a sentence with a blank
QUESTIONS = 2500  # number of questions in each of the two test sets
PROTOCOL = (
    "Children's Book Test, {}: ten candidates; a hit if the correct one, with the rest of its sentence, is the most"
    " likely after the twenty sentences before; detokenized"
)


def read_questions(model: Model, file: IO[bytes], path: Path) -> Iterator[Question]:
    """Yield the questions of a test file.

    A question has 20 numbered sentences and a 21st with a blank. The 21st is followed by a tab, the answer, tabs, and
    ten candidates. Blank lines separate questions.

    Args:
        model: The model whose vocabulary encodes the questions.
        file: The opened file.
        path: The path of the file, for error messages.

    Raises:
        DamagedFileError: The file does not have this format.
    """
    lines: list[str] = []
    for number, line in enumerate(file, start=1):
        text = line.decode("utf-8", "replace").rstrip("\n")
        if not text.strip():
            continue
        lines.append(re.sub(r"^\d+ ", "", text))
        if len(lines) == LINES_PER_QUESTION:
            yield _parse_question(model, lines, number, path)
            lines = []
    if lines:
        raise DamagedFileError(path, f"its last question has {len(lines)} lines instead of {LINES_PER_QUESTION}")


def _parse_question(model: Model, lines: list[str], line_number: int, path: Path) -> Question:
    query, *fields = lines[-1].split("\t")
    candidates = fields[-1].split("|") if len(fields) > 1 else []
    if BLANK not in query or fields[0] not in candidates:
        raise DamagedFileError(
            path,
            f"line {line_number} should be a sentence with {BLANK}, its answer, and candidates that include the answer",
        )
    before, _, after = " ".join([*lines[:-1], query]).partition(BLANK)
    texts = [detokenize.detokenize(before + candidate + after, detokenize.CBT) for candidate in candidates]
    answers = [np.array(model.encoder.encode(text), np.int32) for text in texts]
    common_length = min(common_prefix_length(answers[0], ids) for ids in answers)
    answer_start = min(common_length, min(map(len, answers)) - 1)
    return make_question(model, answers, answer_start, candidates.index(fields[0]))


def _make_task(kind: str, description: str, paper_column: str) -> Task:
    task = MultipleChoiceTask(
        f"cbt-{kind.lower()}", PROTOCOL.format(description), read_questions, {ACCURACY: paper_column}, QUESTIONS
    )
    return task.as_task(CBT, CBT.member.format(kind))


TASKS = [_make_task("CN", "common nouns", paper.CBT_CN), _make_task("NE", "named entities", paper.CBT_NE)]
