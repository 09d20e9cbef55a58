"""What was scored, written out: a table for a terminal, CSV, JSON lines, or a page of HTML. Text in pieces."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator

from gpt2.errors import UsageError
from gpt2.evaluation import html_page
from gpt2.evaluation.units import Unit, printable

TABLE, CSV, JSONL, HTML = "table", "csv", "jsonl", "html"
DIGITS = 4  # of a log-probability in a table
COLUMNS = ("file", "line", "text", "tokens", "logprob", "bits", "rank")


def as_table(units: Iterable[Unit]) -> Iterator[str]:
    """Columns for people; what would disturb a terminal is written as Python does."""
    yield f"{'logprob':>10}  {'bits':>8}  {'rank':>6}  {'tokens':>6}  text\n"
    name = None
    for unit in units:
        if unit.name != name:
            name = unit.name
            yield f"{printable(name)}:\n"
        numbers = f"{_cell(unit.logprob, 10, DIGITS)}  {_cell(unit.bits, 8, 2)}  {_cell(unit.rank, 6)}"
        others = "".join(f"  {printable(piece)} {logprob:.2f}" for piece, logprob in unit.likeliest)
        yield f"{numbers}  {unit.tokens:>6}  {printable(unit.text)}{'    likeliest:' + others if others else ''}\n"


def _cell(value: float | None, width: int, digits: int = 0) -> str:
    return f"{'-' if value is None else format(value, f'.{digits}f'):>{width}}"


def as_csv(units: Iterable[Unit]) -> Iterator[str]:
    """With a header; the likeliest as JSON in the last column, if they were asked for."""
    first = True
    for unit in units:
        if first:
            yield _row([*COLUMNS, *(["likeliest"] if unit.likeliest else [])])
            first = False
        numbers = unit.tokens, unit.logprob, unit.bits, unit.rank
        others = [json.dumps(unit.likeliest, ensure_ascii=False)] if unit.likeliest else []
        yield _row([unit.name, unit.line, unit.text, *numbers, *others])
    if first:
        yield _row(COLUMNS)


def _row(values: Iterable[object]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(values)  # quotes a lone carriage return only if that ends its own lines
    return line.getvalue().removesuffix("\r\n") + "\n"


def as_jsonl(units: Iterable[Unit]) -> Iterator[str]:
    """An object a line, with the names of the columns; what is not known is null."""
    for unit in units:
        values = unit.name, unit.line, unit.text, unit.tokens, unit.logprob, unit.bits, unit.rank
        likeliest = {"likeliest": unit.likeliest} if unit.likeliest else {}
        yield json.dumps({**dict(zip(COLUMNS, values)), **likeliest}, ensure_ascii=False) + "\n"


FORMS: dict[str, Callable[[Iterable[Unit]], Iterator[str]]] = {
    TABLE: as_table,
    CSV: as_csv,
    JSONL: as_jsonl,
    HTML: html_page.as_html,
}
Following = Iterable[tuple[int, str, float]]  # rank, piece and log-probability of tokens that may come next


def next_as_table(rows: Following) -> Iterator[str]:
    yield f"{'rank':>6}  {'probability':>11}  {'logprob':>10}  token\n"
    for rank, piece, logprob in rows:
        yield f"{rank:>6}  {math.exp(logprob):>11.6f}  {logprob:>10.{DIGITS}f}  {printable(piece)}\n"


def next_as_csv(rows: Following) -> Iterator[str]:
    yield _row(("rank", "token", "logprob", "probability"))
    for rank, piece, logprob in rows:
        yield _row((rank, piece, logprob, math.exp(logprob)))


def next_as_jsonl(rows: Following) -> Iterator[str]:
    for rank, piece, logprob in rows:
        found = {"rank": rank, "token": piece, "logprob": logprob, "probability": math.exp(logprob)}
        yield json.dumps(found, ensure_ascii=False) + "\n"


NEXT_FORMS: dict[str, Callable[[Following], Iterator[str]]] = {
    TABLE: next_as_table,
    CSV: next_as_csv,
    JSONL: next_as_jsonl,
}
SUFFIXES = {".csv": CSV, ".jsonl": JSONL, ".json": JSONL, ".html": HTML, ".htm": HTML}


def resolve_form(form: str | None, suffix: str) -> str:
    """The form that is asked for, or that a file's name ends in; a table if neither says. Raises UsageError."""
    form = SUFFIXES.get(suffix.lower(), TABLE) if form is None else form
    if form not in FORMS:
        raise UsageError(f"form must be one of {', '.join(FORMS)}, not {form!r}")
    return form
