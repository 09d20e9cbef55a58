"""One completion that is being answered, whole or as server-sent events."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator

from gpt2.server import request, schema
from gpt2.server.errors import ApiError
from gpt2.server.metrics import Metrics
from gpt2.server.served_model import ServedModel
from gpt2.server.writing import written

DONE = "data: [DONE]\n\n"


class Answer:
    """One completion, whole or in parts."""

    def __init__(self, served: ServedModel, plan: request.Plan, metrics: Metrics, patience: float) -> None:
        self.served, self.plan, self.metrics, self.patience = served, plan, metrics, patience
        self.begun = time.perf_counter()
        self.writings = [request.Writing(plan, i, served.model.encoder) for i in range(len(plan.texts))]
        self.id, self.created = f"cmpl-{uuid.uuid4().hex}", int(time.time())

    async def _choices(self, at_once: bool) -> AsyncIterator[dict[int, list[schema.CompletionChoice]]]:
        """What is added to each text, by its place."""
        metrics, is_first = self.metrics, True
        async with written(self.served.desk, self.plan.texts, self.patience, at_once) as pieces:
            async for some in pieces:
                if is_first and not at_once:
                    metrics.first.labels(self.served.name).observe(time.perf_counter() - self.begun)
                    is_first = False
                added: dict[int, list[schema.CompletionChoice]] = {}
                for piece in some:
                    added.setdefault(piece.request, []).append(self.writings[piece.request].part(piece))
                yield added
        used = request.usage(self.plan, self.writings)
        metrics.prompt_tokens.labels(self.served.name).inc(used.prompt_tokens)
        metrics.tokens.labels(self.served.name).inc(used.completion_tokens)
        metrics.whole.labels(self.served.name).observe(time.perf_counter() - self.begun)

    async def whole(self) -> schema.Completion:
        parts: list[list[schema.CompletionChoice]] = [[] for _ in self.writings]
        async for added in self._choices(at_once=True):
            for place, some in added.items():
                parts[place] += some
        choices = request.best(self.plan, self.writings, parts)
        return self._completion(choices, request.usage(self.plan, self.writings))

    async def parts(self, usage: bool) -> AsyncIterator[schema.Completion]:
        async for added in self._choices(at_once=False):
            for place, some in added.items():
                choice = request.joined(some, place)
                if choice.text or choice.finish_reason or choice.logprobs:
                    yield self._completion([choice])
        if usage:
            yield self._completion([], request.usage(self.plan, self.writings))

    def _completion(
        self, choices: list[schema.CompletionChoice], usage: schema.Usage | None = None
    ) -> schema.Completion:
        return schema.Completion(id=self.id, created=self.created, model=self.served.name, choices=choices, usage=usage)


async def events(first: schema.Completion, parts: AsyncIterator[schema.Completion]) -> AsyncIterator[str]:
    """Server-sent events; an error on the way is one too, for the status has been sent."""
    try:
        yield _event(first.model_dump_json())
        async for part in parts:
            yield _event(part.model_dump_json())
    except ApiError as error:
        yield _event(json.dumps(error.body()))
    yield DONE


def _event(data: str) -> str:
    return f"data: {data}\n\n"
