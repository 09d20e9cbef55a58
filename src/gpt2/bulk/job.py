"""A job: generates each row of an input exactly once, however often it is interrupted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gpt2.bulk import source as sources
from gpt2.bulk.journal import Journal, journal_path
from gpt2.bulk.output import JobOutput
from gpt2.bulk.row_queue import RowQueue
from gpt2.bulk.rows import JobRow, RowDefaults, parse_row
from gpt2.bulk.source import PromptSource, SourceProgress
from gpt2.bulk.workers import Executor
from gpt2.errors import UsageError, printable_name

INPUT_KEY = "input"  # of the input's checksum in a journal's settings
MAX_REPORTED_ERRORS = 3


@dataclasses.dataclass
class JobTotals:
    """The totals of this run of a job so far, without earlier runs.

    Attributes:
        rows: Number of rows that have finished.
        tokens: Number of tokens that have been generated.
        errors: The errors of the first few rows that have one.
    """

    rows: int = 0
    tokens: int = 0
    errors: list[str] = dataclasses.field(default_factory=list)


def read_rows(source: PromptSource, defaults: RowDefaults, progress: SourceProgress) -> Iterator[JobRow]:
    """Yield the rows of the input.

    Args:
        source: The input.
        defaults: The settings of a row that does not have its own.
        progress: The progress, which is updated while the input is read.

    Raises:
        GPT2Error: The input cannot be read.
    """
    return (parse_row(record, defaults) for record in sources.read_records(source, progress))


def start(journal: Journal, out: Path, settings: Mapping[str, Any], source: PromptSource) -> None:
    """Record the settings of a new job, or check that a resumed job has the same settings.

    Args:
        journal: The job's journal.
        out: The path of the output.
        settings: Everything that the output depends on.
        source: The input.

    Raises:
        UsageError: The resumed job has other settings or another input, or the output belongs to no job.
    """
    has_output = out.exists() and (any(out.iterdir()) if out.is_dir() else out.stat().st_size > 0)
    if not has_output:
        journal.start({**settings, INPUT_KEY: sources.input_checksum(source)})
    elif journal.settings is None:
        journal.path.unlink()
        raise UsageError(
            f"{printable_name(out)} exists, but there is no job that could be resumed; remove it, or give another name"
        )
    else:
        _check_settings(journal.settings, settings, out)
        checksum = journal.settings[INPUT_KEY]
        if sources.input_checksum(source, checksum["bytes"]) != checksum:
            raise UsageError(
                f"{printable_name(source.path)} is not the input that {printable_name(out)} was started with; "
                f"{_restart_advice(out)}"
            )


def _check_settings(recorded: Mapping[str, Any], settings: Mapping[str, Any], out: Path) -> None:
    for name, value in settings.items():
        if recorded.get(name) != value:
            raise UsageError(
                f"{printable_name(out)} was started with {name} {recorded.get(name)!r}, not {value!r}; "
                f"give the same value, or {_restart_advice(out)}"
            )


def _restart_advice(out: Path) -> str:
    return f"to start again, remove {printable_name(out)} and {printable_name(journal_path(out).name)}"


def run(queue: RowQueue, executor: Executor, output: JobOutput, report: Callable[[JobTotals], object]) -> JobTotals:
    """Generate all rows of the queue and add them to the output.

    Args:
        queue: The rows.
        executor: Generates their texts.
        output: Receives the finished rows; it is closed at the end.
        report: Called with the totals each time that rows have finished.

    Returns:
        The totals.

    Raises:
        GPT2Error: The input cannot be read, the output cannot be written, or no worker can continue.
    """
    totals = JobTotals()
    queue.set_capacity(executor.capacity)
    while finished_rows := executor.next_finished(queue):
        queue.set_capacity(executor.capacity)
        output.add(finished_rows)
        for finished in finished_rows:
            totals.rows += 1
            totals.tokens += sum(text.completion_tokens for text in finished.texts)
            if finished.error and len(totals.errors) < MAX_REPORTED_ERRORS:
                totals.errors.append(f"row {finished.row.number + 1}: {finished.error}")
        report(totals)
    output.close()
    return totals
