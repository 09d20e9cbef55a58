"""A job: rows in, rows out, each once, whatever happens in between."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gpt2.bulk import source as sources
from gpt2.bulk.journal import Journal, journal_of
from gpt2.bulk.output import Output
from gpt2.bulk.row_queue import RowQueue
from gpt2.bulk.rows import JobRow, RowDefaults, parsed
from gpt2.bulk.source import PromptSource, SourceProgress
from gpt2.bulk.workers import Executor
from gpt2.errors import UsageError, printable_name

INPUT = "input"  # in a journal's settings: by what the input is known again
ERRORS_KEPT = 3  # that are told at the end


@dataclasses.dataclass
class JobTotals:
    """What has come of a job so far, what earlier runs have done left out. errors: the first few."""

    rows: int = 0
    tokens: int = 0
    errors: list[str] = dataclasses.field(default_factory=list)


def rows(source: PromptSource, asked: RowDefaults, progress: SourceProgress) -> Iterator[JobRow]:
    """What the input asks for."""
    return (parsed(record, asked) for record in sources.records(source, progress))


def begin(journal: Journal, out: Path, settings: Mapping[str, Any], source: PromptSource) -> None:
    """Notes a new job's settings, or makes sure that an old one's are the same.

    Raises UsageError if they are not, if the input is another one, or if something else is there by the output's name.
    """
    has_output = out.exists() and (any(out.iterdir()) if out.is_dir() else out.stat().st_size > 0)
    if not has_output:
        journal.begin({**settings, INPUT: sources.beginning(source)})
    elif journal.settings is None:
        journal.path.unlink()
        raise UsageError(
            f"{printable_name(out)} is there, and no job that could go on with it; remove it, or give another name"
        )
    else:
        _check_same(journal.settings, settings, out)
        known = journal.settings[INPUT]
        if sources.beginning(source, known["bytes"]) != known:
            raise UsageError(
                f"{printable_name(source.path)} is not what {printable_name(out)} was begun with; {_anew(out)}"
            )


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], out: Path) -> None:
    for name, value in now.items():
        if before.get(name) != value:
            said = f"{printable_name(out)} was begun with {name} {before.get(name)!r}, not {value!r}"
            raise UsageError(f"{said}; give the same, or {_anew(out)}")


def _anew(out: Path) -> str:
    return f"to begin anew remove it and {printable_name(journal_of(out).name)}"


def run(ahead: RowQueue, hands: Executor, output: Output, report: Callable[[JobTotals], object]) -> JobTotals:
    """Has all rows written. report: told after each step what has come of them. Raises GPT2Error."""
    totals = JobTotals()
    ahead.serve(hands.places)
    while finished := hands.exchange(ahead):
        ahead.serve(hands.places)
        output.add(finished)
        for one in finished:
            totals.rows += 1
            totals.tokens += sum(text.tokens for text in one.texts)
            if one.error and len(totals.errors) < ERRORS_KEPT:
                totals.errors.append(f"row {one.row.number + 1}: {one.error}")
        report(totals)
    output.close()
    return totals
