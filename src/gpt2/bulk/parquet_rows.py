"""Reader of the rows of a Parquet file. A row with a value that Python cannot represent gets an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gpt2.bulk.csv_rows import Columns
from gpt2.bulk.row_fields import RowFields, shorten
from gpt2.errors import GPT2Error, printable_name
from gpt2.files import reporting_read_errors
from gpt2.installation import install_command

BATCH_ROWS = 256
REQUIREMENTS = "-r requirements-parquet.txt"


def import_parquet() -> Any:
    """Return the module `pyarrow.parquet`.

    Raises:
        GPT2Error: The package is not installed. The message gives the command that installs it.
    """
    try:
        from pyarrow import parquet
    except ImportError:
        raise GPT2Error(f"Parquet needs pyarrow; type: {install_command(REQUIREMENTS, 'pyarrow')}") from None
    return parquet


def read_parquet(
    path: Path, choose_columns: Callable[[Sequence[str]], Columns], report_size: Callable[[int], object]
) -> Iterator[RowFields]:
    """Yield the rows of a file.

    Args:
        path: The file.
        choose_columns: Returns the columns for their names.
        report_size: Called with the number of rows.

    Raises:
        GPT2Error: The file is damaged or has no columns.
        UsageError: The names of the columns are not allowed.
    """
    import pyarrow

    try:
        with reporting_read_errors(path), import_parquet().ParquetFile(path) as file:
            names = file.schema_arrow.names
            if not names:
                raise GPT2Error(f"{printable_name(path)} has no columns; give a file with a column of prompts")
            columns = choose_columns(names)
            report_size(file.metadata.num_rows)
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for cells, error in _read_cells(batch):
                    values = columns.values(cells)
                    yield RowFields(values, repr(values) if error else "", error=error)
    except pyarrow.ArrowException as error:
        raise GPT2Error(f"{printable_name(path)} cannot be read: {error}") from error


def _read_cells(batch: Any) -> Iterator[tuple[Sequence[Any], str]]:
    """Yield the cells of each row of a record batch, and the row's error."""
    try:
        columns = [column.to_pylist() for column in batch.columns]
    except Exception:  # a value is outside the range of its Python type, or is not UTF-8; find it
        yield from (_read_row(batch, number) for number in range(batch.num_rows))
        return
    yield from ((cells, "") for cells in zip(*columns))


def _read_row(batch: Any, number: int) -> tuple[Sequence[Any], str]:
    cells: list[Any] = []
    error = ""
    for name, column in zip(batch.schema.names, batch.columns):
        try:
            cells.append(column[number].as_py())
        except Exception as problem:
            cells.append(None)
            error = error or shorten(f"the column {name!r} cannot be read: {problem}")
    return cells, error
