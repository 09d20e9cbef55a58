"""Jobs that wait, are late, are cancelled or fail; and the small endpoints."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Sequence

import httpx
import pytest
from served import serving

from gpt2.engine.token_sequence import TokenSequence
from gpt2.request import Request
from gpt2.server.app import ServerOptions
from gpt2.server.scheduler import GenerationError, GenerationJob, JobUpdate, QueueFullError, Scheduler, ShutdownError
from gpt2.text_batch import Model, TextChunk, prepare

LONG = {"prompt": "the cat", "max_tokens": 3000, "ignore_eos": True}


def make_sequence(model: Model, length: int = 5, sample: int = 0) -> TokenSequence:
    request = Request("the cat", length, sample=sample)
    return prepare(request, model.encoder.encode("the cat"))


class Listener:
    """Collects the updates of a job; `ended` is set at its end."""

    job: GenerationJob

    def __init__(self, n_texts: int) -> None:
        self.n_unfinished = n_texts
        self.chunks: list[TextChunk] = []
        self.error: Exception | None = None
        self.ended = threading.Event()

    def __call__(self, update: JobUpdate) -> None:
        self.chunks += update.chunks
        self.error = update.error
        self.n_unfinished -= sum(bool(chunk.finish_reason) for chunk in update.chunks)
        if not self.n_unfinished or update.error:
            self.ended.set()


def submit(scheduler: Scheduler, sequences: Sequence[TokenSequence]) -> Listener:
    listener = Listener(len(sequences))
    listener.job = scheduler.submit(sequences, listener)
    return listener


@pytest.fixture
def scheduler(native_tiny_model):
    started = Scheduler(native_tiny_model, batch_size=2, queue_size=3)
    started.start()
    yield started
    assert started.close(10)


def test_jobs_run_in_the_order_of_their_arrival(scheduler, native_tiny_model):
    ended = []
    listeners = []
    for number in range(3):
        listener = submit(scheduler, [make_sequence(native_tiny_model, 20, sample) for sample in range(2)])

        def notify(update, number=number, listener=listener):
            listener(update)
            if any(chunk.finish_reason for chunk in update.chunks):
                ended.append(number)

        listener.job.notify = notify
        listeners.append(listener)
    assert all(listener.ended.wait(10) for listener in listeners)
    assert ended == sorted(ended)
    assert scheduler.n_running == scheduler.n_queued == 0


def test_jobs_beyond_the_queue_are_rejected(scheduler, native_tiny_model):
    long = [make_sequence(native_tiny_model, 3000) for _ in range(2)]
    first = submit(scheduler, long)
    while scheduler.n_running < 2:
        time.sleep(0.001)
    waiting = [submit(scheduler, [make_sequence(native_tiny_model)]) for _ in range(3)]
    with pytest.raises(QueueFullError, match="3 requests are already waiting"):
        submit(scheduler, [make_sequence(native_tiny_model)])
    scheduler.cancel(first.job)
    assert all(listener.ended.wait(10) and len(listener.chunks) == 5 for listener in waiting)
    assert not first.ended.is_set()


def test_a_failure_ends_the_running_jobs_only(scheduler, native_tiny_model, monkeypatch):
    extend = native_tiny_model.backend.extend
    calls = []

    def fail_at_the_third_call(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise MemoryError
        return extend(*arguments)

    monkeypatch.setattr(native_tiny_model.backend, "extend", fail_at_the_third_call, raising=False)
    lost = submit(scheduler, [make_sequence(native_tiny_model, 20)])
    assert lost.ended.wait(10) and isinstance(lost.error, GenerationError) and "memory" in str(lost.error)
    later = submit(scheduler, [make_sequence(native_tiny_model)])
    assert later.ended.wait(10) and later.error is None


def test_a_rejected_sequence_does_not_harm_the_others(scheduler, native_tiny_model):
    valid = submit(scheduler, [make_sequence(native_tiny_model, 200)])
    sequence = dataclasses.replace(make_sequence(native_tiny_model), prompt=[10**6])
    rejected = submit(scheduler, [sequence])
    assert rejected.ended.wait(10) and isinstance(rejected.error, GenerationError)
    assert valid.ended.wait(10) and valid.error is None and len(valid.chunks) == 200


def test_close_waits_for_running_jobs(native_tiny_model):
    scheduler = Scheduler(native_tiny_model)
    scheduler.start()
    listener = submit(scheduler, [make_sequence(native_tiny_model, 50)])
    assert scheduler.close(10) and len(listener.chunks) == 50
    with pytest.raises(ShutdownError):
        submit(scheduler, [make_sequence(native_tiny_model)])


def test_generation_stops_when_the_client_disconnects(native_tiny_model):
    with (
        serving({"tiny": native_tiny_model}, batch_size=1) as address,
        httpx.Client(base_url=address, timeout=30) as client,
    ):
        with client.stream("POST", "/v1/completions", json={**LONG, "stream": True}) as response:
            next(response.iter_lines())
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/completions", json=LONG, timeout=0.2)
        assert client.post("/v1/completions", json={"max_tokens": 2}, timeout=10).status_code == 200


def test_requests_beyond_the_queue_get_429_with_a_time_to_retry(native_tiny_model):
    with (
        serving({"tiny": native_tiny_model}, batch_size=1, queue_size=0) as address,
        httpx.Client(base_url=address, timeout=30) as client,
        client.stream("POST", "/v1/completions", json={**LONG, "stream": True}) as response,
    ):
        lines = response.iter_lines()  # the variable keeps the response open
        assert response.status_code == 200 and next(lines)
        whole = client.post("/v1/completions", json={"max_tokens": 1})
        streamed = client.post("/v1/completions", json={"max_tokens": 1, "stream": True})
    for rejected in (whole, streamed):
        assert rejected.status_code == 429 and int(rejected.headers["retry-after"]) >= 1
        assert rejected.json()["error"]["type"] == "rate_limit_error"


def test_a_request_has_a_timeout(native_tiny_model):
    with serving({"tiny": native_tiny_model}, ServerOptions(timeout=0.05)) as address:
        response = httpx.post(f"{address}/v1/completions", json=LONG)
    assert response.status_code == 503 and "not ready within 0.05 seconds" in response.json()["error"]["message"]


def test_autocomplete_takes_and_returns_a_json_string(client):
    response = client.post("/autocomplete", content=json.dumps("the cat "), headers={"content-type": "text/plain"})
    assert response.status_code == 200 and response.headers["content-type"] == "application/json"
    assert isinstance(response.json(), str) and response.json()
    for wrong in (b"the cat", b'{"prompt": "the cat"}', b"\xff", b""):
        assert client.post("/autocomplete", content=wrong).status_code == 400


def test_detokenize_inverts_tokenize(client, native_tiny_model):
    text = "the cat sat on the mät"
    tokenized = client.post("/tokenize", json={"prompt": text}).json()
    assert tokenized["tokens"] == native_tiny_model.encoder.encode(text)
    assert tokenized["count"] == len(tokenized["tokens"]) and tokenized["max_model_len"] == 32
    assert client.post("/detokenize", json={"tokens": tokenized["tokens"]}).json() == {"prompt": text}
    assert client.post("/detokenize", json={"tokens": [10**6]}).status_code == 400


def test_several_models(native_tiny_model):
    models = {"one": native_tiny_model, "two": native_tiny_model}
    with serving(models) as address, httpx.Client(base_url=address) as client:
        assert [card["id"] for card in client.get("/v1/models").json()["data"]] == ["one", "two"]
        assert client.post("/v1/completions", json={"model": "two", "max_tokens": 1}).json()["model"] == "two"
        assert client.post("/v1/completions", json={"max_tokens": 1}).json()["model"] == "one"


def test_metrics(client):
    client.post("/v1/completions", json={"prompt": "the", "max_tokens": 3})
    metrics = client.get("/metrics").text
    assert 'gpt2_requests_total{path="/v1/completions",status="200"}' in metrics
    assert 'gpt2_tokens_total{model="tiny"}' in metrics and 'gpt2_texts_writing{model="tiny"} 0.0' in metrics
