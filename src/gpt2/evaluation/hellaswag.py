"""HellaSwag: which of four endings follows (Zellers et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from gpt2.errors import DamagedFileError
from gpt2.evaluation.datasets import HELLASWAG
from gpt2.evaluation.multiple_choice import MEAN, SUM, MultipleChoiceTask, Question, make_question
from gpt2.evaluation.task import json_lines
from gpt2.generate import Model

QUESTIONS = 10042


def read(model: Model, file: IO[bytes], path: Path) -> Iterator[Question]:
    """JSON lines with a context, four endings and the number of the right one. Raises Damaged."""
    for number, found in enumerate(json_lines(file, path, ["ctx", "endings", "label"]), start=1):
        endings, label = found["endings"], found["label"]
        if not isinstance(endings, list) or not str(label).isdecimal() or int(label) >= len(endings):
            raise DamagedFileError(path, f"line {number}: its label should be the number of one of its endings")
        context = model.encoder.encode(str(found["ctx"]))
        rows = [np.array([*context, *model.encoder.encode(f" {ending}")], np.int32) for ending in endings]
        yield make_question(model, rows, len(context), int(label))


ABOUT = (
    "HellaSwag, the validation set: four endings, each after its context and a space, a hit if the right one has the"
    " highest log-probability; normalized: for each of its tokens, as llm.c counts"
)
TASKS = [MultipleChoiceTask("hellaswag", ABOUT, read, {SUM: "", MEAN: ""}, QUESTIONS).task(HELLASWAG)]
