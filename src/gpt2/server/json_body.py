"""JSON in the bodies of requests.

A body is JSON whatever its Content-Type says, as in other servers: `curl -d` sends another type, and many clients send
none. This opens nothing to pages of other sites, because `access.RequestFilter` rejects their requests by the Origin
header, not by the Content-Type. Large bodies are parsed and validated in another thread.
"""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from gpt2.server.errors import describe
from gpt2.server.offload import run_offloaded

T = TypeVar("T")
BODY_PARAMETER = "body"  # of the handlers that take a model
MAX_INTEGER_DIGITS = 300  # as many as a float can hold; Python rejects strings of more than 4300 with an exception
MAX_LISTS = 10_000  # lists and objects in a body; to parse 300,000 of them blocks all threads for 0.1 seconds
STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)  # an unterminated one ends with the text
SURROGATE_ESCAPE = re.compile(r"\\ud[89a-f]", re.IGNORECASE)


class JsonRoute(APIRoute):
    """A route whose body, if it has one, is a JSON object."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of a request."""
        handle = super().get_route_handler()
        model = typing.get_type_hints(self.endpoint).get(BODY_PARAMETER)

        async def handle_json(request: Request) -> Response:
            parsed = _ParsedRequest(_with_json_type(request), request.receive)
            body = b"" if model is None else await parsed.body()
            if body and model is not None:
                parsed.value = await run_offloaded(len(body), _parse_model, body, model)
            return await handle(parsed)

        return handle_json


class _ParsedRequest(Request):
    """A request whose body is an object of the handler's model already, which FastAPI does not validate again."""

    value: BaseModel

    async def json(self) -> Any:
        """Return the body."""
        return self.value


def _parse_model(body: bytes, model: type[BaseModel]) -> BaseModel:
    value = parse_body(body, dict, "a JSON object")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in errors]) from error


def _with_json_type(request: Request) -> dict[str, Any]:
    headers = [(name, value) for name, value in request.scope["headers"] if name.lower() != b"content-type"]
    return {**request.scope, "headers": [*headers, (b"content-type", b"application/json")]}


def parse_body(body: bytes, expected: type[T], name: str) -> T:
    """Return the value of a body.

    Args:
        body: The body.
        expected: The type of the value.
        name: The type's name for the error message.

    Raises:
        HTTPException: The body is not JSON of this type. FastAPI passes on this exception only, not ApiError.
    """
    try:
        value = parse_json(body)
    except ValueError as error:
        raise HTTPException(400, f"the body must be {name}, but {error}") from error
    if not isinstance(value, expected):
        raise HTTPException(400, f"the body must be {name}, not {describe(value)}")
    return value


def parse_json(body: bytes) -> Any:
    r"""Return the value of JSON in UTF-8, or in UTF-16 or UTF-32 as Python's `json` detects it.

    A lone surrogate, half of a character that a program has cut apart, becomes U+FFFD. Integers beyond
    MAX_INTEGER_DIGITS are cut to this number of digits: they are out of any field's range all the same.

    >>> parse_json(b'{"a": "x\\udfff"}')
    {'a': 'x�'}

    Raises:
        ValueError: The body is not JSON. The message is a clause, such as "it is empty".
    """
    if not body.strip():
        raise ValueError("it is empty")
    try:
        text = body.decode(json.detect_encoding(body))
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not {error.encoding.upper()}: {error.reason} at byte {error.start}") from error
    _check_lists(text)
    try:
        value = json.loads(text, parse_int=_parse_integer)
        return _replace_surrogates(value) if SURROGATE_ESCAPE.search(text) else value
    except json.JSONDecodeError as error:
        message = error.msg.removesuffix(" at")
        raise ValueError(f"it is not JSON: {message} at line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("its lists and objects are nested too deeply") from error


def _check_lists(text: str) -> None:
    """Check the number of lists and objects; brackets in strings do not count.

    Raises:
        ValueError: They are too many.
    """
    n_lists = text.count("[") + text.count("{")
    if n_lists > MAX_LISTS:
        outside_strings = STRING.sub("", text)
        n_lists = outside_strings.count("[") + outside_strings.count("{")
    if n_lists > MAX_LISTS:
        raise ValueError(f"it has {n_lists} lists and objects, and {MAX_LISTS} are allowed")


def _parse_integer(digits: str) -> int:
    return int(digits[:MAX_INTEGER_DIGITS])


def _replace_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_replace_surrogates(element) for element in value]
    if isinstance(value, dict):
        return {_replace_surrogates(key): _replace_surrogates(element) for key, element in value.items()}
    return value
