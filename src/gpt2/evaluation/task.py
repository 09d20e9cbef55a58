"""The parts of an evaluation task: its data set, its settings, and its result."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from gpt2.errors import DamagedFileError
from gpt2.evaluation.datasets import DataFile
from gpt2.generate import Model

ProgressCallback = Callable[[int, "int | None"], object]  # called with (done, total); total is None if unknown


class TaskSettings(NamedTuple):
    """How tasks are run.

    Attributes:
        window: Tokens of a window, as in `scores.protocol_of`.
        stride: Tokens that each window after the first one scores, as in `scores.protocol_of`.
        start: Whether the end-of-text token is put before each text, as in `scores.protocol_of`.
        limit: Run only the first `limit` examples or, for a task that scores a text, characters; None for all.
    """

    window: int | None = None
    stride: int | None = None
    start: bool = True
    limit: int | None = None


class TaskMetric(NamedTuple):
    """One number that a task reports.

    Attributes:
        name: The metric and its unit, as it is printed.
        value: The measured value; NaN if there was nothing to measure.
        paper_column: The column of the paper's table that reports this metric; "" if there is none.
    """

    name: str
    value: float
    paper_column: str = ""


class TaskResult(NamedTuple):
    """What a task measured.

    Attributes:
        task: The name of the task, or of the text.
        protocol: How the metrics were computed, in one sentence.
        metrics: The measured values.
        counts: How many examples, tokens, words etc. were evaluated, by name.
    """

    task: str
    protocol: str
    metrics: list[TaskMetric]
    counts: dict[str, int]


class Task(NamedTuple):
    """A data set and how a model is evaluated on it.

    Attributes:
        name: The name on the command line.
        about: A description in one line.
        data: The file with the examples.
        run: Called with (model, opened file, its path, settings, progress callback); returns the result.
        member: The file to read if the data set is an archive.
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
        path: Its path, for error messages.
        required_keys: Keys that each object must have.

    Raises:
        DamagedFileError: A line is not a JSON object or lacks a required key; the message names the line.
    """
    for number, line in enumerate(file, start=1):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DamagedFileError(path, f"line {number} is not JSON: {error}") from error
        if not isinstance(value, dict) or not all(key in value for key in required_keys):
            raise DamagedFileError(path, f"line {number} should be an object with {', '.join(required_keys)}")
        yield value
