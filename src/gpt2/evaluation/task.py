"""The parts of an evaluation task: its data set, its settings, and its result."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from gpt2.errors import DamagedFileError
from gpt2.evaluation.datasets import DataFile
from gpt2.text_batch import Model

ProgressCallback = Callable[[int, "int | None"], object]  # called with (done, total); total is None if unknown


class TaskSettings(NamedTuple):
    """The settings of a task run.

    Attributes:
        window: The number of tokens in a window, as in `scores.protocol_of`.
        stride: The number of tokens that each window after the first one scores, as in `scores.protocol_of`.
        start: Whether the end-of-text token precedes each text, as in `scores.protocol_of`.
        limit: The number of examples to run or, for a task that scores a text, of characters; None for all.
    """

    window: int | None = None
    stride: int | None = None
    start: bool = True
    limit: int | None = None


class TaskMetric(NamedTuple):
    """A number in the result of a task.

    Attributes:
        name: The printed name of the metric and its unit.
        value: The measured value; NaN if the data was empty.
        paper_column: The column of the paper's table that reports this metric; "" if there is none.
    """

    name: str
    value: float
    paper_column: str = ""


class TaskResult(NamedTuple):
    """The result of a task.

    Attributes:
        task: The name of the task, or of the text.
        protocol: A description of the computation, in one sentence.
        metrics: The measured values.
        counts: The numbers of evaluated examples, tokens, words etc. by their names.
    """

    task: str
    protocol: str
    metrics: list[TaskMetric]
    counts: dict[str, int]


class Task(NamedTuple):
    """A data set with the evaluation of a model on it.

    Attributes:
        name: The name on the command line.
        about: A description in one line.
        data: The file with the examples.
        run: Called with (model, opened file, its path, settings, progress callback); returns the result.
        member: The file to read in the archive; "" if the data set is not an archive.
    """

    name: str
    about: str
    data: DataFile
    run: Callable[[Model, IO[bytes], Path, TaskSettings, ProgressCallback], TaskResult]
    member: str = ""


def read_json_lines(file: IO[bytes], path: Path, required_keys: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON lines file.

    Args:
        file: The opened file.
        path: The path of the file, for error messages.
        required_keys: Keys that each object must have.

    Raises:
        DamagedFileError: A line is not a JSON object or lacks a required key. The message names the line.
    """
    for number, line in enumerate(file, start=1):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DamagedFileError(path, f"line {number} is not JSON: {error}") from error
        if not isinstance(value, dict) or not all(key in value for key in required_keys):
            raise DamagedFileError(path, f"line {number} should be an object with {', '.join(required_keys)}")
        yield value
