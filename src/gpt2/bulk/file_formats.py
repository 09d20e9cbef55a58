"""What the output looks like: a finished row -> JSON lines, csv, text, or columns of a table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from gpt2.bulk.batch_worker import Finished, Text
from gpt2.errors import UsageError

JSON_LINES, CSV, TEXT, PARQUET = "jsonl", "csv", "text", "parquet"
FORMS = (TEXT, JSON_LINES, CSV, PARQUET)
ENDINGS = {".jsonl": JSON_LINES, ".ndjson": JSON_LINES, ".csv": CSV, ".parquet": PARQUET}
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
ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r"})


class Form(NamedTuple):
    """head: what stands before all rows. body: what a row comes to."""

    head: bytes
    body: Callable[[Finished], bytes]
    is_ordered: bool  # whether the rows come in the input's order, rather than as they end


def form_of(form: str | None, name: str) -> str:
    """The one that is asked for, or that the name ends in; text for another one. Raises UsageError for no form."""
    if form is None:
        lower = name.lower().removesuffix(".gz")
        return next((found for ending, found in ENDINGS.items() if lower.endswith(ending)), TEXT)
    if form not in FORMS:
        raise UsageError(f"the form must be one of {', '.join(FORMS)}, not {form!r}")
    return form


def written_as(form: str, model_name: str, delimiter: str | None) -> Form:
    """A form of one file."""
    if form == JSON_LINES:
        return Form(b"", lambda finished: _json_lines(finished, model_name), False)
    if form == CSV:
        return Form(_csv_line(COLUMNS), lambda finished: b"".join(map(_csv_line, cells(finished))), True)
    return Form(b"", lambda finished: _text(finished, delimiter), True)


def between(delimiter: str) -> str:
    """How a delimiter stands between two texts: on a line of its own, unless it is made of line ends."""
    return delimiter if not delimiter.strip("\n") else f"\n{delimiter}\n"


def entries(finished: Finished) -> Iterator[dict[str, Any]]:
    """One for each text of a row, or one with an error."""
    row = finished.row
    if finished.error:
        yield {"id": row.id, "prompt": row.requests[0].prompt if row.requests else None, "error": finished.error}
    for index, (request, text) in enumerate(zip(row.requests, finished.texts)):
        entry = {"id": row.id, "index": index, "prompt": request.prompt, "text": text.text}
        entry |= {"prompt_tokens": text.prompt_tokens, "completion_tokens": text.tokens}
        entry |= {"finish_reason": text.finish_reason, "seed": request.seed, "sample": request.sample}
        yield entry if text.logprobs is None else entry | {"logprobs": text.logprobs}


def cells(finished: Finished) -> Iterator[Iterator[Any]]:
    """The values of COLUMNS, of each text of a row."""
    for entry in entries(finished):
        if "logprobs" in entry:
            entry["logprobs"] = json.dumps(entry["logprobs"], ensure_ascii=False)
        yield (_plain(entry.get(name), kind) for name, kind in COLUMNS.items())


def _plain(value: Any, kind: type) -> Any:
    return value if value is None or isinstance(value, kind) else json.dumps(value, ensure_ascii=False)


def _encoded(text: str) -> bytes:
    """An unpaired surrogate, which an id may have, is written as JSON and Python write it."""
    return text.encode("utf-8", "backslashreplace")


def _json_lines(finished: Finished, model_name: str) -> bytes:
    found = [_answer(finished, model_name)] if finished.row.is_openai else entries(finished)
    return b"".join(_encoded(json.dumps(entry, ensure_ascii=False) + "\n") for entry in found)


def _answer(finished: Finished, model_name: str) -> dict[str, Any]:
    """As OpenAI's batches answer; `created` is 0, so that one seed gives one file."""
    row = finished.row
    answer = {"id": f"batch_req_{row.number}", "custom_id": row.id, "response": None, "error": None}
    if finished.error:
        return answer | {"error": {"code": "invalid_request", "message": finished.error}}
    body = {"id": f"cmpl-{row.number}", "object": "text_completion", "created": 0, "model": model_name}
    body |= {"choices": [_choice(index, text) for index, text in enumerate(finished.texts)]}
    body |= {"usage": _usage(finished.texts, row.requests)}
    return answer | {"response": {"status_code": 200, "request_id": f"req_{row.number}", "body": body}}


def _choice(index: int, text: Text) -> dict[str, Any]:
    return {"index": index, "text": text.text, "logprobs": text.logprobs, "finish_reason": text.finish_reason}


def _usage(texts: Sequence[Text], requests: Sequence[Any]) -> dict[str, int]:
    """Each prompt's tokens are counted once."""
    new = [place == 0 or requests[place].prompt is not requests[place - 1].prompt for place in range(len(texts))]
    read = sum(text.prompt_tokens for text, is_new in zip(texts, new) if is_new)
    written = sum(text.tokens for text in texts)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _csv_line(values: Iterable[Any]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return _encoded(line.getvalue())


def _text(finished: Finished, delimiter: str | None) -> bytes:
    """The texts one a line, their own line ends as `\\n`, or as they are with a delimiter after each."""
    texts = [text.text for text in finished.texts] or [""]
    if delimiter is None:
        return _encoded("".join(text.translate(ESCAPES) + "\n" for text in texts))
    return _encoded("".join(text + between(delimiter) for text in texts))
