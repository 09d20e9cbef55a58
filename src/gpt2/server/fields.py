"""Types of fields in requests, with error messages that name the wrong element and what is allowed.

Without them, pydantic would report the first of the types that a field allows, whatever was given. Validation stops at
the first wrong element: a body could contain 300,000 of them, and the response names one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from gpt2.request import SEED_LIMIT
from gpt2.server.errors import describe

MAX_PROMPTS = 128  # in one request
MAX_STOP_STRINGS = 64
MAX_BIASES = 1 << 16  # tokens with a bias
MIN_SEED = -(2**63)  # clients send seeds of 64 bits, with or without a sign
CUSTOM_ERROR = "gpt2"  # the type of errors whose message needs no addition


def _field_error(message: str) -> PydanticCustomError:
    return PydanticCustomError(CUSTOM_ERROR, "{message}", {"message": message})


def _explained_by(explain: Callable[[Any], str]) -> WrapValidator:
    """Return a validator that replaces pydantic's message by the one of a function that gets the wrong value."""

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            raise _field_error(explain(value)) from error

    return WrapValidator(validate)


def _explain_prompt(value: Any) -> str:
    allowed = "must be text, token ids, or a list of either"
    if not isinstance(value, list):
        return f"{allowed}, not {describe(value)}"
    if not value:
        return f"{allowed}, not an empty list; omit it to start a new text"
    if isinstance(value[0], (str, list)) and len(value) > MAX_PROMPTS:
        return f"must have at most {MAX_PROMPTS} prompts, not {len(value)}; send several requests"
    problem = next(_problems_of_ids(value) if _is_id(value[0]) else _problems_of_prompts(value), None)
    return f"{allowed}; {problem}" if problem else allowed


def _explain_one_prompt(value: Any) -> str:
    allowed = "must be text or token ids"
    if not isinstance(value, list):
        return f"{allowed}, not {describe(value)}"
    if not value:
        return f"{allowed}, not an empty list"
    return f"{allowed}; {next(_problems_of_ids(value), '')}"


def _explain_ids(value: Any) -> str:
    allowed = "must be a list of token ids"
    if not isinstance(value, list):
        return f"{allowed}, not {describe(value)}"
    return f"{allowed}; {next(_problems_of_ids(value), '')}"


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _problems_of_ids(ids: list[Any]) -> Iterator[str]:
    for index, value in enumerate(ids):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            yield f"element {index} must be a token id, which is a whole number of at least 0, not {describe(value)}"


def _problems_of_prompts(prompts: list[Any]) -> Iterator[str]:
    expected = list if isinstance(prompts[0], list) else str
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, expected):
            kind = "token ids" if expected is list else "text"
            yield f"element {index} must be {kind}{' as the first one' if index else ''}, not {describe(prompt)}"
        elif not prompt and expected is list:
            yield f"element {index} is an empty list; give at least one token id"
        elif isinstance(prompt, list):
            yield from (f"in element {index}, {problem}" for problem in _problems_of_ids(prompt))


def _explain_stop(value: Any) -> str:
    allowed = f"must be a string or a list of at most {MAX_STOP_STRINGS} strings"
    if not isinstance(value, list):
        return f"{allowed}, not {describe(value)}"
    if len(value) > MAX_STOP_STRINGS:
        return f"{allowed}, not of {len(value)}"
    index = next(index for index, element in enumerate(value) if not isinstance(element, str))
    return f"{allowed}; element {index} is {describe(value[index])}"


def _without_empty_strings(stop: str | list[str]) -> list[str]:
    return [string for string in ([stop] if isinstance(stop, str) else stop) if string]


def _reject_boolean(value: Any) -> Any:
    """Reject true and false, which pydantic takes for 1 and 0."""
    if isinstance(value, bool):
        raise _field_error(f"must be a number, not {describe(value)}")
    return value


def _reduce_to_wrong_bias(biases: Any) -> Any:
    """Return the first wrong bias alone if there is one, else all biases, which must not be too many."""
    if not isinstance(biases, dict):
        return biases
    if len(biases) > MAX_BIASES:
        raise _field_error(f"must have at most {MAX_BIASES} tokens, not {len(biases)}")
    for token, bias in biases.items():
        try:
            BIAS_VALIDATOR.validate_python(bias)
        except ValidationError:
            return {token: bias}
    return biases


def _check_seed(seed: int) -> int:
    """Check the range of a seed, whose limits pydantic would round to floats in its message."""
    if not MIN_SEED <= seed < SEED_LIMIT:
        raise _field_error(f"must be from {MIN_SEED} to {SEED_LIMIT - 1}, not {describe(seed)}")
    return seed


Text = Annotated[str, Field(strict=True)]
TokenIds = Annotated[list[Annotated[int, Field(strict=True, ge=0)]], Field(fail_fast=True, min_length=1)]
Prompts = Annotated[
    Text
    | TokenIds
    | Annotated[list[Text], Field(fail_fast=True, min_length=1, max_length=MAX_PROMPTS)]
    | Annotated[list[TokenIds], Field(fail_fast=True, min_length=1, max_length=MAX_PROMPTS)]
    | None,
    _explained_by(_explain_prompt),
]
OnePrompt = Annotated[Text | TokenIds, _explained_by(_explain_one_prompt)]
IdsToDecode = Annotated[
    list[Annotated[int, Field(strict=True, ge=0)]], Field(fail_fast=True), _explained_by(_explain_ids)
]
StopField = Annotated[
    Text | Annotated[list[Text], Field(fail_fast=True, max_length=MAX_STOP_STRINGS)],
    _explained_by(_explain_stop),
    AfterValidator(_without_empty_strings),
]
Integer = Annotated[int, BeforeValidator(_reject_boolean)]
Seed = Annotated[Integer, AfterValidator(_check_seed)]
Number = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_reject_boolean)]
Bias = Annotated[Number, Field(ge=-100, le=100)]
BIAS_VALIDATOR: TypeAdapter[float] = TypeAdapter(Bias)
Biases = Annotated[dict[str, Bias], BeforeValidator(_reduce_to_wrong_bias), Field(max_length=MAX_BIASES)]
