"""A row of the input -> the texts that it asks for. What is wrong with a row becomes its error, and stops no other.

A row of JSON may have settings of its own, by OpenAI's names: `{"prompt": ..., "max_tokens": 40, "temperature": 0}`, or
all of them in `body` beside a `custom_id`, as in OpenAI's batch files.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from gpt2.errors import UsageError
from gpt2.request import Prompt, Request, Sampling, require_integer

PROMPT = "prompt"  # where it is, if nothing else is said
LENGTHS = ("max_tokens", "length")  # the names of one thing: OpenAI's, and that of the commands' flag
SAMPLING = tuple(field.name for field in dataclasses.fields(Sampling))
# What OpenAI's bodies may ask for and is not done here; null, false and what means nothing are as good as left out.
REFUSED = ("messages", "input", "suffix", "echo", "best_of", "stream")
MOST_TEXTS = 1024  # of a row
BESIDE = 2**40  # from the number of one text of a row to that of the next, where a row's own number names the first
FIELD = re.compile(r"\{(\w+)\}")
CHARACTERS = 4  # of a token, roughly: prompts are measured before they are encoded


class Record(NamedTuple):
    """A row as it was read. settings: where it may have some of its own. error: why it could not be read."""

    number: int  # from 0
    values: Mapping[str, Any]
    settings: bool = False
    error: str = ""


@dataclasses.dataclass(frozen=True)
class RowDefaults:
    """What holds for each row that does not say otherwise.

    request: without a prompt; its seed is the job's. logprobs: how many of the likeliest tokens are told beside each
    one's log-probability; None for nothing. column: the prompt's. template: what the prompt is made of, each `{name}`
    standing for what the row has of this name. id_column: what names a row in the output, instead of its number.
    """

    request: Request
    n: int = 1
    logprobs: int | None = None
    column: str = PROMPT
    template: str | None = None
    id_column: str = "id"


@dataclasses.dataclass(frozen=True)
class JobRow:
    """Texts that are to be written, and what they are told by; none, and an error, if they cannot be."""

    number: int
    id: Any
    requests: tuple[Request, ...] = ()
    logprobs: int | None = None
    is_openai: bool = False
    error: str = ""

    @property
    def cost(self) -> float:
        """Tokens, more or less."""
        return sum(request.length + len(request.prompt or ()) / CHARACTERS for request in self.requests)


def parsed(record: Record, asked: RowDefaults) -> JobRow:
    """What a row asks for."""
    values = record.values
    is_openai = record.settings and "custom_id" in values
    name = values.get("custom_id" if is_openai else asked.id_column, record.number)
    try:
        if record.error:
            raise UsageError(record.error)
        settings = values.get("body") if is_openai else values
        if not isinstance(settings, Mapping):
            raise UsageError(f"body must be an object, not {settings!r}")
        if is_openai:
            asked = dataclasses.replace(asked, column=PROMPT, template=None)
        prompts = _prompts(settings, asked)
        own = {key: value for key, value in settings.items() if value is not None} if record.settings else {}
        logprobs = own.get("logprobs", asked.logprobs)
        requests = tuple(_requests(prompts, own, asked, record.number, logprobs))
    except UsageError as error:
        return JobRow(record.number, name, is_openai=is_openai, error=str(error))
    return JobRow(record.number, name, requests, logprobs, is_openai)


def _prompts(settings: Mapping[str, Any], asked: RowDefaults) -> Sequence[Prompt]:
    """One, or several as OpenAI's bodies may have."""
    if asked.template is not None:
        return [_filled(asked.template, settings)]
    if asked.column not in settings:
        raise UsageError(f"there is no {asked.column!r} in it; it has {', '.join(map(str, settings)) or 'nothing'}")
    prompt = settings[asked.column]
    several = isinstance(prompt, list) and prompt and not isinstance(prompt[0], int)
    prompts = prompt if several else [prompt]
    for one in prompts:
        _check_characters(one)
    return prompts


def _filled(template: str, values: Mapping[str, Any]) -> str:
    def value(found: re.Match[str]) -> str:
        if found[1] not in values:
            raise UsageError(f"there is no {found[1]!r} in it, which the template has")
        return str(values[found[1]])

    filled = FIELD.sub(value, template)
    _check_characters(filled)
    return filled


def _check_characters(prompt: Any) -> None:
    if isinstance(prompt, str):
        try:
            prompt.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UsageError(f"half a character (an unpaired surrogate) at {error.start} of the prompt") from None


def _requests(
    prompts: Sequence[Prompt], own: Mapping[str, Any], asked: RowDefaults, number: int, logprobs: Any
) -> Iterator[Request]:
    for name in REFUSED:
        if own.get(name) and not (name == "best_of" and own[name] == own.get("n", 1)):
            raise UsageError(f"{name} is not for files of prompts")
    n = require_integer("n", own.get("n", asked.n), 1)
    if n * len(prompts) > MOST_TEXTS:
        raise UsageError(f"a row may have {MOST_TEXTS} texts at most, not {n * len(prompts)}")
    request = _own(own, asked.request)
    if logprobs is not None:
        request = dataclasses.replace(request, logprobs=max(1, require_integer("logprobs", logprobs)))
    first, step = (own.get("sample", 0), 1) if "seed" in own else (number, BESIDE)
    require_integer("sample", first)
    for place in range(n * len(prompts)):
        yield dataclasses.replace(request, prompt=prompts[place // n], sample=first + step * place)


def _own(own: Mapping[str, Any], request: Request) -> Request:
    """The request with the row's own settings."""
    sampling = {name: own[name] for name in SAMPLING if name in own}
    if "logit_bias" in sampling:
        sampling["logit_bias"] = dict(_biases(sampling["logit_bias"]))
    changes: dict[str, Any] = {"sampling": dataclasses.replace(request.sampling, **sampling)}
    for name in LENGTHS:
        if name in own:
            changes["length"] = own[name]
    if "seed" in own:
        require_integer("seed", own["seed"], -(2**63))
        changes["seed"] = own["seed"] % 2**64 if own["seed"] < 0 else own["seed"]
    if "stop" in own:
        if not isinstance(own["stop"], (str, list)):
            raise UsageError(f"stop must be a non-empty string, or several of them, not {own['stop']!r}")
        changes["stop"] = own["stop"]
    if "ignore_eos" in own:
        changes["end_of_text"] = not own["ignore_eos"]
    return dataclasses.replace(request, **changes)


def _biases(biases: Any) -> Iterator[tuple[int, float]]:
    """JSON's keys are text."""
    if not isinstance(biases, Mapping):
        raise UsageError(f"logit_bias must be an object of ids, not {biases!r}")
    for token, bias in biases.items():
        if not token.isascii() or not token.isdecimal():
            raise UsageError(f"logit_bias has ids, not {token[:40]!r}")
        yield int(token), bias
