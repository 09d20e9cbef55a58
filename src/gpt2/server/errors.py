"""Errors in the form of OpenAI's API: a status, and `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

RETRY_AFTER_SECONDS = 1  # sent with 429 and 503
MAX_QUOTED_CHARACTERS = 80  # of a value, in an error message
MAX_QUOTED_DIGITS = 20
ERROR_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """An error that is the response to a request."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        """Create an error.

        Args:
            status: The HTTP status.
            message: The explanation for people.
            param: The name of the wrong field.
            code: The name of the error, for programs.
        """
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that belong to the status."""
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {"Retry-After": str(RETRY_AFTER_SECONDS)} if self.status in (429, 503) else {}

    def body(self) -> dict[str, dict[str, str | None]]:
        """Return the JSON object that describes the error."""
        default_type = "invalid_request_error" if self.status < 500 else "server_error"
        error_type = ERROR_TYPES.get(self.status, default_type)
        return {"error": {"message": self.message, "type": error_type, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """Return the HTTP response."""
        return JSONResponse(self.body(), self.status, dict(self.headers))


def describe(value: Any) -> str:
    """Return a JSON value for an error message, in the words of JSON; long values are shortened.

    >>> describe("a"), describe(None), describe([1, 2]), describe(10**30)
    ("'a'", 'null', 'a list with 2 elements', '10000000000000000000...')
    """
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, list):
        return f"a list with {len(value)} element{'' if len(value) == 1 else 's'}"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, int) and abs(value) >= 10**MAX_QUOTED_DIGITS:
        return f"{'-' if value < 0 else ''}{str(abs(value))[:MAX_QUOTED_DIGITS]}..."
    return json.dumps(value)


def quote(text: str) -> str:
    """Return a text for an error message, in quotes; only the start of a long one."""
    return repr(text if len(text) <= MAX_QUOTED_CHARACTERS else f"{text[:MAX_QUOTED_CHARACTERS]}...")
