"""The handlers of completions.

The handlers run in the event loop, the scheduler in its own thread; `generate_chunks` connects the two. Work that grows
with the size of a request or its response runs in further threads (`offload`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import TypeVar

from fastapi import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from gpt2.engine.token_sequence import TokenSequence
from gpt2.server.choice_builder import ChoiceBuilder, drop_stop_tokens
from gpt2.server.disconnect import respond_unless_gone
from gpt2.server.errors import ApiError
from gpt2.server.json_body import parse_body
from gpt2.server.metrics import Metrics
from gpt2.server.offload import MAX_INLINE_ITEMS, render_json, run_offloaded
from gpt2.server.request import count_characters, prepare_sequences
from gpt2.server.scheduler import GenerationError, JobUpdate, QueueFullError, Scheduler, ShutdownError
from gpt2.server.schema import CompletionChoice, CompletionRequest, CompletionResponse, Usage
from gpt2.server.served_model import ServedModel, ServedModels
from gpt2.text_batch import TextChunk

T = TypeVar("T")
AUTOCOMPLETE_FIELDS = {"max_tokens": 5, "top_k": 8}  # as in the tutorial whose page uses /autocomplete
LAST_EVENT = "data: [DONE]\n\n"


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
        return await respond_unless_gone(self._complete(body), request)

    async def autocomplete(self, request: Request) -> Response:
        """Continue a text by five tokens; both the text and the response are JSON strings."""
        content = await request.body()
        name = 'a JSON string, such as "Once upon a time"'
        prompt = await run_offloaded(len(content), parse_body, content, str, name)
        body = CompletionRequest.model_validate({"prompt": prompt, **AUTOCOMPLETE_FIELDS})
        return await respond_unless_gone(self._autocomplete(body), request)

    async def _complete(self, body: CompletionRequest) -> Response:
        completion = await self._prepare(body)
        if not body.stream:
            await completion.generate()
            return await run_offloaded(completion.n_items, lambda: render_json(completion.response()))
        events = completion.stream()
        first = await anext(events)  # raises ApiError before the status is sent
        return StreamingResponse(_continue_stream(first, events), media_type="text/event-stream")

    async def _autocomplete(self, body: CompletionRequest) -> Response:
        completion = await self._prepare(body)
        await completion.generate()
        return JSONResponse(completion.response().choices[0].text)

    async def _prepare(self, body: CompletionRequest) -> PendingCompletion:
        """Return the completion that answers a request.

        Raises:
            ApiError: The request is not allowed.
        """
        served = self.models[body.model]
        n_items = count_characters(body) * (body.best_of or body.n or 1) + len(body.logit_bias or ())
        return await run_offloaded(n_items, self._create, served, body)

    def _create(self, served: ServedModel, body: CompletionRequest) -> PendingCompletion:
        return PendingCompletion(self, served, body, prepare_sequences(served.model, body, self.max_tokens))


class PendingCompletion:
    """A completion that is being generated; its errors are the errors of `generate_chunks`.

    Attributes:
        n_items: Number of tokens and log-probabilities so far, which decides where they are processed.
    """

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
        self.n_items = 0

    async def generate(self) -> None:
        """Generate the texts of `response`."""
        async for _ in self._process_chunks(self._add_chunks, at_once=True):
            pass

    def response(self) -> CompletionResponse:
        """Return the whole response, after `generate`."""
        choices = [choice.take(index) for index, choice in enumerate(self._best_choices())]
        for choice in choices:
            drop_stop_tokens(choice)
        return self._response(choices, self._usage())

    async def stream(self) -> AsyncIterator[str]:
        """Generate the texts and yield the response in parts, as server-sent events."""
        async for events in self._process_chunks(self._add_to_stream, at_once=False):
            for event in events:
                yield event
        if self.body.stream_options and self.body.stream_options.include_usage:
            yield _event(self._response([], self._usage()))

    async def _process_chunks(self, process: Callable[[list[TextChunk]], T], at_once: bool) -> AsyncIterator[T]:
        """Generate the texts and yield the result of a function for the chunks of each update."""
        metrics = self.api.metrics
        name = self.served.name
        is_first = True
        updates = generate_chunks(self.served.scheduler, self.sequences, self.api.timeout, at_once)
        async with contextlib.aclosing(updates):
            async for chunks in updates:
                if is_first and not at_once:
                    metrics.first_token_seconds.labels(name).observe(time.perf_counter() - self.started)
                is_first = False
                n_items = self._count_items(chunks)
                self.n_items += n_items
                yield await run_offloaded(n_items, process, chunks)
        usage = self._usage()
        metrics.prompt_tokens.labels(name).inc(usage.prompt_tokens)
        metrics.new_tokens.labels(name).inc(usage.completion_tokens)
        metrics.request_seconds.labels(name).observe(time.perf_counter() - self.started)

    def _count_items(self, chunks: Sequence[TextChunk]) -> int:
        """Return the number of tokens and log-probabilities, or of tokens alone if they are many."""
        n_tokens = len(chunks)
        if n_tokens <= MAX_INLINE_ITEMS:
            n_tokens += sum(len(chunk.prompt) for chunk in chunks)
        return n_tokens * (1 + (self.body.logprobs or 0))

    def _add_chunks(self, chunks: Sequence[TextChunk]) -> list[int]:
        """Add chunks to their choices, and return the indices of these choices."""
        for chunk in chunks:
            self.choices[chunk.request].add(chunk)
        return list(dict.fromkeys(chunk.request for chunk in chunks))

    def _add_to_stream(self, chunks: Sequence[TextChunk]) -> list[str]:
        """Add chunks to their choices, and return the events about them."""
        choices = [self.choices[index].take(index) for index in self._add_chunks(chunks)]
        return [
            _event(self._response([choice]))
            for choice in choices
            if choice.text or choice.finish_reason or choice.logprobs
        ]

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


def _event(part: CompletionResponse) -> str:
    return f"data: {part.model_dump_json()}\n\n"


async def _continue_stream(first: str, events: AsyncIterator[str]) -> AsyncIterator[str]:
    """Yield the events of a streamed response; a late error is one of them, as the status has been sent."""
    try:
        yield first
        async for event in events:
            yield event
    except ApiError as error:
        yield f"data: {json.dumps(error.body())}\n\n"
    yield LAST_EVENT


async def generate_chunks(
    scheduler: Scheduler, sequences: Sequence[TokenSequence], timeout: float, at_once: bool
) -> AsyncGenerator[list[TextChunk], None]:
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

    def expire() -> None:
        scheduler.cancel(job)  # here, because nobody may wait for the update: a client may not read its stream
        updates.put_nowait(_timeout_update(timeout))

    timer = loop.call_later(timeout, expire)
    n_unfinished = len(sequences)
    try:
        while n_unfinished:
            update = await updates.get()
            if update.error is not None:
                raise ApiError(503, str(update.error))
            n_unfinished -= n_unfinished if at_once else sum(bool(chunk.finish_reason) for chunk in update.chunks)
            yield update.chunks
    finally:
        timer.cancel()
        if n_unfinished:
            scheduler.cancel(job)


def _timeout_update(timeout: float) -> JobUpdate:
    message = f"the response was not ready within {timeout:g} seconds; request fewer tokens"
    return JobUpdate([], GenerationError(message))
