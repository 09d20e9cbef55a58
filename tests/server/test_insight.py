"""What the page asks: the same numbers as the reference has, and what is refused."""

import base64
import math

import numpy as np
import pytest
from starlette.testclient import TestClient

from gpt2 import generate
from gpt2.engine import reference
from gpt2.formats.model_dir import open_model_dir
from gpt2.server import introspection
from gpt2.server.access import AccessLimits
from gpt2.server.app import ServerOptions, create_app
from gpt2.server.errors import ApiError
from gpt2.server.scheduler import Scheduler
from gpt2.server.served_model import ServedModel

PROMPT = "the cat sat on the mat é"


@pytest.fixture(scope="module")
def model(tiny_dir):
    return generate.load(str(tiny_dir))


@pytest.fixture(scope="module")
def client(model, tiny_dir):
    """Through the application, without a socket."""
    served = ServedModel("tiny", model, Scheduler(model), "float32", open_model_dir(tiny_dir))
    nowhere = ServedModel("nowhere", model, Scheduler(model), "float32")
    for one in (served, nowhere):
        one.desk.start()
    with TestClient(create_app([served, nowhere], ServerOptions()), base_url="http://localhost") as asking:
        yield asking
    for one in (served, nowhere):
        assert one.desk.close(5)


@pytest.fixture(scope="module")
def logprobs(model, tiny_dir):
    """[T, V], of the prompt."""
    weights = reference.read(open_model_dir(tiny_dir).read())
    logits = reference.logits(weights, model.hparams, model.encoder.encode(PROMPT))
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_next_is_what_the_model_says(client, model, logprobs):
    said = client.post("/insight/next", json={"prompt": PROMPT, "top": 7}).json()["likeliest"]
    best = np.argsort(-logprobs[-1], kind="stable")[:7]
    assert [one["id"] for one in said] == best.tolist()
    np.testing.assert_allclose([one["logprob"] for one in said], logprobs[-1][best], atol=1e-4)
    assert [one["piece"] for one in said] == [model.encoder.token_text(token) for token in best]
    by_ids = client.post("/insight/next", json={"prompt": model.encoder.encode(PROMPT), "top": 7})
    assert by_ids.json()["likeliest"] == said


def test_scores_have_ranks_and_alternatives(client, model, logprobs):
    said = client.post("/insight/scores", json={"prompt": PROMPT, "top": 3}).json()
    ids = model.encoder.encode(PROMPT)
    assert [token["id"] for token in said["tokens"]] == ids and said["skipped"] == 0
    assert "".join(token["text"] for token in said["tokens"]) == PROMPT
    assert said["tokens"][-2]["text"] == ""  # half of é
    assert said["tokens"][0]["logprob"] is None and said["tokens"][0]["rank"] is None
    for place, token in enumerate(said["tokens"][1:]):
        own = logprobs[place][token["id"]]
        assert math.isclose(token["logprob"], own, abs_tol=1e-4)
        assert token["rank"] == 1 + (logprobs[place] > own).sum()
        assert [one["id"] for one in token["likeliest"]] == np.argsort(-logprobs[place])[:3].tolist()
    assert said["next"][0]["id"] == int(logprobs[-1].argmax())


def test_what_no_text_stands_for_cannot_be_taken(client, model):
    likeliest = client.post("/insight/next", json={"prompt": "the", "top": 100}).json()["likeliest"]
    likeliest += client.post("/insight/next", json={"prompt": "dog", "top": 100}).json()["likeliest"]
    assert any(one["text"] == "" for one in likeliest)
    for one in likeliest:
        if one["text"]:
            assert model.encoder.decode([one["id"]]) == one["text"]
        else:
            assert "\ufffd" in model.encoder.decode([one["id"]]) or one["id"] == model.encoder.end_of_text


def test_a_text_beyond_the_context_keeps_its_end(client, model):
    long = PROMPT * 5
    count = len(model.encoder.encode(long))
    said = client.post("/insight/scores", json={"prompt": long}).json()
    assert len(said["tokens"]) + said["skipped"] == count and len(said["tokens"]) == model.hparams.n_ctx - 1
    assert long.endswith("".join(token["text"] for token in said["tokens"]))
    assert client.post("/insight/next", json={"prompt": long}).status_code == 200
    assert len(client.post("/insight/layers", json={"prompt": long}).json()["tokens"]) == model.hparams.n_ctx


def test_no_text_is_the_beginning_of_one(client):
    assert client.post("/insight/scores", json={"prompt": ""}).json()["tokens"] == []
    assert len(client.post("/insight/next", json={"prompt": ""}).json()["likeliest"]) == 20
    assert client.post("/insight/layers", json={"prompt": ""}).status_code == 400


def test_layers_are_the_references(client, model, tiny_dir, logprobs):
    said = client.post("/insight/layers", json={"prompt": PROMPT}).json()
    hparams, ids = model.hparams, model.encoder.encode(PROMPT)
    weights = reference.read(open_model_dir(tiny_dir).read())
    seen = reference.trace(weights, hparams, ids)
    rows, columns = np.tril_indices(len(ids))
    assert len(said["attention"]) == hparams.n_layer and len(said["guesses"]) == hparams.n_layer + 1
    for text, shares in zip(said["attention"], seen.attention):
        values = np.frombuffer(base64.b64decode(text), "<u2").reshape(hparams.n_head, -1) / 65535
        np.testing.assert_allclose(values, shares[:, rows, columns], atol=1e-5)
    last = said["guesses"][-1]
    assert [place[0] for place in last["ids"]] == logprobs.argmax(-1).tolist()
    np.testing.assert_allclose(last["actual"], np.exp(logprobs[np.arange(len(ids) - 1), ids[1:]]), atol=1e-5)
    logits = np.frombuffer(base64.b64decode(said["logits"]), "<f4")
    np.testing.assert_allclose(logits - np.log(np.exp(logits).sum()), np.sort(logprobs[-1])[::-1], atol=1e-4)
    assert said["likeliest"][0] == int(logprobs[-1].argmax())
    assert all(said["pieces"][str(i)] == model.encoder.token_text(i) for place in last["ids"] for i in place)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("next", {"prompt": [100_000]}, 400),
        ("next", {"prompt": "a", "top": 0}, 400),
        ("next", {"prompt": "a", "top": 101}, 400),
        ("next", {}, 400),
        ("scores", {"prompt": [1, 2]}, 400),
        ("scores", {"prompt": "a", "model": "none"}, 404),
        ("layers", {"prompt": "a", "model": "nowhere"}, 404),
    ],
)
def test_what_is_refused(client, path, body, status):
    answer = client.post(f"/insight/{path}", json=body)
    assert answer.status_code == status and answer.json()["error"]["message"]


def test_what_would_take_minutes_is_refused_with_what_goes(client, model, monkeypatch):
    monkeypatch.setattr(introspection, "OPERATIONS", introspection.operations(model.hparams, 5))
    answer = client.post("/insight/layers", json={"prompt": PROMPT})
    assert answer.status_code == 400 and "it goes with 5" in answer.json()["error"]["message"]
    assert client.post("/insight/layers", json={"prompt": "the cat"}).status_code == 200


def test_weights_are_forgotten_when_nobody_uses_them(model, tiny_dir, monkeypatch):
    monkeypatch.setattr(introspection, "KEPT", 0.05)
    served = ServedModel("tiny", model, Scheduler(model), "float32", open_model_dir(tiny_dir))
    looking = introspection.Layers()
    looking.pool.submit(looking._look, served, [1, 2, 3]).result()
    assert looking.held is not None
    looking.forgetting.join()
    looking.pool.shutdown()
    assert looking.held is None


def test_it_needs_memory(model, tiny_dir, monkeypatch):
    served = ServedModel("tiny", model, Scheduler(model), "float32", open_model_dir(tiny_dir))
    needed = introspection.memory(model.hparams, 3)
    monkeypatch.setattr(introspection, "available_memory", lambda: needed)
    assert introspection.Layers().kept(served, [1, 2, 3]) == [1, 2, 3]
    monkeypatch.setattr(introspection, "available_memory", lambda: needed - 1)
    with pytest.raises(ApiError, match="not enough memory"):
        introspection.Layers().kept(served, [1, 2, 3])


def test_paths_need_the_key(model):
    served = ServedModel("tiny", model, Scheduler(model), "float32")
    asking = TestClient(create_app([served], ServerOptions(AccessLimits(api_key="k"))), base_url="http://localhost")
    for path in ("next", "scores", "layers"):
        assert asking.post(f"/insight/{path}", json={"prompt": "a"}).status_code == 401
