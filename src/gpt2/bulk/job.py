"""A job: generates each row of an input exactly once, however often it is interrupted."""

from __future__ import annotations

import dataclasses
import os
import reprlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gpt2.bulk import source as sources
from gpt2.bulk.journal import VERSION_KEY, Journal, journal_path
from gpt2.bulk.output import JobOutput
from gpt2.bulk.row_queue import RowQueue
from gpt2.bulk.rows import JobRow, RowDefaults, parse_row
from gpt2.bulk.source import PromptSource, SourceProgress
from gpt2.bulk.weights_identity import FILES_KEY
from gpt2.bulk.workers import Executor
from gpt2.errors import UsageError, printable_name
from gpt2.request import SEED_LIMIT

INPUT_KEY = "input"  # of the checksum of the input's start in the settings of older journals
WEIGHTS_KEY = "weights"  # of `weights_identity` in a journal's settings
MODEL_KEY = "model_name"  # of the names of the model and of its weights
SEED_KEY = "seed"
OTHER_KEYS = ("in_form", "out_form")  # that all journals have
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


def read_rows(
    source: PromptSource, defaults: RowDefaults, progress: SourceProgress, output: JobOutput
) -> Iterator[JobRow]:
    """Yield the rows of the input that the output does not have.

    Args:
        source: The input.
        defaults: The settings of a row that does not have its own.
        progress: The progress, which is updated while the input is read.
        output: The output.

    Raises:
        GPT2Error: The input cannot be read, or the rows that earlier runs have read have changed.
    """
    records = sources.read_records(source, progress)
    return (parse_row(record, defaults) for record in output.input_check.unfinished(records, output.finished_numbers))


def find_output(path: Path) -> Path:
    """Return the path of an output without symbolic links, so that all paths of one output lead to one journal.

    The path remains as it is if it has no links.
    """
    real = Path(os.path.realpath(path))
    return path if real == Path(os.path.abspath(path)) else real


def has_rows(out: Path) -> bool:
    """Return whether an output exists and is not empty."""
    return out.exists() and (any(out.iterdir()) if out.is_dir() else out.stat().st_size > 0)


def start(journal: Journal, out: Path, settings: Mapping[str, Any], source: PromptSource) -> None:
    """Record the settings of a new job, or check that a resumed job has the same settings.

    Args:
        journal: The job's journal.
        out: The path of the output.
        settings: Everything that the output depends on, except the input.
        source: The input.

    Raises:
        UsageError: The resumed job has other settings or another input, or the output belongs to no job.
        DamagedFileError: The journal is damaged.
    """
    if not has_rows(out):
        journal.start(settings)
    elif journal.is_empty:
        journal.path.unlink()
        raise UsageError(
            f"{printable_name(out)} exists, but there is no job that could be resumed; remove it, or give another name"
        )
    elif journal.settings is None:
        raise journal.damaged("its first line is cut off")
    else:
        _resume(journal, journal.settings, out, settings, source)


def check_journal(journal: Journal) -> None:
    """Check the types of the settings that are used without a comparison.

    Raises:
        DamagedFileError: A setting is missing or has another type.
    """
    recorded = journal.settings
    if recorded is None:
        return
    missing = [name for name in (MODEL_KEY, SEED_KEY, *OTHER_KEYS) if name not in recorded]
    if missing:
        raise journal.damaged(f"it has no setting {missing[0]}")
    if not (type(recorded[SEED_KEY]) is int and 0 <= recorded[SEED_KEY] < SEED_LIMIT):
        raise journal.damaged(f"its seed is {reprlib.repr(recorded[SEED_KEY])}")
    names = recorded[MODEL_KEY]
    if not (isinstance(names, list) and len(names) == 2 and all(isinstance(name, str) for name in names)):
        raise journal.damaged(f"its {MODEL_KEY} is {reprlib.repr(names)}")
    checksum = recorded.get(INPUT_KEY, {"bytes": 0, "crc32": 0})
    if not (isinstance(checksum, dict) and all(_is_count(checksum.get(name)) for name in ("bytes", "crc32"))):
        raise journal.damaged(f"its checksum of the input is {reprlib.repr(checksum)}")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 32


def _resume(
    journal: Journal, recorded: dict[str, Any], out: Path, settings: Mapping[str, Any], source: PromptSource
) -> None:
    _check_settings(recorded, settings, out)
    journal.input_check.problem = (
        f"{printable_name(source.path)} is not the input that {printable_name(out)} was started with: rows that have "
        f"been read before have changed or are missing; give the same rows (new ones only after them), or "
        f"{_restart_advice(out)}"
    )
    checksum = recorded.get(INPUT_KEY)
    if checksum is not None and sources.input_checksum(source, checksum["bytes"]) != checksum:
        raise UsageError(journal.input_check.problem)
    if VERSION_KEY not in recorded:
        journal.upgrade(settings)


def warn_if_outdated(journal: Journal) -> None:
    """Give a warning if an older version wrote the journal, after its entries have been read."""
    if journal.is_outdated:
        warnings.warn(
            f"{printable_name(journal.path)} is from an older version and does not identify the model's weights; "
            "the job continues, but only the names of the model and the start of the input have been compared",
            stacklevel=2,
        )


def _check_settings(recorded: Mapping[str, Any], settings: Mapping[str, Any], out: Path) -> None:
    weights = settings[WEIGHTS_KEY]
    is_identified = not weights[FILES_KEY]  # otherwise the names must be the same as well
    for name, value in settings.items():
        if recorded.get(name) == value or (name == MODEL_KEY and is_identified and recorded.get(WEIGHTS_KEY)):
            continue
        if name != WEIGHTS_KEY:
            raise UsageError(
                f"{printable_name(out)} was started with {name} {reprlib.repr(recorded.get(name))}, not {value!r}; "
                f"give the same value, or {_restart_advice(out)}"
            )
    if VERSION_KEY in recorded and recorded.get(WEIGHTS_KEY) != weights:
        raise UsageError(
            f"{printable_name(out)} was started with other weights or another vocabulary than "
            f"{' '.join(settings[MODEL_KEY])} has now{_difference(recorded.get(WEIGHTS_KEY), weights)}; "
            f"give the same model, or {_restart_advice(out)}"
        )


def _difference(recorded: Any, weights: Mapping[str, Any]) -> str:
    """Return the file whose size or modification time differs, for a message."""
    files = recorded.get(FILES_KEY) if isinstance(recorded, dict) else None
    differing = [name for name, status in weights[FILES_KEY].items() if (files or {}).get(name) != status]
    return f" ({differing[0]} has another size or modification time)" if differing else ""


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
