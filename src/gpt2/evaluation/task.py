"""What a task is: data, a protocol in one sentence, and numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from gpt2.errors import DamagedFileError
from gpt2.evaluation.datasets import DataFile
from gpt2.generate import Model

Progress = Callable[[int, "int | None"], object]  # is told how much is done, and of how much


class TaskSettings(NamedTuple):
    """How tasks are run: see `scores.protocol_of`.

    limit: the first so many examples alone or, of a text, characters; None for all.
    """

    window: int | None = None
    stride: int | None = None
    start: bool = True
    limit: int | None = None


class TaskMetric(NamedTuple):
    """One number that a task comes to, and the column of the paper's table that reports the same."""

    name: str
    value: float
    column: str = ""


class TaskResult(NamedTuple):
    """What a task comes to. counts: how much was looked at, by name."""

    task: str
    protocol: str
    numbers: list[TaskMetric]
    counts: dict[str, int]


class Task(NamedTuple):
    """A data set, and how a model is tried on it.

    member: the file that is read of an archive. run: given the opened file and its name, what it comes to.
    """

    name: str
    about: str  # one line
    data: DataFile
    run: Callable[[Model, IO[bytes], Path, TaskSettings, Progress], TaskResult]
    member: str = ""


def json_lines(file: IO[bytes], path: Path, needed: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines. Raises Damaged, naming the line, for one that lacks what is needed."""
    for number, line in enumerate(file, start=1):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DamagedFileError(path, f"line {number} is no JSON: {error}") from error
        if not isinstance(found, dict) or not all(name in found for name in needed):
            raise DamagedFileError(path, f"line {number} should be an object with {', '.join(needed)}")
        yield found
