"""What Prometheus reads at /metrics."""

from __future__ import annotations

import functools

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from gpt2.server.scheduler import Scheduler

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """Of one application; several in one process do not share any."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, desks: dict[str, Scheduler]) -> None:
        self.registry = registry = CollectorRegistry()
        histogram = functools.partial(Histogram, buckets=SECONDS, labelnames=["model"], registry=registry)
        counter = functools.partial(Counter, registry=registry)
        self.requests = counter("gpt2_requests", "Requests that were answered.", ["path", "status"])
        self.prompt_tokens = counter("gpt2_prompt_tokens", "Tokens of prompts.", ["model"])
        self.tokens = counter("gpt2_tokens", "Tokens that were written.", ["model"])
        self.first = histogram("gpt2_first_token_seconds", "From a request that is streamed to its first token.")
        self.whole = histogram("gpt2_request_seconds", "From a request to its last token.")
        writing = Gauge("gpt2_texts_writing", "Texts that are being written.", ["model"], registry=registry)
        queued = Gauge("gpt2_texts_queued", "Texts that wait.", ["model"], registry=registry)
        for name, desk in desks.items():
            writing.labels(name).set_function(functools.partial(_writing, desk))
            queued.labels(name).set_function(functools.partial(_queued, desk))

    def text(self) -> bytes:
        return generate_latest(self.registry)


def _writing(desk: Scheduler) -> int:
    return desk.writing


def _queued(desk: Scheduler) -> int:
    return desk.queued
