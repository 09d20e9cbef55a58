"""Rows of the input and the texts that they request. An invalid row gets an error and stops no other row.

A row of JSON may have its own settings, by OpenAI's names: `{"prompt": ..., "max_tokens": 40, "temperature": 0}`. Or it
has all of them in `body`, next to a `custom_id`, as in OpenAI's batch files.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from gpt2.bulk.row_fields import describe_exception, shorten
from gpt2.errors import GPT2Error, UsageError
from gpt2.request import Prompt, Request, Sampling, require_integer

DEFAULT_PROMPT_COLUMN = "prompt"
LENGTH_KEYS = ("max_tokens", "length")  # OpenAI's name, and the name of the commands' flag
SAMPLING_KEYS = tuple(field.name for field in dataclasses.fields(Sampling))
# OpenAI's bodies may have these, and they are not supported here. Null and these values are ignored.
UNSUPPORTED_KEYS: dict[str, tuple[Any, ...]] = {
    "messages": ([],),
    "input": ("", []),
    "suffix": ("",),
    "echo": (False,),
    "best_of": (),
    "stream": (False,),
}
MAX_TEXTS_PER_ROW = 1024
# Rows without a seed share the job's. The first text of row N has the sample number N, and its other texts have this
# distance, so that no two texts of the job have the same random numbers.
SAMPLE_STEP = 2**40
TEMPLATE_FIELD = re.compile(r"\{(\w+)\}")
MAX_ID_DIGITS = 10  # of a key of logit_bias; no vocabulary has more ids
INFINITIES = (math.inf, -math.inf)
CHARACTERS_PER_TOKEN = 4  # a rough mean: the lengths of prompts are estimated before they are encoded


class InputRecord(NamedTuple):
    """A row as it was read.

    Attributes:
        number: The row's number, from 0.
        values: The row's values by the names of the columns.
        has_settings: Whether the values may include settings, as rows of JSON lines may.
        error: Reason why the row could not be read.
        content: The whole row as text if there is an error, else an empty string.
    """

    number: int
    values: Mapping[str, Any]
    has_settings: bool = False
    error: str = ""
    content: str = ""


@dataclasses.dataclass(frozen=True)
class RowDefaults:
    """The settings of the job, which hold for each row that does not have its own.

    Attributes:
        request: The request, without a prompt; its seed is the job's.
        n: Number of texts to generate for each prompt.
        logprobs: Number of most likely tokens to list with each token's log-probability; None for no
            log-probabilities.
        column: The column of the prompt.
        template: The template of the prompt, in which `{name}` is replaced with the value of that column; None for the
            prompt's column.
        id_column: The column of the row's id in the output; a row without it has its number as id.
    """

    request: Request
    n: int = 1
    logprobs: int | None = None
    column: str = DEFAULT_PROMPT_COLUMN
    template: str | None = None
    id_column: str = "id"


@dataclasses.dataclass(frozen=True)
class JobRow:
    """A row of a job.

    Attributes:
        number: The row's number in the input, from 0.
        id: The row's id in the output.
        requests: The requests of its texts; none if it has an error.
        logprobs: See `RowDefaults`.
        is_openai: Whether it has the layout of OpenAI's batch files, which its answer then has as well.
        error: Reason why its texts cannot be generated.
    """

    number: int
    id: Any
    requests: tuple[Request, ...] = ()
    logprobs: int | None = None
    is_openai: bool = False
    error: str = ""

    @property
    def cost(self) -> float:
        """The estimated number of tokens of its prompts and texts."""
        return sum(request.length + len(request.prompt or ()) / CHARACTERS_PER_TOKEN for request in self.requests)


def parse_row(record: InputRecord, defaults: RowDefaults) -> JobRow:
    """Return the texts that a row requests, or the row with an error if it is invalid."""
    is_openai = record.has_settings and "custom_id" in record.values
    row_id = _output_id(record.values.get("custom_id" if is_openai else defaults.id_column), record.number)
    try:
        return _parse_valid_row(record, defaults, row_id, is_openai)
    except GPT2Error as error:
        message = shorten(str(error))
    except Exception as error:  # whatever is wrong with one row must not end the job
        message = describe_exception(error)
    return JobRow(record.number, row_id, is_openai=is_openai, error=message)


def _output_id(value: Any, number: int) -> Any:
    """Return a row's id as the output can hold it: a JSON value unchanged, its number for null, otherwise its text."""
    if value is None:
        return number
    if isinstance(value, (str, int)):
        return value
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return repr(value) if isinstance(value, (list, dict)) else str(value)
    return value


def _parse_valid_row(record: InputRecord, defaults: RowDefaults, row_id: Any, is_openai: bool) -> JobRow:
    """Return a row without an error, or raise its error."""
    if record.error:
        raise UsageError(record.error)
    body = record.values
    if is_openai:
        if isinstance(row_id, (bool, list, dict)):
            raise UsageError(f"custom_id must be text, not {row_id!r}")
        body = record.values.get("body")  # type: ignore[assignment]
        defaults = dataclasses.replace(defaults, column=DEFAULT_PROMPT_COLUMN, template=None)
    if not isinstance(body, Mapping):
        raise UsageError(f"body must be an object, not {body!r}")
    prompts = _parse_prompts(body, defaults)
    settings = {key: value for key, value in body.items() if value is not None} if record.has_settings else {}
    logprobs = settings.get("logprobs", defaults.logprobs)
    requests = tuple(_parse_requests(prompts, settings, defaults, record.number, logprobs))
    return JobRow(record.number, row_id, requests, logprobs, is_openai)


def _parse_prompts(body: Mapping[str, Any], defaults: RowDefaults) -> Sequence[Prompt]:
    """Return the prompts of a row; it may have several only in a list, as OpenAI's bodies do."""
    if defaults.template is not None:
        return [_fill_template(defaults.template, body)]
    if defaults.column not in body:
        raise UsageError(f"the row has no {defaults.column!r}; it has {', '.join(map(str, body)) or 'nothing'}")
    prompt = body[defaults.column]
    is_list_of_prompts = isinstance(prompt, list) and prompt and not isinstance(prompt[0], int)
    prompts = prompt if is_list_of_prompts else [prompt]
    for each in prompts:
        _check_surrogates(each)
    return prompts


def _fill_template(template: str, values: Mapping[str, Any]) -> str:
    prompt = TEMPLATE_FIELD.sub(lambda field: _template_text(field[1], values), template)
    _check_surrogates(prompt)
    return prompt


def _template_text(name: str, values: Mapping[str, Any]) -> str:
    """Return a value as the template inserts it: text unchanged, numbers, true and false as in JSON, dates as text.

    Raises:
        UsageError: The row has no such value, or the value is null, NaN, infinity, bytes, a list or an object.
    """
    if name not in values:
        raise UsageError(f"the row has no {name!r}, which the template requires")
    value = values[name]
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, (list, tuple, Mapping, bytes)) or value != value or value in INFINITIES:
        shown = "null" if value is None else repr(value)
        raise UsageError(f"the template takes text, numbers, true or false for {name!r}, not {shown}")
    return json.dumps(value) if isinstance(value, (bool, int, float)) else str(value)


def _check_surrogates(prompt: Any) -> None:
    if isinstance(prompt, str):
        try:
            prompt.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UsageError(
                f"the prompt has an unpaired surrogate (half a character) at character {error.start}"
            ) from None


def _parse_requests(
    prompts: Sequence[Prompt], settings: Mapping[str, Any], defaults: RowDefaults, number: int, logprobs: Any
) -> Iterator[Request]:
    """Yield the requests of a row: n for each prompt."""
    n = require_integer("n", settings.get("n", defaults.n), 1)
    for key, ignored in UNSUPPORTED_KEYS.items():
        allowed = (settings.get("n", 1),) if key == "best_of" else ignored
        if key in settings and not any(type(settings[key]) is type(each) and settings[key] == each for each in allowed):
            raise UsageError(f"{key} is not supported in files of prompts; remove it")
    n_texts = n * len(prompts)
    if n_texts > MAX_TEXTS_PER_ROW:
        raise UsageError(f"a row may request at most {MAX_TEXTS_PER_ROW} texts, not {n_texts}")
    request = _apply_settings(settings, defaults.request)
    if logprobs is not None:
        request = dataclasses.replace(request, logprobs=max(1, require_integer("logprobs", logprobs)))
    has_seed = "seed" in settings
    own_sample = settings.get("sample", 0)
    require_integer("sample", own_sample)
    first_sample = own_sample if has_seed else number
    step = 1 if has_seed else SAMPLE_STEP
    for index in range(n_texts):
        yield dataclasses.replace(request, prompt=prompts[index // n], sample=first_sample + step * index)


def _apply_settings(settings: Mapping[str, Any], request: Request) -> Request:
    """Return the request with a row's own settings."""
    sampling = {key: settings[key] for key in SAMPLING_KEYS if key in settings}
    if "logit_bias" in sampling:
        sampling["logit_bias"] = dict(_parse_biases(sampling["logit_bias"]))
    changes: dict[str, Any] = {"sampling": dataclasses.replace(request.sampling, **sampling)}
    for key in LENGTH_KEYS:
        if key in settings:
            changes["length"] = require_integer(key, settings[key])
    if "seed" in settings:
        seed = settings["seed"]
        require_integer("seed", seed, -(2**63))
        changes["seed"] = seed % 2**64 if seed < 0 else seed
    if "stop" in settings:
        stop = settings["stop"]
        if not isinstance(stop, (str, list)):
            raise UsageError(f"stop must be a non-empty string or a list of such strings, not {stop!r}")
        changes["stop"] = stop
    if "ignore_eos" in settings:
        if not isinstance(settings["ignore_eos"], bool):
            raise UsageError(
                f"ignore_eos must be true or false, without quotation marks, not {settings['ignore_eos']!r}"
            )
        changes["end_of_text"] = not settings["ignore_eos"]
    return dataclasses.replace(request, **changes)


def _parse_biases(biases: Any) -> Iterator[tuple[int, float]]:
    """Yield pairs of an id and its bias; in JSON the ids are strings."""
    if not isinstance(biases, Mapping):
        raise UsageError(f"logit_bias must be an object whose keys are ids, not {biases!r}")
    for token, bias in biases.items():
        if not token.isascii() or not token.isdecimal() or len(token) > MAX_ID_DIGITS:
            raise UsageError(f"the keys of logit_bias must be ids, not {token!r}")
        yield int(token), bias
