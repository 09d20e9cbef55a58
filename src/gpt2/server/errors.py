"""Errors in the form of OpenAI's API: a status, and `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse

RETRY_AFTER_SECONDS = 1  # sent with 429 and 503
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
