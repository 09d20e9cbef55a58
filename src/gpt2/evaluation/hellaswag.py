"""HellaSwag: choose the ending that continues a text, out of four (Zellers et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from gpt2.errors import DamagedFileError
from gpt2.evaluation.datasets import HELLASWAG
from gpt2.evaluation.multiple_choice import ACCURACY, NORMALIZED_ACCURACY, MultipleChoiceTask, Question, make_question
from gpt2.evaluation.task import read_json_lines
from gpt2.text_batch import Model

QUESTIONS = 10042  # number of questions in the validation set
PROTOCOL = (
    "HellaSwag, the validation set: four endings, each scored after its context and a space; a hit if the correct one"
    " has the highest log-probability; normalized: the mean per token instead of the sum, as in llm.c"
)


def read_questions(model: Model, file: IO[bytes], path: Path) -> Iterator[Question]:
    """Yield the questions of a JSON lines file: `ctx`, four `endings`, and `label`, the index of the correct ending.

    Args:
        model: The model whose vocabulary encodes the questions.
        file: The opened file.
        path: The path of the file, for error messages.

    Raises:
        DamagedFileError: A line does not have this format.
    """
    for number, example in enumerate(read_json_lines(file, path, ["ctx", "endings", "label"]), start=1):
        endings = example["endings"]
        label = example["label"]
        if not isinstance(endings, list) or not str(label).isdecimal() or int(label) >= len(endings):
            raise DamagedFileError(path, f"line {number}: its label should be the index of one of its endings")
        context = model.encoder.encode(str(example["ctx"]))
        answers = [np.array([*context, *model.encoder.encode(f" {ending}")], np.int32) for ending in endings]
        yield make_question(model, answers, len(context), int(label))


TASK = MultipleChoiceTask(
    "hellaswag", PROTOCOL, read_questions, {ACCURACY: "", NORMALIZED_ACCURACY: ""}, QUESTIONS
).as_task(HELLASWAG)
TASKS = [TASK]
