"""The files of the page, and the answer for paths that the server does not have."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from gpt2.server.errors import ApiError, quote

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
# The last parts of paths by which other servers offer what a path here offers.
OTHER_NAMES = {
    "completion": COMPLETIONS,
    "complete": COMPLETIONS,
    "generate": COMPLETIONS,
    "generate_stream": COMPLETIONS,
    "stream": COMPLETIONS,
    "infill": COMPLETIONS,
    "predict": COMPLETIONS,
    "chat": CHAT,
    "messages": CHAT,
    "responses": CHAT,
    "tags": "/v1/models",
    "model": "/v1/models",
    "encode": "/tokenize",
    "decode": "/detokenize",
    "ping": "/healthz",
    "livez": "/healthz",
    "readyz": "/healthz",
    "docs": "/openapi.json",
}
READING_METHODS = ("GET", "HEAD")
NO_CHAT_MESSAGE = (
    "GPT-2 is not a chat model: it continues a text and does not know roles. Use /v1/completions with a prompt that"
    " looks like a dialogue"
)
MIN_SIMILARITY = 0.7  # of a path to the one that was probably meant


class PageFiles(StaticFiles):
    """The files of the page; other paths get 404 with the path that was probably meant."""

    def __init__(self, directory: Path, api_paths: Collection[str]) -> None:
        """Serve the files of a directory.

        Args:
            directory: The page's directory.
            api_paths: The paths of the API, for suggestions.
        """
        super().__init__(directory=directory, html=True)
        self.api_paths = api_paths

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file.

        Raises:
            ApiError: The server does not have the path.
            HTTPException: The method is not allowed for a file.
        """
        try:
            response = await super().get_response(path, {**scope, "method": "GET"})
        except (HTTPException, ValueError, OSError) as error:  # older versions of Starlette check fewer names
            message = not_found_message(scope["path"], self.api_paths)
            raise ApiError(404, message, code="unknown_url") from error
        if scope["method"] not in READING_METHODS:
            raise HTTPException(405, headers={"Allow": ", ".join(READING_METHODS)})
        return response


def not_found_message(path: str, api_paths: Collection[str]) -> str:
    """Return the message for a path that the server does not have, with the path that was probably meant."""
    meant = probable_path(path, api_paths)
    if meant == CHAT:
        return NO_CHAT_MESSAGE
    advice = f"did you mean {meant}?" if meant else f"{COMPLETIONS} continues a text;"
    return f"this server has no path {quote(path)}; {advice} GET /openapi.json lists all paths"


def probable_path(path: str, api_paths: Collection[str]) -> str | None:
    """Return the path of the API that was probably meant; None if no path is similar.

    >>> probable_path("/completions", ["/v1/completions", "/v1/models"])
    '/v1/completions'
    """
    parts = path.lower().strip("/").split("/")
    for api_path in sorted(api_paths, key=len, reverse=True):  # chat/completions before completions
        n_parts = len(api_path.removeprefix("/v1").split("/")) - 1
        if api_path.endswith("/" + "/".join(parts[-n_parts:])):
            return api_path
    if parts[-1] in OTHER_NAMES:
        return OTHER_NAMES[parts[-1]]
    return next(iter(difflib.get_close_matches(path.lower(), api_paths, 1, MIN_SIMILARITY)), None)
