"""The handlers of completions, and the conversion of a scheduler's chunks to JSON.

The handlers run in the event loop, the scheduler in its own thread; `generate_chunks` connects the two.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar

from fastapi import Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response, StreamingResponse

from gpt2.engine.token_sequence import TokenChoice, TokenSequence, finite_or_none
from gpt2.server.errors import ApiError
from gpt2.server.json_body import parse_body
from gpt2.server.metrics import Metrics
from gpt2.server.request import prepare_sequences
from gpt2.server.scheduler import GenerationError, JobUpdate, QueueFullError, Scheduler, ShutdownError
from gpt2.server.schema import CompletionChoice, CompletionRequest, CompletionResponse, Logprobs, Usage
from gpt2.server.served_model import ServedModel, ServedModels
from gpt2.text.vocabulary import Vocabulary
from gpt2.text_batch import FINISH_LENGTH, FINISH_STOP, TextChunk

T = TypeVar("T")
AUTOCOMPLETE_FIELDS = {"max_tokens": 5, "top_k": 8}  # as in the tutorial whose page uses /autocomplete
FINISH_REASONS: dict[str, Literal["stop", "length"] | None] = {FINISH_STOP: "stop", FINISH_LENGTH: "length", "": None}
LAST_EVENT = "data: [DONE]\n\n"
CLIENT_CLOSED_REQUEST = 499  # nginx's status for a client that did not wait for the response
ENCODER_THREADS = ThreadPoolExecutor(2, "encoder")  # more do not help: only one at a time runs Python
MAX_INLINE_CHARACTERS = 4096  # longer prompts are encoded in a thread
DISCONNECT_CHECK_SECONDS = 0.5  # between two checks whether the client has disconnected


class CompletionApi:
    """The handlers of /v1/completions and /autocomplete."""

    def __init__(self, models: ServedModels, metrics: Metrics, max_tokens: int, timeout: float) -> None:
        """Create the handlers.

        Args:
            models: The models.
            metrics: The metrics to update.
            max_tokens: Maximum number of new tokens of one text.
            timeout: Seconds within which a completion must be complete.
        """
        self.models = models
        self.metrics = metrics
        self.max_tokens = max_tokens
        self.timeout = timeout

    async def completions(self, body: CompletionRequest, request: Request) -> Response:
        """Continue a text."""
        completion = await self._prepare(body)
        if not body.stream:
            return await respond_unless_gone(completion.generate(), request, render_json)
        parts = completion.stream()
        first = await anext(parts)  # raises ApiError before the status is sent
        return StreamingResponse(_server_sent_events(first, parts), media_type="text/event-stream")

    async def autocomplete(self, request: Request) -> Response:
        """Continue a text by five tokens; both the text and the response are JSON strings."""
        prompt = parse_body(await request.body(), str, 'a JSON string, such as "Once upon a time"')
        completion = await self._prepare(CompletionRequest.model_validate({"prompt": prompt, **AUTOCOMPLETE_FIELDS}))
        return await respond_unless_gone(completion.generate(), request, _render_text)

    async def _prepare(self, body: CompletionRequest) -> PendingCompletion:
        """Return the completion that answers a request.

        Raises:
            ApiError: The request is not allowed.
        """
        served = self.models[body.model]
        prompt = body.prompt or ""
        n_characters = len(prompt)
        if not isinstance(prompt, str):
            n_characters = sum(1 if isinstance(element, int) else len(element) for element in prompt)
        n_characters *= body.best_of or body.n or 1
        sequences = await run_encoder(n_characters, prepare_sequences, served.model, body, self.max_tokens)
        return PendingCompletion(self, served, body, sequences)


class PendingCompletion:
    """A completion that is being generated; its errors are the errors of `generate_chunks`."""

    def __init__(
        self, api: CompletionApi, served: ServedModel, body: CompletionRequest, sequences: Sequence[TokenSequence]
    ) -> None:
        """Create a completion; its generation starts with `generate` or `stream`."""
        self.api = api
        self.served = served
        self.body = body
        self.sequences = sequences
        self.choices = [ChoiceBuilder(sequence, body, served.model.encoder) for sequence in sequences]
        self.id = f"cmpl-{uuid.uuid4().hex}"
        self.created = int(time.time())
        self.started = time.perf_counter()
        self.n = body.n or 1
        self.best_of = body.best_of or self.n

    async def generate(self) -> CompletionResponse:
        """Generate the texts and return the whole response."""
        async for _ in self._extend_choices(at_once=True):
            pass
        choices = [choice.take(index) for index, choice in enumerate(self._best_choices())]
        for choice in choices:
            _drop_stop_tokens(choice)
        return self._response(choices, self._usage())

    async def stream(self) -> AsyncIterator[CompletionResponse]:
        """Generate the texts and yield the response in parts."""
        async for indices in self._extend_choices(at_once=False):
            for index in indices:
                choice = self.choices[index].take(index)
                if choice.text or choice.finish_reason or choice.logprobs:
                    yield self._response([choice])
        if self.body.stream_options and self.body.stream_options.include_usage:
            yield self._response([], self._usage())

    async def _extend_choices(self, at_once: bool) -> AsyncIterator[list[int]]:
        """Generate the texts and yield, after each update, the indices of the choices that have grown."""
        metrics = self.api.metrics
        name = self.served.name
        is_first = True
        async for chunks in generate_chunks(self.served.scheduler, self.sequences, self.api.timeout, at_once):
            if is_first and not at_once:
                metrics.first_token_seconds.labels(name).observe(time.perf_counter() - self.started)
            is_first = False
            for chunk in chunks:
                self.choices[chunk.request].add(chunk)
            yield list(dict.fromkeys(chunk.request for chunk in chunks))
        usage = self._usage()
        metrics.prompt_tokens.labels(name).inc(usage.prompt_tokens)
        metrics.new_tokens.labels(name).inc(usage.completion_tokens)
        metrics.request_seconds.labels(name).observe(time.perf_counter() - self.started)

    def _best_choices(self) -> list[ChoiceBuilder]:
        """Return `n` choices of each prompt: the most likely first if there are more, else in their order."""
        best: list[ChoiceBuilder] = []
        for first in range(0, len(self.choices), self.best_of):
            candidates = self.choices[first : first + self.best_of]
            if self.best_of > self.n:
                candidates.sort(key=lambda choice: -choice.mean_logprob)
            best += candidates[: self.n]
        return best

    def _usage(self) -> Usage:
        """Count the tokens of each prompt once, and the tokens of all generated texts."""
        n_prompt = sum(choice.n_prompt_tokens for choice in self.choices[:: self.best_of])
        n_new = sum(len(choice.tokens) for choice in self.choices)
        return Usage(prompt_tokens=n_prompt, completion_tokens=n_new, total_tokens=n_prompt + n_new)

    def _response(self, choices: list[CompletionChoice], usage: Usage | None = None) -> CompletionResponse:
        return CompletionResponse(
            id=self.id, created=self.created, model=self.served.name, choices=choices, usage=usage
        )


class ChoiceBuilder:
    """One text of a completion, which grows chunk by chunk.

    Attributes:
        n_prompt_tokens: The number of the prompt's tokens; 0 without a prompt.
        tokens: All tokens that have been generated.
        n_characters: The length of the whole text so far, an echoed prompt included.
        text: The text that has not been taken yet.
        logprobs: The log-probabilities that have not been taken yet; None if they were not requested.
        finish_reason: Reason for the end of the text; empty before it.
    """

    def __init__(self, sequence: TokenSequence, body: CompletionRequest, encoder: Vocabulary) -> None:
        """Create a choice, whose text starts with the prompt if it is echoed."""
        assert sequence.request is not None, "`prepare_sequences` makes sequences that have their request"
        prompt = sequence.request.prompt
        self.encoder = encoder
        self.prompt_ids = sequence.prompt
        self.n_prompt_tokens = 0 if prompt is None else len(sequence.prompt)
        self.tokens: list[TokenChoice] = []
        self.text = ""
        if body.echo and prompt is not None:
            self.text = prompt if isinstance(prompt, str) else encoder.decode(prompt)
        self.n_characters = len(self.text)
        self.logprobs = None if body.logprobs is None else _no_logprobs()
        self.finish_reason = ""

    @property
    def mean_logprob(self) -> float:
        """The mean log-probability of the generated tokens, by which choices are ranked."""
        return sum(token.logprob for token in self.tokens) / max(1, len(self.tokens))

    def add(self, chunk: TextChunk) -> None:
        """Add a chunk."""
        if chunk.prompt and self.n_characters and self.logprobs is not None:
            self._add_prompt_logprobs(self.logprobs, chunk.prompt)
        if chunk.token is not None:
            self.tokens.append(chunk.token)
            if self.logprobs is not None:
                self._add_logprobs(self.logprobs, chunk.token.id, chunk.token, self.n_characters)
        self.text += chunk.text
        self.n_characters += len(chunk.text)
        self.finish_reason = chunk.finish_reason

    def take(self, index: int) -> CompletionChoice:
        """Return the text and tokens added since the last call, as the choice with this index."""
        choice = CompletionChoice(
            index=index, text=self.text, logprobs=self.logprobs, finish_reason=FINISH_REASONS[self.finish_reason]
        )
        self.text = ""
        if self.logprobs is not None:
            self.logprobs = _no_logprobs()
        return choice

    def _add_prompt_logprobs(self, columns: Logprobs, prompt: Sequence[TokenChoice | None]) -> None:
        stream = self.encoder.stream()
        offset = 0
        for token, choice in zip(self.prompt_ids, prompt):
            self._add_logprobs(columns, token, choice, offset)
            offset += len(stream.feed([token]))

    def _add_logprobs(self, columns: Logprobs, token: int, choice: TokenChoice | None, offset: int) -> None:
        columns.tokens.append(self.encoder.token_text(token))
        columns.text_offset.append(offset)
        if choice is None:
            columns.token_logprobs.append(None)
            columns.top_logprobs.append(None)
            return
        columns.token_logprobs.append(finite_or_none(choice.logprob))
        top_logprobs = dict([*choice.top_logprobs, (choice.id, choice.logprob)])
        columns.top_logprobs.append(
            {self.encoder.token_text(top_id): finite_or_none(logprob) for top_id, logprob in top_logprobs.items()}
        )


def _no_logprobs() -> Logprobs:
    return Logprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])


def _drop_stop_tokens(choice: CompletionChoice) -> None:
    """Drop the log-probabilities of tokens that start after the end of the text: the tokens of a stop string."""
    if choice.logprobs is None or choice.finish_reason == "length":
        return
    is_in_text = [offset < len(choice.text) for offset in choice.logprobs.text_offset]
    for name in Logprobs.model_fields:
        column = getattr(choice.logprobs, name)
        setattr(choice.logprobs, name, list(itertools.compress(column, is_in_text)))


async def _server_sent_events(
    first: CompletionResponse, parts: AsyncIterator[CompletionResponse]
) -> AsyncIterator[str]:
    """Yield a streamed response as server-sent events; a late error is one of them, as the status has been sent."""
    try:
        yield f"data: {first.model_dump_json()}\n\n"
        async for part in parts:
            yield f"data: {part.model_dump_json()}\n\n"
    except ApiError as error:
        yield f"data: {json.dumps(error.body())}\n\n"
    yield LAST_EVENT


async def generate_chunks(
    scheduler: Scheduler, sequences: Sequence[TokenSequence], timeout: float, at_once: bool
) -> AsyncIterator[list[TextChunk]]:
    """Generate texts, and yield their chunks until all have ended; closing the iterator early cancels them.

    Args:
        scheduler: The model's scheduler.
        sequences: The sequences to generate; a chunk's `request` is the index of its sequence.
        timeout: Seconds within which all texts must have ended.
        at_once: Whether all chunks come at the end, which is faster: each update takes a core from the computation.

    Raises:
        ApiError: 429 if the queue is full; 503 if the server is shutting down, generation fails or time runs out.
    """
    loop = asyncio.get_running_loop()
    updates: asyncio.Queue[JobUpdate] = asyncio.Queue()

    def notify(update: JobUpdate) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed, and no handler waits any longer
            loop.call_soon_threadsafe(updates.put_nowait, update)

    try:
        job = scheduler.submit(sequences, notify, at_once)
    except QueueFullError as error:
        raise ApiError(429, str(error), code="too_many_requests") from error
    except ShutdownError as error:
        raise ApiError(503, str(error), code="shutting_down") from error
    timer = loop.call_later(timeout, updates.put_nowait, _timeout_update(timeout))
    n_unfinished = len(sequences)
    try:
        while n_unfinished:
            update = await updates.get()
            if update.error is not None:
                raise ApiError(503, str(update.error))
            n_unfinished -= sum(bool(chunk.finish_reason) for chunk in update.chunks)
            yield update.chunks
    finally:
        timer.cancel()
        if n_unfinished:
            scheduler.cancel(job)


def _timeout_update(timeout: float) -> JobUpdate:
    message = f"the response was not ready within {timeout:g} seconds; request fewer tokens"
    return JobUpdate([], GenerationError(message))


async def run_encoder(n_characters: int, work: Callable[..., T], *arguments: Any) -> T:
    """Return the result of a function that encodes N characters; it is called in another thread if they are many."""
    if n_characters <= MAX_INLINE_CHARACTERS:
        return work(*arguments)
    return await asyncio.get_running_loop().run_in_executor(ENCODER_THREADS, functools.partial(work, *arguments))


def render_json(response: BaseModel) -> Response:
    """Return a response as JSON."""
    return Response(response.model_dump_json(), media_type="application/json")


def _render_text(response: CompletionResponse) -> Response:
    return JSONResponse(response.choices[0].text)


async def respond_unless_gone(work: Awaitable[T], request: Request, render: Callable[[T], Response]) -> Response:
    """Return the rendered result of some work, or cancel the work if the client disconnects first."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait([task], timeout=DISCONNECT_CHECK_SECONDS)
            if not task.done() and await request.is_disconnected():
                return Response(status_code=CLIENT_CLOSED_REQUEST)
        return render(task.result())
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
