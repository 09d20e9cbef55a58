"""The application: which path is answered by what. FastAPI reads requests and describes them at /openapi.json."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpt2.errors import GPT2Error
from gpt2.server import insight, schema
from gpt2.server import request as requests
from gpt2.server.access import AccessLimits, RequestFilter
from gpt2.server.defaults import MOST_TOKENS, PATIENCE
from gpt2.server.errors import ApiError
from gpt2.server.metrics import Metrics
from gpt2.server.response import Answer, events
from gpt2.server.served_model import ServedModel
from gpt2.server.writing import encoded, unless_gone

PAGE = Path(__file__).with_name("page")
API = ("/v1", "/tokenize", "/detokenize", "/autocomplete", "/metrics", "/openapi.json", "/insight")  # that need a key
AUTOCOMPLETED, AMONG = 5, 8  # tokens, and top_k, as in the tutorial whose page asks for it
CHAT = (
    "GPT-2 is no chat model: it goes on with a text and knows no roles. Use /v1/completions, with a prompt that looks"
    " like a dialogue"
)
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schema.Error} for status in (400, 401, 403, 404, 405, 408, 413, 429, 503)
}
VERSION = "1"  # of the API
NO_OBJECT = "the body must be a JSON object"
GONE = 499  # nginx's status for a client that did not wait


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """most_tokens: new tokens of a text, at most. patience: seconds for a request from its beginning to its end."""

    limits: AccessLimits = AccessLimits()
    most_tokens: int = MOST_TOKENS
    patience: float = PATIENCE


class Api:
    """The answers, by the names of their paths."""

    def __init__(self, served: Sequence[ServedModel], options: ServerOptions) -> None:
        self.served, self.options = {one.name: one for one in served}, options
        self.metrics = Metrics({one.name: one.desk for one in served})

    def named(self, name: str | None) -> ServedModel:
        """Raises ApiError."""
        if name is None:
            return next(iter(self.served.values()))
        if name not in self.served:
            said = f"there is no model {name[:80]!r} here; there is {', '.join(self.served)}"
            raise ApiError(404, said, "model", "model_not_found")
        return self.served[name]

    async def completions(self, body: schema.CompletionRequest, request: Request) -> Response:
        """Goes on with a text."""
        one = self.named(body.model)
        plan = await encoded(requests.size(body), requests.plan, one.model, body, self.options.most_tokens)
        answer = Answer(one, plan, self.metrics, self.options.patience)
        if body.stream:
            parts = answer.parts(bool(body.stream_options and body.stream_options.include_usage))
            first = await parts.__anext__()  # so that what is refused has a status of its own
            return StreamingResponse(events(first, parts), media_type="text/event-stream")
        whole = await unless_gone(answer.whole(), request.is_disconnected)
        return Response(status_code=GONE) if whole is None else _json(whole)

    async def autocomplete(self, request: Request) -> Response:
        """A JSON string -> a JSON string: what comes after it, five tokens of it."""
        try:
            prompt = json.loads(await request.body())
        except (ValueError, RecursionError) as error:
            raise ApiError(400, 'the body must be a JSON string, such as "Once upon a time"') from error
        if not isinstance(prompt, str):
            raise ApiError(400, "the body must be a JSON string, not another value")
        body = schema.CompletionRequest.model_validate({"prompt": prompt, "max_tokens": AUTOCOMPLETED, "top_k": AMONG})
        one = self.named(None)
        plan = await encoded(requests.size(body), requests.plan, one.model, body, self.options.most_tokens)
        answer = Answer(one, plan, self.metrics, self.options.patience)
        whole = await unless_gone(answer.whole(), request.is_disconnected)
        return Response(status_code=GONE) if whole is None else JSONResponse(whole.choices[0].text)

    async def chat(self) -> Response:
        """Refused."""
        raise ApiError(404, CHAT, code="unknown_url")

    async def models(self) -> schema.Models:
        """What there is to choose from; the first is taken where none is named."""
        return schema.Models(data=[one.card() for one in self.served.values()])

    async def model(self, name: str) -> schema.ModelCard:
        return self.named(name).card()

    async def tokenize(self, body: schema.TokenizeRequest) -> schema.Tokens:
        """Text -> ids, and what each of them stands for."""
        model = self.named(body.model).model
        ids = await encoded(len(body.prompt), model.encoder.encode, body.prompt)
        pieces = [model.encoder.token_text(token) for token in ids]
        return schema.Tokens(count=len(ids), max_model_len=model.hparams.n_ctx, tokens=ids, pieces=pieces)

    async def detokenize(self, body: schema.DetokenizeRequest) -> schema.Detokenized:
        """Ids -> text."""
        try:
            return schema.Detokenized(prompt=self.named(body.model).model.encoder.decode(body.tokens))
        except GPT2Error as error:
            raise ApiError(400, str(error), "tokens") from error

    async def healthz(self) -> dict[str, str]:
        """Whether the server is there."""
        return {"status": "ok"}

    async def prometheus(self) -> Response:
        """Counters for Prometheus."""
        return Response(self.metrics.text(), media_type=self.metrics.content_type)


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")


def create_app(served: Sequence[ServedModel], options: ServerOptions = ServerOptions()) -> ASGIApp:
    """The application, whose desks the caller starts and closes."""
    api = Api(served, options)
    app = FastAPI(title="GPT-2", version=VERSION, docs_url=None, redoc_url=None, responses=ERRORS)
    string = {"application/json": {"schema": {"type": "string"}}}
    post, get = ["POST"], ["GET"]
    sse: dict[int | str, dict[str, Any]] = {200: {"model": schema.Completion, "content": {"text/event-stream": {}}}}
    app.add_api_route("/v1/completions", api.completions, methods=post, responses=sse)
    app.add_api_route("/v1/chat/completions", api.chat, methods=post)
    app.add_api_route("/v1/models", api.models, methods=get)
    app.add_api_route("/v1/models/{name:path}", api.model, methods=get)
    app.add_api_route("/tokenize", api.tokenize, methods=post)
    app.add_api_route("/detokenize", api.detokenize, methods=post)
    asked: dict[str, Any] = {"requestBody": {"required": True, "content": string}}
    answered: dict[int | str, dict[str, Any]] = {200: {"content": string}}
    app.add_api_route("/autocomplete", api.autocomplete, methods=post, openapi_extra=asked, responses=answered)
    app.add_api_route("/healthz", api.healthz, methods=get)
    app.add_api_route("/metrics", api.prometheus, methods=get, include_in_schema=False)
    app.include_router(insight.router(api.named, options.patience))
    app.mount("/", StaticFiles(directory=PAGE, html=True))
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _by_status)
    return _around(app, api, options.limits)


def _around(app: ASGIApp, api: Api, limits: AccessLimits) -> ASGIApp:
    inner: ASGIApp = Counted(app, api.metrics)
    if limits.origins:
        inner = CORSMiddleware(inner, limits.origins, allow_methods=["*"], allow_headers=["*"])
    return RequestFilter(inner, limits, API)


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


def _invalid(_: Request, error: Exception) -> Response:
    """What pydantic found, of several the first; of a value that may be of several kinds it finds one for each."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = [str(part) for part in first["loc"][1:]]
    if not where or first["type"] == "json_invalid":
        return ApiError(400, NO_OBJECT).response()
    field = schema.CompletionRequest.model_fields.get(where[0])
    about = f" ({field.description})" if field is not None and field.description else ""
    return ApiError(400, f"{where[0]}: {first['msg']}{about}", where[0]).response()


def _by_status(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = NO_OBJECT if error.status_code == 400 else str(error.detail)  # JSON nested too deep to be read
    wrong = ApiError(error.status_code, said, code="unknown_url" if error.status_code == 404 else None)
    answer = wrong.response()
    answer.headers.update(error.headers or {})
    return answer


class Counted:
    """Counts the answers by path and status; paths that are none are one."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = scope.get("route")
                self.metrics.requests.labels(getattr(route, "path", "other"), message["status"]).inc()
            await send(message)

        await self.app(scope, receive, counting)
