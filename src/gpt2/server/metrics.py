"""The metrics that Prometheus reads from /metrics."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from gpt2.server.scheduler import Scheduler

SECONDS_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """The metrics of one application; several applications in one process do not share any.

    Attributes:
        responses: Counter of responses, by path and status.
        prompt_tokens: Counter of prompt tokens, by model.
        new_tokens: Counter of generated tokens, by model.
        first_token_seconds: Times from streamed requests to their first tokens, by model.
        request_seconds: Times from requests to their last tokens, by model.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, schedulers: Mapping[str, Scheduler]) -> None:
        """Create the metrics.

        Args:
            schedulers: The schedulers whose texts are counted, by the names of their models.
        """
        self.registry = CollectorRegistry()
        counter = functools.partial(Counter, registry=self.registry)
        histogram = functools.partial(Histogram, buckets=SECONDS_BUCKETS, labelnames=["model"], registry=self.registry)
        gauge = functools.partial(Gauge, labelnames=["model"], registry=self.registry)
        self.responses = counter("gpt2_requests", "Requests that have been answered.", ["path", "status"])
        self.prompt_tokens = counter("gpt2_prompt_tokens", "Tokens in prompts.", ["model"])
        self.new_tokens = counter("gpt2_tokens", "Generated tokens.", ["model"])
        self.first_token_seconds = histogram(
            "gpt2_first_token_seconds", "Time from a streamed request to its first token."
        )
        self.request_seconds = histogram("gpt2_request_seconds", "Time from a request to its last token.")
        running = gauge("gpt2_texts_writing", "Texts that are being generated.")
        queued = gauge("gpt2_texts_queued", "Texts that wait for generation.")
        for name, scheduler in schedulers.items():
            running.labels(name).set_function(functools.partial(_n_running, scheduler))
            queued.labels(name).set_function(functools.partial(_n_queued, scheduler))

    def text(self) -> bytes:
        """Return all metrics in the format of Prometheus."""
        return generate_latest(self.registry)


def _n_running(scheduler: Scheduler) -> int:
    return scheduler.n_running


def _n_queued(scheduler: Scheduler) -> int:
    return scheduler.n_queued
