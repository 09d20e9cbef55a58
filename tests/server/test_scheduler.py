"""Jobs that wait, come too late, are given up or fail; and the paths besides completions."""

import json
import threading
import time

import httpx
import pytest
from served import serving

from gpt2.generate import Asked, asked
from gpt2.request import Request
from gpt2.server.app import ServerOptions
from gpt2.server.scheduler import Busy, Closed, Failed, Scheduler

LONG = {"prompt": "the cat", "max_tokens": 3000, "ignore_eos": True}


def text(model, length=5, sample=0):
    request = Request("the cat", length, sample=sample)
    return asked(request, model.encoder.encode("the cat"))


class Ear:
    """What a job is told, and an event for its end."""

    def __init__(self, texts: int) -> None:
        self.left, self.pieces, self.error, self.ended = texts, [], None, threading.Event()

    def __call__(self, told):
        self.pieces += told.pieces
        self.error = told.error
        self.left -= sum(bool(piece.ended) for piece in told.pieces)
        if not self.left or told.error:
            self.ended.set()


def submit(desk, texts) -> Ear:
    ear = Ear(len(texts))
    ear.job = desk.submit(texts, ear)
    return ear


@pytest.fixture
def desk(native_tiny_model):
    made = Scheduler(native_tiny_model, rows=2, waiting=3)
    made.start()
    yield made
    assert made.close(10)


def test_who_comes_first_is_written_first(desk, native_tiny_model):
    ended = []
    ears = []
    for number in range(3):
        ear = submit(desk, [text(native_tiny_model, 20, sample) for sample in range(2)])
        real = ear.__call__

        def told(what, number=number, real=real):
            real(what)
            if any(piece.ended for piece in what.pieces):
                ended.append(number)

        ear.job.tell = told
        ears.append(ear)
    assert all(ear.ended.wait(10) for ear in ears)
    assert ended == sorted(ended)
    assert desk.writing == desk.queued == 0


def test_more_than_may_wait_are_told_to_come_again(desk, native_tiny_model):
    long = [text(native_tiny_model, 3000) for _ in range(2)]
    first = submit(desk, long)
    while desk.writing < 2:
        time.sleep(0.001)
    waiting = [submit(desk, [text(native_tiny_model)]) for _ in range(3)]
    with pytest.raises(Busy, match="3 requests are waiting"):
        submit(desk, [text(native_tiny_model)])
    desk.cancel(first.job)
    assert all(ear.ended.wait(10) and len(ear.pieces) == 5 for ear in waiting)
    assert not first.ended.is_set()


def test_a_failure_ends_what_is_being_written_and_no_more(desk, native_tiny_model, monkeypatch):
    extend, calls = native_tiny_model.backend.extend, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise MemoryError
        return extend(*arguments)

    monkeypatch.setattr(native_tiny_model.backend, "extend", failing, raising=False)
    lost = submit(desk, [text(native_tiny_model, 20)])
    assert lost.ended.wait(10) and isinstance(lost.error, Failed) and "memory" in str(lost.error)
    later = submit(desk, [text(native_tiny_model)])
    assert later.ended.wait(10) and later.error is None


def test_a_row_that_is_refused_harms_no_other(desk, native_tiny_model):
    fine = submit(desk, [text(native_tiny_model, 200)])
    wrong = text(native_tiny_model)
    refused = submit(desk, [Asked(wrong.request, wrong.row.__class__([10**6]))])
    assert refused.ended.wait(10) and isinstance(refused.error, Failed)
    assert fine.ended.wait(10) and fine.error is None and len(fine.pieces) == 200


def test_closing_finishes_what_is_there(native_tiny_model):
    desk = Scheduler(native_tiny_model)
    desk.start()
    ear = submit(desk, [text(native_tiny_model, 50)])
    assert desk.close(10) and len(ear.pieces) == 50
    with pytest.raises(Closed):
        submit(desk, [text(native_tiny_model)])


def test_a_client_that_goes_away_is_not_written_for(native_tiny_model):
    with serving({"tiny": native_tiny_model}, rows=1) as address, httpx.Client(base_url=address, timeout=30) as client:
        with client.stream("POST", "/v1/completions", json={**LONG, "stream": True}) as answer:
            next(answer.iter_lines())
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/completions", json=LONG, timeout=0.2)
        assert client.post("/v1/completions", json={"max_tokens": 2}, timeout=10).status_code == 200


def test_too_many_are_answered_429_and_when_to_come_again(native_tiny_model):
    with (
        serving({"tiny": native_tiny_model}, rows=1, waiting=0) as address,
        httpx.Client(base_url=address, timeout=30) as client,
        client.stream("POST", "/v1/completions", json={**LONG, "stream": True}) as answer,
    ):
        lines = answer.iter_lines()  # kept: without it the answer would be closed
        assert answer.status_code == 200 and next(lines)
        refused = client.post("/v1/completions", json={"max_tokens": 1})
        streamed = client.post("/v1/completions", json={"max_tokens": 1, "stream": True})
    for one in (refused, streamed):
        assert one.status_code == 429 and int(one.headers["retry-after"]) >= 1
        assert one.json()["error"]["type"] == "rate_limit_error"


def test_a_request_has_so_much_time(native_tiny_model):
    with serving({"tiny": native_tiny_model}, ServerOptions(patience=0.05)) as address:
        answer = httpx.post(f"{address}/v1/completions", json=LONG)
    assert answer.status_code == 503 and "not ready within 0.05 seconds" in answer.json()["error"]["message"]


def test_autocomplete_takes_and_gives_a_json_string(client):
    answer = client.post("/autocomplete", content=json.dumps("the cat "), headers={"content-type": "text/plain"})
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert isinstance(answer.json(), str) and answer.json()
    for wrong in (b"the cat", b'{"prompt": "the cat"}', b"\xff", b""):
        assert client.post("/autocomplete", content=wrong).status_code == 400


def test_ids_and_back(client, native_tiny_model):
    words = "the cat sat on the mät"
    answer = client.post("/tokenize", json={"prompt": words}).json()
    assert answer["tokens"] == native_tiny_model.encoder.encode(words) and answer["count"] == len(answer["tokens"])
    assert answer["max_model_len"] == 32
    assert client.post("/detokenize", json={"tokens": answer["tokens"]}).json() == {"prompt": words}
    assert client.post("/detokenize", json={"tokens": [10**6]}).status_code == 400


def test_several_models(native_tiny_model):
    models = {"one": native_tiny_model, "two": native_tiny_model}
    with serving(models) as address, httpx.Client(base_url=address) as client:
        assert [card["id"] for card in client.get("/v1/models").json()["data"]] == ["one", "two"]
        assert client.post("/v1/completions", json={"model": "two", "max_tokens": 1}).json()["model"] == "two"
        assert client.post("/v1/completions", json={"max_tokens": 1}).json()["model"] == "one"


def test_what_is_counted(client):
    client.post("/v1/completions", json={"prompt": "the", "max_tokens": 3})
    said = client.get("/metrics").text
    assert 'gpt2_requests_total{path="/v1/completions",status="200"}' in said
    assert 'gpt2_tokens_total{model="tiny"}' in said and 'gpt2_texts_writing{model="tiny"} 0.0' in said
