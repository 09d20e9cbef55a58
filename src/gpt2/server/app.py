"""The application: its routes, the small handlers, and errors as responses.

FastAPI parses the requests and describes them at /openapi.json.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gpt2.errors import GPT2Error
from gpt2.server import fields, insight, schema
from gpt2.server.access import AccessLimits, CrossOriginHeaders, RequestCounter, RequestFilter, SecurityHeaders
from gpt2.server.defaults import MAX_TOKENS, TIMEOUT_SECONDS
from gpt2.server.errors import ApiError, describe, quote
from gpt2.server.json_body import JsonRoute
from gpt2.server.metrics import Metrics
from gpt2.server.offload import render_json, run_offloaded
from gpt2.server.page_files import CHAT, COMPLETIONS, NO_CHAT_MESSAGE, PageFiles
from gpt2.server.request import check_ids
from gpt2.server.response import CompletionApi
from gpt2.server.served_model import ServedModel, ServedModels
from gpt2.text_batch import Model

PAGE_DIR = Path(__file__).with_name("page")
API_VERSION = "1"
PROTECTED_PATHS = ("/v1", "/tokenize", "/detokenize", "/autocomplete", "/metrics", "/openapi.json", "/insight")
HEALTH_PATHS = ("/healthz", "/health")
EMPTY_BODY_MESSAGE = "the body must be a JSON object, but it is empty"
STRING_CONTENT = {"application/json": {"schema": {"type": "string"}}}
ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": schema.ErrorResponse} for status in (400, 401, 403, 404, 405, 408, 413, 429, 503)
}
COMPLETION_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": schema.CompletionResponse, "content": {"text/event-stream": {}}}
}


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """Options of the application.

    Attributes:
        limits: Limits on the accepted requests.
        max_tokens: Maximum number of new tokens of one text.
        timeout: Seconds within which a request must be answered.
    """

    limits: AccessLimits = AccessLimits()
    max_tokens: int = MAX_TOKENS
    timeout: float = TIMEOUT_SECONDS


class UtilityApi:
    """The handlers that do not generate text."""

    def __init__(self, models: ServedModels, metrics: Metrics) -> None:
        """Create the handlers."""
        self.served_models = models
        self.metrics = metrics

    async def chat(self) -> Response:
        """Reject chats, because GPT-2 is not a chat model."""
        raise ApiError(404, NO_CHAT_MESSAGE, code="unknown_url")

    async def models(self) -> schema.ModelList:
        """List the models; the first one is the default."""
        return schema.ModelList(data=[served.card for served in self.served_models.values()])

    async def model(self, name: str) -> schema.ModelCard:
        """Describe a model."""
        return self.served_models[name].card

    async def tokenize(self, body: schema.TokenizeRequest) -> Response:
        """Return the token ids of a text, and the text of each token."""
        return await run_offloaded(len(body.prompt), _tokenize, self.served_models[body.model].model, body.prompt)

    async def detokenize(self, body: schema.DetokenizeRequest) -> Response:
        """Return the text of token ids."""
        model = self.served_models[body.model].model
        return await run_offloaded(len(body.tokens), _detokenize, model, body.tokens)

    async def healthz(self) -> dict[str, str]:
        """Confirm that the server is running."""
        return {"status": "ok"}

    async def prometheus(self) -> Response:
        """Return the metrics for Prometheus."""
        return Response(self.metrics.text(), media_type=self.metrics.content_type)


def create_app(models: Iterable[ServedModel], options: ServerOptions = ServerOptions()) -> ASGIApp:
    """Return the application.

    Args:
        models: The models, whose schedulers the caller starts and closes; the first one is the default.
        options: The application's options.
    """
    served_models = ServedModels(models)
    metrics = Metrics({served.name: served.scheduler for served in served_models.values()})
    app = FastAPI(title="GPT-2", version=API_VERSION, docs_url=None, redoc_url=None, responses=ERROR_RESPONSES)
    app.router.redirect_slashes = False  # the suggestion in the error is clearer, and clients do not repeat a POST
    app.router.route_class = JsonRoute
    _add_completion_routes(app, CompletionApi(served_models, metrics, options.max_tokens, options.timeout))
    _add_utility_routes(app, UtilityApi(served_models, metrics))
    insight.add_routes(app, served_models, options.timeout)
    # A default, not a mount: a mount would answer for paths of the API that are called with another method.
    app.router.default = PageFiles(PAGE_DIR, _paths(app))
    app.add_exception_handler(ApiError, _respond_to_api_error)
    app.add_exception_handler(RequestValidationError, _respond_to_invalid_request)
    app.add_exception_handler(HTTPException, _respond_to_http_error)
    app.add_exception_handler(Exception, _respond_to_exception)
    wrapped: ASGIApp = RequestCounter(app, metrics.responses)
    wrapped = RequestFilter(wrapped, options.limits, PROTECTED_PATHS, HEALTH_PATHS)
    return SecurityHeaders(CrossOriginHeaders(wrapped, options.limits.origins))


def _paths(app: FastAPI) -> list[str]:
    """Return the paths of the API that have no parameters."""
    return [route.path for route in app.routes if isinstance(route, Route) and "{" not in route.path]


def _add_completion_routes(app: FastAPI, api: CompletionApi) -> None:
    app.add_api_route(COMPLETIONS, api.completions, methods=["POST"], responses=COMPLETION_RESPONSES)
    app.add_api_route(
        "/autocomplete",
        api.autocomplete,
        methods=["POST"],
        openapi_extra={"requestBody": {"required": True, "content": STRING_CONTENT}},
        responses={200: {"content": STRING_CONTENT}},
    )


def _add_utility_routes(app: FastAPI, api: UtilityApi) -> None:
    app.add_api_route(CHAT, api.chat, methods=["POST"])
    app.add_api_route("/v1/models", api.models, methods=["GET"])
    app.add_api_route("/v1/models/{name:path}", api.model, methods=["GET"])
    app.add_api_route("/tokenize", api.tokenize, methods=["POST"], response_model=schema.TokenizeResponse)
    app.add_api_route("/detokenize", api.detokenize, methods=["POST"], response_model=schema.DetokenizeResponse)
    for path in HEALTH_PATHS:
        app.add_api_route(path, api.healthz, methods=["GET"])
        app.add_api_route(path, api.healthz, methods=["HEAD"], include_in_schema=False)  # monitors use it
    app.add_api_route("/metrics", api.prometheus, methods=["GET"], include_in_schema=False)


def _tokenize(model: Model, text: str) -> Response:
    try:
        ids = model.encoder.encode(text)
    except GPT2Error as error:
        raise ApiError(400, str(error), "prompt") from error
    piece_of = {token: model.encoder.token_text(token) for token in set(ids)}
    pieces = [piece_of[token] for token in ids]
    response = schema.TokenizeResponse.model_construct(
        count=len(ids), max_model_len=model.hparams.n_ctx, tokens=ids, pieces=pieces
    )
    return render_json(response)


def _detokenize(model: Model, tokens: Sequence[int]) -> Response:
    check_ids(tokens, model.hparams.n_vocab, "tokens")
    try:
        return render_json(schema.DetokenizeResponse(prompt=model.encoder.decode(tokens)))
    except GPT2Error as error:
        raise ApiError(400, str(error), "tokens") from error


def _respond_to_api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


def _respond_to_exception(_: Request, __: Exception) -> Response:
    return ApiError(500, "an unexpected exception; see the server's log, and report it").response()


def _respond_to_invalid_request(_: Request, error: Exception) -> Response:
    """Report the first of pydantic's errors."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    path = [str(part) for part in first["loc"][1:]]
    if not path:
        return ApiError(400, EMPTY_BODY_MESSAGE).response()
    name = quote(".".join(path))[1:-1]
    if first["type"] == "missing":
        message = f"the field {name} is missing"
    elif first["type"] == fields.CUSTOM_ERROR:
        message = f"{name} {first['msg']}"
    else:
        message = f"{name}: {first['msg']}, not {describe(first['input'])}"
    return ApiError(400, message, path[0]).response()


def _respond_to_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = error.headers or {}
    message = str(error.detail)
    if error.status_code == 405:
        message = f"{quote(request.url.path)[1:-1]} does not allow {request.method}; use {headers.get('Allow')}"
    response = ApiError(error.status_code, message).response()
    response.headers.update(headers)
    return response
