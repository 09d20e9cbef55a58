"""What the page shows of a model: the likeliest next tokens, how likely those of a text were, what happens inside."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from gpt2 import generate
from gpt2.engine.token_sequence import TokenChoice, finite_or_none, truncate_to_window
from gpt2.errors import GPT2Error
from gpt2.generate import TextChunk, encode_prompt, prepare
from gpt2.request import Sampling
from gpt2.server import insight_schema as schema
from gpt2.server.errors import ApiError
from gpt2.server.introspection import Layers
from gpt2.server.served_model import ServedModel
from gpt2.server.writing import encoded, unless_gone, written
from gpt2.text.vocabulary import Vocabulary

T = TypeVar("T", bound=BaseModel)
GREEDY = Sampling(temperature=0)
GONE = 499  # nginx's status for a client that did not wait


def router(named: Callable[[str | None], ServedModel], patience: float) -> APIRouter:
    """named: which model is asked, raises ApiError. patience: seconds for a request."""
    insight, routes = Insight(named, patience), APIRouter(prefix="/insight")
    routes.add_api_route("/next", insight.next, methods=["POST"], response_model=schema.Next)
    routes.add_api_route("/scores", insight.scores, methods=["POST"], response_model=schema.Scores)
    routes.add_api_route("/layers", insight.layers, methods=["POST"], response_model=schema.Layers)
    return routes


class Insight:
    """The answers, by the names of their paths."""

    def __init__(self, named: Callable[[str | None], ServedModel], patience: float) -> None:
        self.named, self.patience, self.inside = named, patience, Layers()

    async def next(self, body: schema.NextRequest, request: Request) -> Response:
        """The likeliest next tokens."""
        return await _unless_gone(self._next(body), request)

    async def scores(self, body: schema.ScoresRequest, request: Request) -> Response:
        """How likely each token of a text was, and what else might have stood there."""
        return await _unless_gone(self._scores(body), request)

    async def layers(self, body: schema.LayersRequest, request: Request) -> Response:
        """What each layer makes of a text."""
        return await _unless_gone(self._layers(body), request)

    async def _next(self, body: schema.NextRequest) -> schema.Next:
        served = self.named(body.model)
        ids = await encoded(len(body.prompt), _ids, served, body.prompt)
        piece = await self._first(served, generate.Request(None, 1, GREEDY, logprobs=body.top), ids)
        return schema.Next(likeliest=_Shown(served.model.encoder).likely(piece.token))

    async def _scores(self, body: schema.ScoresRequest) -> schema.Scores:
        served = self.named(body.model)
        encoder, whole = served.model.encoder, await encoded(len(body.prompt), _ids, served, body.prompt)
        ids = truncate_to_window(whole, served.model.hparams.n_ctx)
        piece = await self._first(served, generate.Request(None, 1, GREEDY, logprobs=body.top, echo=True), ids)
        shown = _Shown(encoder)
        tokens: list[schema.Scored] = []
        if body.prompt:
            texts = _texts(encoder, whole, len(whole) - len(ids))
            tokens = [shown.scored(*each) for each in zip(ids, texts, piece.prompt)]
        return schema.Scores(skipped=len(whole) - len(ids), tokens=tokens, next=shown.likely(piece.token))

    async def _first(self, served: ServedModel, request: generate.Request, ids: Sequence[int]) -> TextChunk:
        async with written(served.desk, [prepare(request, ids)], self.patience, at_once=True) as pieces:
            async for some in pieces:
                for piece in some:
                    return piece
        raise AssertionError("a text that was asked for has a piece")

    async def _layers(self, body: schema.LayersRequest) -> schema.Layers:
        served = self.named(body.model)
        if not body.prompt:
            raise ApiError(400, "there is no text to look into", "prompt")
        encoder, whole = served.model.encoder, await encoded(len(body.prompt), _ids, served, body.prompt)
        ids = self.inside.kept(served, whole)
        inside = await self.inside.look(served, ids)
        skipped = len(whole) - len(ids)
        texts = _texts(encoder, whole, skipped)
        tokens = [schema.Token(id=i, piece=encoder.token_text(i), text=text) for i, text in zip(ids, texts)]
        return schema.Layers(
            skipped=skipped,
            tokens=tokens,
            n_head=served.model.hparams.n_head,
            attention=inside.attention,
            guesses=inside.guesses,
            logits=inside.logits,
            likeliest=inside.likeliest,
            pieces={i: encoder.token_text(i) for i in sorted(inside.ids())},
        )


async def _unless_gone(work: Awaitable[T], request: Request) -> Response:
    whole = await unless_gone(work, request.is_disconnected)
    if whole is None:
        return Response(status_code=GONE)
    return Response(whole.model_dump_json(), media_type="application/json")


def _ids(served: ServedModel, prompt: str | Sequence[int]) -> Sequence[int]:
    """Raises ApiError."""
    n_vocab = served.model.hparams.n_vocab
    try:
        ids = encode_prompt(served.model.encoder, prompt or None)
    except GPT2Error as error:
        raise ApiError(400, str(error), "prompt") from error
    if not ids or max(ids) >= n_vocab:
        raise ApiError(400, f"a prompt needs at least one id, all from 0 to {n_vocab - 1}", "prompt")
    return ids


def _texts(encoder: Vocabulary, ids: Sequence[int], first: int) -> list[str]:
    """What each of the ids from the first on adds to the text."""
    stream = encoder.stream(encoder.decode(ids[:first]) if first else None)
    texts = [stream.feed([token]) for token in ids[first:]]
    texts[-1] += stream.finish()
    return texts


class _Shown:
    """Ids as people look at them."""

    def __init__(self, encoder: Vocabulary) -> None:
        self.encoder = encoder
        self.known: dict[int, str] = {}
        with contextlib.suppress(GPT2Error):  # it has none
            self.known[encoder.end_of_text] = ""

    def text(self, token: int) -> str:
        """What it adds after something else."""
        if token not in self.known:
            self.known[token] = self.encoder.stream("a").feed([token])
        return self.known[token]

    def likely(self, choice: TokenChoice | None) -> list[schema.Likely]:
        return [
            schema.Likely(id=i, piece=self.encoder.token_text(i), text=self.text(i), logprob=finite_or_none(logprob))
            for i, logprob in (choice.likeliest if choice else ())
        ]

    def scored(self, token: int, text: str, choice: TokenChoice | None) -> schema.Scored:
        return schema.Scored(
            id=token,
            piece=self.encoder.token_text(token),
            text=text,
            logprob=finite_or_none(choice.logprob) if choice else None,
            rank=choice.rank if choice else None,
            likeliest=self.likely(choice),
        )
