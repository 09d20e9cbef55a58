"""What Prometheus reads at /metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from gpt2.server.desk import Desk

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """Of one application; several in one process do not share any."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, desks: dict[str, Desk]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "gpt2_requests", "Requests that were answered.", ["path", "status"], registry=self.registry
        )
        self.prompt_tokens = Counter("gpt2_prompt_tokens", "Tokens of prompts.", ["model"], registry=self.registry)
        self.tokens = Counter("gpt2_tokens", "Tokens that were written.", ["model"], registry=self.registry)
        self.first = Histogram(
            "gpt2_first_token_seconds", "From a request to its first token.", ["model"], SECONDS, registry=self.registry
        )
        self.whole = Histogram(
            "gpt2_request_seconds", "From a request to its last token.", ["model"], SECONDS, registry=self.registry
        )
        writing = Gauge("gpt2_texts_writing", "Texts that are being written.", ["model"], registry=self.registry)
        queued = Gauge("gpt2_texts_queued", "Texts that wait.", ["model"], registry=self.registry)
        for name, desk in desks.items():
            writing.labels(name).set_function(lambda desk=desk: desk.writing)
            queued.labels(name).set_function(lambda desk=desk: desk.queued)

    def text(self) -> bytes:
        return generate_latest(self.registry)
