"""File formats of the output: a finished row as JSON lines, csv, text, or the cells of a table."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from gpt2.bulk.batch_worker import FinishedRow, GeneratedText
from gpt2.bulk.row_fields import describe_exception
from gpt2.errors import check_choice

JSON_LINES = "jsonl"
CSV = "csv"
TEXT = "text"
PARQUET = "parquet"
FORMATS = (TEXT, JSON_LINES, CSV, PARQUET)
FORMATS_BY_EXTENSION = {".jsonl": JSON_LINES, ".ndjson": JSON_LINES, ".csv": CSV, ".parquet": PARQUET}
COLUMNS = {
    "id": str,
    "index": int,
    "prompt": str,
    "text": str,
    "prompt_tokens": int,
    "completion_tokens": int,
    "finish_reason": str,
    "seed": int,
    "sample": int,
    "error": str,
    "logprobs": str,  # JSON
}
Encoded = TypeVar("Encoded")
ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r"})


class RowFormat(NamedTuple):
    """The layout of rows in a file.

    Attributes:
        header: The start of the file, before all rows.
        encode: Returns the bytes of a row.
        is_ordered: Whether the rows are written in the order of the input, or else as soon as they finish.
    """

    header: bytes
    encode: Callable[[FinishedRow], bytes]
    is_ordered: bool


def choose_format(requested: str | None, path: str) -> str:
    """Return the format of a file.

    Args:
        requested: The requested format; None for the one of the path's extension, or text if the extension is unknown.
        path: The path of the file, compressed or not.

    Returns:
        One of FORMATS.

    Raises:
        UsageError: There is no format of the requested name.
    """
    if requested is None:
        name = path.lower().removesuffix(".gz")
        matches = (format_name for extension, format_name in FORMATS_BY_EXTENSION.items() if name.endswith(extension))
        return next(matches, TEXT)
    check_choice("the format", requested, FORMATS)
    return requested


def row_format(file_format: str, model_name: str, delimiter: str | None) -> RowFormat:
    """Return the form of rows in a format other than Parquet.

    Args:
        file_format: JSON_LINES, CSV or TEXT.
        model_name: The name of the model, which OpenAI's answers include.
        delimiter: See `separator`; None writes each text on one line. Only TEXT uses it.
    """
    if file_format == JSON_LINES:
        return RowFormat(b"", lambda finished: _json_lines(finished, model_name), False)
    if file_format == CSV:
        return RowFormat(_csv_line(COLUMNS), lambda finished: b"".join(map(_csv_line, row_cells(finished))), True)
    return RowFormat(b"", lambda finished: _text_lines(finished, delimiter), True)


def encode_row(encode: Callable[[FinishedRow], Encoded], finished: FinishedRow) -> tuple[FinishedRow, Encoded]:
    """Return a row and its encoding; if it cannot be encoded, the row with an error instead of its values.

    Args:
        encode: A function of the output's format.
        finished: The row.
    """
    try:
        return finished, encode(finished)
    except Exception as error:  # whatever is wrong with one row must not end the job
        row = dataclasses.replace(finished.row, id=finished.row.number, requests=())
        failed = FinishedRow(row, error=f"the row cannot be written: {describe_exception(error)}")
        return failed, encode(failed)


def separator(delimiter: str) -> str:
    """Return the separator after each text: the delimiter on its own line, or alone if it consists of line ends."""
    return delimiter if not delimiter.strip("\n") else f"\n{delimiter}\n"


def row_entries(finished: FinishedRow) -> Iterator[dict[str, Any]]:
    """Yield one JSON object for each text of a row, or one with the row's error."""
    row = finished.row
    if finished.error:
        yield {"id": row.id, "prompt": row.requests[0].prompt if row.requests else None, "error": finished.error}
    for index, (request, text) in enumerate(zip(row.requests, finished.texts)):
        entry = {"id": row.id, "index": index, "prompt": request.prompt, "text": text.text}
        entry |= {"prompt_tokens": text.prompt_tokens, "completion_tokens": text.completion_tokens}
        entry |= {"finish_reason": text.finish_reason, "seed": request.seed, "sample": request.sample}
        yield entry if text.logprobs is None else entry | {"logprobs": text.logprobs}


def row_cells(finished: FinishedRow) -> list[list[Any]]:
    """Return the values of COLUMNS for each text of a row, or once with the row's error."""
    return [
        [_cell(entry.get(name), column_type) for name, column_type in COLUMNS.items()]
        for entry in row_entries(finished)
    ]


def _cell(value: Any, column_type: type) -> Any:
    """Return None or a value of the column's type unchanged, and any other value, such as a prompt of ids, as JSON."""
    if value is None or type(value) is int and column_type is int:
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _encode_utf8(text).decode("utf-8")


def _encode_utf8(text: str) -> bytes:
    """Return the bytes of a text; an unpaired surrogate, which an id may contain, becomes an escape as in JSON."""
    return text.encode("utf-8", "backslashreplace")


def _json_lines(finished: FinishedRow, model_name: str) -> bytes:
    objects = [_openai_answer(finished, model_name)] if finished.row.is_openai else row_entries(finished)
    return b"".join(_encode_utf8(json.dumps(each, ensure_ascii=False) + "\n") for each in objects)


def _openai_answer(finished: FinishedRow, model_name: str) -> dict[str, Any]:
    """Return the answer in the layout of OpenAI's batches; `created` is 0, so that one seed gives one file."""
    row = finished.row
    answer = {"id": f"batch_req_{row.number}", "custom_id": row.id, "response": None, "error": None}
    if finished.error:
        return answer | {"error": {"code": "invalid_request", "message": finished.error}}
    body = {"id": f"cmpl-{row.number}", "object": "text_completion", "created": 0, "model": model_name}
    body |= {"choices": [_openai_choice(index, text) for index, text in enumerate(finished.texts)]}
    body |= {"usage": _openai_usage(finished.texts, row.requests)}
    return answer | {"response": {"status_code": 200, "request_id": f"req_{row.number}", "body": body}}


def _openai_choice(index: int, text: GeneratedText) -> dict[str, Any]:
    return {"index": index, "text": text.text, "logprobs": text.logprobs, "finish_reason": text.finish_reason}


def _openai_usage(texts: Sequence[GeneratedText], requests: Sequence[Any]) -> dict[str, int]:
    """Return the numbers of tokens; each prompt is counted once, however many texts it has."""
    has_new_prompt = [
        index == 0 or requests[index].prompt is not requests[index - 1].prompt for index in range(len(texts))
    ]
    prompt_tokens = sum(text.prompt_tokens for text, is_new in zip(texts, has_new_prompt) if is_new)
    completion_tokens = sum(text.completion_tokens for text in texts)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def _csv_line(values: Iterable[Any]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(values)  # it quotes cells with a character of its line end
    return _encode_utf8(line.getvalue().removesuffix("\r\n") + "\n")


def _text_lines(finished: FinishedRow, delimiter: str | None) -> bytes:
    r"""Return the texts, one per line with their own line ends as `\n`, or unchanged with a separator after each."""
    texts = [text.text for text in finished.texts] or [""]
    if delimiter is None:
        return _encode_utf8("".join(text.translate(ESCAPES) + "\n" for text in texts))
    return _encode_utf8("".join(text + separator(delimiter) for text in texts))
