"""The handlers of /insight: the most likely next tokens, the scores of a text's tokens, and the layers' values."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI, Request
from fastapi.responses import Response

from gpt2 import generate
from gpt2.engine.token_sequence import TokenChoice, finite_or_none, truncate_to_window
from gpt2.request import Sampling
from gpt2.server import insight_schema as schema
from gpt2.server.disconnect import respond_unless_gone
from gpt2.server.errors import ApiError
from gpt2.server.introspection import GUESSES_PER_POSITION, LayerInspector, LayerValues
from gpt2.server.offload import render_json, run_offloaded
from gpt2.server.request import encode
from gpt2.server.response import generate_chunks
from gpt2.server.served_model import ServedModel, ServedModels
from gpt2.text.vocabulary import Vocabulary
from gpt2.text_batch import TextChunk, prepare

GREEDY = Sampling(temperature=0)


def add_routes(app: FastAPI, models: ServedModels, timeout: float) -> None:
    """Add the routes below /insight.

    Args:
        app: The application.
        models: The models.
        timeout: Seconds within which a request must be answered.
    """
    api = InsightApi(models, timeout)
    app.add_api_route("/insight/next", api.next, methods=["POST"], response_model=schema.NextResponse)
    app.add_api_route("/insight/scores", api.scores, methods=["POST"], response_model=schema.ScoresResponse)
    app.add_api_route("/insight/layers", api.layers, methods=["POST"], response_model=schema.LayersResponse)


class InsightApi:
    """The handlers of /insight."""

    def __init__(self, models: ServedModels, timeout: float) -> None:
        """Create the handlers, see `add_routes`."""
        self.models = models
        self.timeout = timeout
        self.inspector = LayerInspector()

    async def next(self, body: schema.NextRequest, request: Request) -> Response:
        """Return the most likely next tokens."""
        return await respond_unless_gone(self._next(body), request)

    async def scores(self, body: schema.ScoresRequest, request: Request) -> Response:
        """Return the probability of each token of a text, and the tokens that were more likely."""
        return await respond_unless_gone(self._scores(body), request)

    async def layers(self, body: schema.LayersRequest, request: Request) -> Response:
        """Return the attention and the next-token guesses of each layer for a text."""
        return await respond_unless_gone(self._layers(body), request)

    async def _next(self, body: schema.NextRequest) -> Response:
        served = self.models[body.model]
        all_ids = await run_offloaded(len(body.prompt), _encode, served, body.prompt)
        ids = truncate_to_window(all_ids, served.model.hparams.n_ctx)
        chunk = await self._generate_token(served, ids, top_logprobs=body.top)
        tokens = _TokenFormatter(served.model.encoder).top_tokens(chunk.token)
        return render_json(schema.NextResponse(likeliest=tokens))

    async def _scores(self, body: schema.ScoresRequest) -> Response:
        served = self.models[body.model]
        all_ids = await run_offloaded(len(body.prompt), _encode, served, body.prompt)
        ids = truncate_to_window(all_ids, served.model.hparams.n_ctx)
        chunk = await self._generate_token(served, ids, top_logprobs=body.top, echo=True)
        n_items = len(all_ids) + len(ids) * body.top
        return await run_offloaded(n_items, _render_scores, served.model.encoder, body.prompt, all_ids, chunk)

    async def _layers(self, body: schema.LayersRequest) -> Response:
        served = self.models[body.model]
        if not body.prompt:
            raise ApiError(400, "the prompt is empty; give some text", "prompt")
        all_ids = await run_offloaded(len(body.prompt), _encode, served, body.prompt)
        ids = self.inspector.truncate(served, all_ids)
        values = await self.inspector.inspect(served, ids)
        n_items = len(all_ids) + len(ids) * served.model.hparams.n_layer * (GUESSES_PER_POSITION + len(ids))
        return await run_offloaded(n_items, _render_layers, served, all_ids, len(ids), values)

    async def _generate_token(
        self, served: ServedModel, ids: Sequence[int], top_logprobs: int, echo: bool = False
    ) -> TextChunk:
        """Generate one token after the ids, and return its chunk."""
        request = generate.Request(None, 1, GREEDY, logprobs=top_logprobs, echo=echo)
        updates = generate_chunks(served.scheduler, [prepare(request, ids)], self.timeout, at_once=True)
        [chunk] = [chunk async for chunks in updates for chunk in chunks]
        return chunk


def _encode(served: ServedModel, prompt: str | Sequence[int]) -> Sequence[int]:
    return encode(served.model.encoder, prompt or None, served.model.hparams.n_vocab)


def _render_scores(encoder: Vocabulary, prompt: str, all_ids: Sequence[int], chunk: TextChunk) -> Response:
    """Return the scores of the last ids, which the chunk contains."""
    n_skipped = len(all_ids) - len(chunk.prompt)
    formatter = _TokenFormatter(encoder)
    tokens: list[schema.RankedToken] = []
    if prompt:
        texts = _token_texts(encoder, all_ids, n_skipped)
        tokens = [formatter.ranked_token(*columns) for columns in zip(all_ids[n_skipped:], texts, chunk.prompt)]
    return render_json(schema.ScoresResponse(skipped=n_skipped, tokens=tokens, next=formatter.top_tokens(chunk.token)))


def _render_layers(served: ServedModel, all_ids: Sequence[int], n_ids: int, values: LayerValues) -> Response:
    """Return the layers' values for the last N ids."""
    encoder = served.model.encoder
    n_skipped = len(all_ids) - n_ids
    texts = _token_texts(encoder, all_ids, n_skipped)
    tokens = [
        schema.TextToken(id=i, piece=encoder.token_text(i), text=text) for i, text in zip(all_ids[n_skipped:], texts)
    ]
    response = schema.LayersResponse(
        skipped=n_skipped,
        tokens=tokens,
        n_head=served.model.hparams.n_head,
        attention=values.attention,
        guesses=values.guesses,
        logits=values.logits,
        likeliest=values.top_ids,
        pieces={i: encoder.token_text(i) for i in sorted(values.all_ids())},
    )
    return render_json(response)


def _token_texts(encoder: Vocabulary, ids: Sequence[int], first: int) -> list[str]:
    """Return the text that each id adds, from the id with index `first`."""
    stream = encoder.stream(encoder.decode(ids[:first]) if first else None)
    texts = [stream.feed([token]) for token in ids[first:]]
    texts[-1] += stream.finish()
    return texts


class _TokenFormatter:
    """A converter of token ids to objects of the schema."""

    def __init__(self, encoder: Vocabulary) -> None:
        self.encoder = encoder
        self.texts: dict[int, str] = {}
        self.texts.update(dict.fromkeys(encoder.ending_ids, ""))

    def text(self, token: int) -> str:
        """Return the text that a token adds to a nonempty text."""
        if token not in self.texts:
            self.texts[token] = self.encoder.stream("a").feed([token])
        return self.texts[token]

    def top_tokens(self, choice: TokenChoice | None) -> list[schema.LikelyToken]:
        """Return the most likely tokens at a choice; none without a choice."""
        return [
            schema.LikelyToken(
                id=token, piece=self.encoder.token_text(token), text=self.text(token), logprob=finite_or_none(logprob)
            )
            for token, logprob in (choice.top_logprobs if choice else ())
        ]

    def ranked_token(self, token: int, text: str, choice: TokenChoice | None) -> schema.RankedToken:
        """Return a token of a text; the first one has no choice."""
        return schema.RankedToken(
            id=token,
            piece=self.encoder.token_text(token),
            text=text,
            logprob=finite_or_none(choice.logprob) if choice else None,
            rank=choice.rank if choice else None,
            likeliest=self.top_tokens(choice),
        )
