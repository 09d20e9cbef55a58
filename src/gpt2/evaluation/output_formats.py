"""Output formats of scores: a table for the terminal, CSV, JSON lines and HTML, as generators of strings."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator

from gpt2.errors import check_choice
from gpt2.evaluation import html_page
from gpt2.evaluation.units import Unit, escape_control

TABLE, CSV, JSONL, HTML = "table", "csv", "jsonl", "html"
LOGPROB_DECIMALS = 4  # decimals of a log-probability in a table
COLUMNS = ("file", "line", "text", "tokens", "logprob", "bits", "rank")


def as_table(units: Iterable[Unit]) -> Iterator[str]:
    """Yield the lines of a table, with control characters escaped."""
    yield f"{'logprob':>10}  {'bits':>8}  {'rank':>6}  {'tokens':>6}  text\n"
    name = None
    for unit in units:
        if unit.name != name:
            name = unit.name
            yield f"{escape_control(name)}:\n"
        numbers = f"{_cell(unit.logprob, 10, LOGPROB_DECIMALS)}  {_cell(unit.bits, 8, 2)}  {_cell(unit.rank, 6)}"
        line = f"{numbers}  {unit.tokens:>6}  {escape_control(unit.text)}"
        if unit.top_tokens:
            line += "    likeliest:"
            line += "".join(f"  {escape_control(token)} {logprob:.2f}" for token, logprob in unit.top_tokens)
        yield line + "\n"


def _cell(value: float | None, width: int, decimals: int = 0) -> str:
    text = "-" if value is None else f"{value:.{decimals}f}"
    return f"{text:>{width}}"


def as_csv(units: Iterable[Unit]) -> Iterator[str]:
    """Yield a CSV header and rows; if the units have top tokens, the last column contains them as JSON."""
    header_written = False
    for unit in units:
        if not header_written:
            yield _csv_row([*COLUMNS, *(["likeliest"] if unit.top_tokens else [])])
            header_written = True
        top_tokens = [json.dumps(unit.top_tokens, ensure_ascii=False)] if unit.top_tokens else []
        yield _csv_row([*_column_values(unit), *top_tokens])
    if not header_written:
        yield _csv_row(COLUMNS)


def _column_values(unit: Unit) -> list[object]:
    return [unit.name, unit.line, unit.text, unit.tokens, unit.logprob, unit.bits, unit.rank]


def _csv_row(values: Iterable[object]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(values)  # a lone carriage return is quoted only with the default line end
    return line.getvalue().removesuffix("\r\n") + "\n"


def as_jsonl(units: Iterable[Unit]) -> Iterator[str]:
    """Yield a line with a JSON object for each unit, keyed by column name; unknown values are null."""
    for unit in units:
        row = dict(zip(COLUMNS, _column_values(unit)))
        if unit.top_tokens:
            row["likeliest"] = unit.top_tokens
        yield json.dumps(row, ensure_ascii=False) + "\n"


FORMS: dict[str, Callable[[Iterable[Unit]], Iterator[str]]] = {
    TABLE: as_table,
    CSV: as_csv,
    JSONL: as_jsonl,
    HTML: html_page.as_html,
}
NextTokens = Iterable[tuple[int, str, float]]  # (rank, text, log-probability) of possible next tokens


def next_as_table(tokens: NextTokens) -> Iterator[str]:
    """Yield the lines of a table of possible next tokens."""
    yield f"{'rank':>6}  {'probability':>11}  {'logprob':>10}  token\n"
    for rank, text, logprob in tokens:
        yield f"{rank:>6}  {math.exp(logprob):>11.6f}  {logprob:>10.{LOGPROB_DECIMALS}f}  {escape_control(text)}\n"


def next_as_csv(tokens: NextTokens) -> Iterator[str]:
    """Yield a CSV header and a row for each possible next token."""
    yield _csv_row(("rank", "token", "logprob", "probability"))
    for rank, text, logprob in tokens:
        yield _csv_row((rank, text, logprob, math.exp(logprob)))


def next_as_jsonl(tokens: NextTokens) -> Iterator[str]:
    """Yield a line with a JSON object for each possible next token."""
    for rank, text, logprob in tokens:
        row = {"rank": rank, "token": text, "logprob": logprob, "probability": math.exp(logprob)}
        yield json.dumps(row, ensure_ascii=False) + "\n"


NEXT_FORMS: dict[str, Callable[[NextTokens], Iterator[str]]] = {
    TABLE: next_as_table,
    CSV: next_as_csv,
    JSONL: next_as_jsonl,
}
FORM_OF_SUFFIX = {".csv": CSV, ".jsonl": JSONL, ".json": JSONL, ".html": HTML, ".htm": HTML}


def resolve_form(form: str | None, suffix: str) -> str:
    """Return the output format.

    Args:
        form: A key of FORMS, or None to choose by the suffix.
        suffix: The suffix of the output file. If `form` is None and the suffix is unknown, the format is TABLE.

    Raises:
        UsageError: The form is unknown.
    """
    form = FORM_OF_SUFFIX.get(suffix.lower(), TABLE) if form is None else form
    check_choice("form", form, FORMS)
    return form
