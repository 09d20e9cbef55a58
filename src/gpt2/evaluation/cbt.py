"""The Children's Book Test: which of ten words stands in the blank (Hill et al. 2016)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from gpt2.engine.prefix_cache import common_prefix_length
from gpt2.errors import DamagedFileError
from gpt2.evaluation import detokenize, paper
from gpt2.evaluation.datasets import CBT
from gpt2.evaluation.multiple_choice import SUM, MultipleChoiceTask, Question, make_question
from gpt2.evaluation.task import Task
from gpt2.generate import Model

BLANK = "XXXXX"
LINES = 21  # of a question: 20 sentences, and one with a blank
QUESTIONS = 2500


def read(model: Model, file: IO[bytes], path: Path) -> Iterator[Question]:
    """Twenty numbered sentences, a twenty-first with a blank, then after tabs the answer and ten candidates; a blank
    line between questions. Raises Damaged."""
    held: list[str] = []
    for number, line in enumerate(file, start=1):
        text = line.decode("utf-8", "replace").rstrip("\n")
        if not text.strip():
            continue
        held.append(re.sub(r"^\d+ ", "", text))
        if len(held) == LINES:
            yield _cloze(model, held, f"line {number}", path)
            held = []
    if held:
        raise DamagedFileError(path, f"its last question has {len(held)} lines instead of {LINES}")


def _cloze(model: Model, lines: list[str], place: str, path: Path) -> Question:
    query, *fields = lines[-1].split("\t")
    candidates = fields[-1].split("|") if len(fields) > 1 else []
    if BLANK not in query or fields[0] not in candidates:
        raise DamagedFileError(
            path, f"{place} should be a sentence with {BLANK}, its answer, and candidates with the answer"
        )
    before, _, after = " ".join([*lines[:-1], query]).partition(BLANK)
    texts = [detokenize.detokenized(before + candidate + after, detokenize.CBT) for candidate in candidates]
    rows = [np.array(model.encoder.encode(text), np.int32) for text in texts]
    common = min(common_prefix_length(rows[0], row) for row in rows)
    return make_question(model, rows, min(common, min(map(len, rows)) - 1), candidates.index(fields[0]))


ABOUT = (
    "Children's Book Test, {}: ten candidates each, a hit if the right one, with the rest of its sentence, is the"
    " likeliest after the twenty sentences before; detokenized"
)


def _task(kind: str, what: str, column: str) -> Task:
    told = MultipleChoiceTask(f"cbt-{kind.lower()}", ABOUT.format(what), read, {SUM: column}, QUESTIONS)
    return told.task(CBT, CBT.member.format(kind))


TASKS = [_task("CN", "common nouns", paper.CBT_CN), _task("NE", "named entities", paper.CBT_NE)]
