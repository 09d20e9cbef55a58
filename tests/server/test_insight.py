"""The endpoints of /insight: they return the numbers of the reference, and reject wrong requests."""

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
    """A client that calls the application without a socket."""
    served = ServedModel("tiny", model, Scheduler(model), "float32", open_model_dir(tiny_dir))
    nowhere = ServedModel("nowhere", model, Scheduler(model), "float32")
    for offered in (served, nowhere):
        offered.scheduler.start()
    with TestClient(create_app([served, nowhere], ServerOptions()), base_url="http://localhost") as http_client:
        yield http_client
    for offered in (served, nowhere):
        assert offered.scheduler.close(5)


@pytest.fixture(scope="module")
def logprobs(model, tiny_dir):
    """Log-probabilities [T, V] for the prompt by the reference."""
    weights = reference.read(open_model_dir(tiny_dir).read())
    logits = reference.logits(weights, model.hparams, model.encoder.encode(PROMPT))
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_next_tokens_are_those_of_the_reference(client, model, logprobs):
    tokens = client.post("/insight/next", json={"prompt": PROMPT, "top": 7}).json()["likeliest"]
    best = np.argsort(-logprobs[-1], kind="stable")[:7]
    assert [token["id"] for token in tokens] == best.tolist()
    np.testing.assert_allclose([token["logprob"] for token in tokens], logprobs[-1][best], atol=1e-4)
    assert [token["piece"] for token in tokens] == [model.encoder.token_text(token_id) for token_id in best]
    by_ids = client.post("/insight/next", json={"prompt": model.encoder.encode(PROMPT), "top": 7})
    assert by_ids.json()["likeliest"] == tokens


def test_scores_have_ranks_and_alternatives(client, model, logprobs):
    result = client.post("/insight/scores", json={"prompt": PROMPT, "top": 3}).json()
    ids = model.encoder.encode(PROMPT)
    assert [token["id"] for token in result["tokens"]] == ids and result["skipped"] == 0
    assert "".join(token["text"] for token in result["tokens"]) == PROMPT
    assert result["tokens"][-2]["text"] == ""  # half of é
    assert result["tokens"][0]["logprob"] is None and result["tokens"][0]["rank"] is None
    for position, token in enumerate(result["tokens"][1:]):
        logprob = logprobs[position][token["id"]]
        assert math.isclose(token["logprob"], logprob, abs_tol=1e-4)
        assert token["rank"] == 1 + (logprobs[position] > logprob).sum()
        assert [likely["id"] for likely in token["likeliest"]] == np.argsort(-logprobs[position])[:3].tolist()
    assert result["next"][0]["id"] == int(logprobs[-1].argmax())


def test_tokens_that_stand_for_no_text_have_none(client, model):
    likeliest = client.post("/insight/next", json={"prompt": "the", "top": 100}).json()["likeliest"]
    likeliest += client.post("/insight/next", json={"prompt": "dog", "top": 100}).json()["likeliest"]
    assert any(token["text"] == "" for token in likeliest)
    for token in likeliest:
        if token["text"]:
            assert model.encoder.decode([token["id"]]) == token["text"]
        else:
            assert "\ufffd" in model.encoder.decode([token["id"]]) or token["id"] == model.encoder.end_of_text


def test_a_text_beyond_the_context_keeps_its_end(client, model):
    long = PROMPT * 5
    count = len(model.encoder.encode(long))
    result = client.post("/insight/scores", json={"prompt": long}).json()
    assert len(result["tokens"]) + result["skipped"] == count and len(result["tokens"]) == model.hparams.n_ctx - 1
    assert long.endswith("".join(token["text"] for token in result["tokens"]))
    assert client.post("/insight/next", json={"prompt": long}).status_code == 200
    assert len(client.post("/insight/layers", json={"prompt": long}).json()["tokens"]) == model.hparams.n_ctx


def test_an_empty_text(client):
    assert client.post("/insight/scores", json={"prompt": ""}).json()["tokens"] == []
    assert len(client.post("/insight/next", json={"prompt": ""}).json()["likeliest"]) == 20
    assert client.post("/insight/layers", json={"prompt": ""}).status_code == 400


def test_layers_are_those_of_the_reference(client, model, tiny_dir, logprobs):
    result = client.post("/insight/layers", json={"prompt": PROMPT}).json()
    hparams, ids = model.hparams, model.encoder.encode(PROMPT)
    weights = reference.read(open_model_dir(tiny_dir).read())
    trace = reference.trace(weights, hparams, ids)
    rows, columns = np.tril_indices(len(ids))
    assert len(result["attention"]) == hparams.n_layer and len(result["guesses"]) == hparams.n_layer + 1
    for encoded, attention in zip(result["attention"], trace.attention):
        values = np.frombuffer(base64.b64decode(encoded), "<u2").reshape(hparams.n_head, -1) / 65535
        np.testing.assert_allclose(values, attention[:, rows, columns], atol=1e-5)
    last = result["guesses"][-1]
    assert [ids_at_position[0] for ids_at_position in last["ids"]] == logprobs.argmax(-1).tolist()
    np.testing.assert_allclose(last["actual"], np.exp(logprobs[np.arange(len(ids) - 1), ids[1:]]), atol=1e-5)
    logits = np.frombuffer(base64.b64decode(result["logits"]), "<f4")
    np.testing.assert_allclose(logits - np.log(np.exp(logits).sum()), np.sort(logprobs[-1])[::-1], atol=1e-4)
    assert result["likeliest"][0] == int(logprobs[-1].argmax())
    for token in np.ravel(last["ids"]).tolist():
        assert result["pieces"][str(token)] == model.encoder.token_text(token)


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
def test_wrong_requests_are_rejected(client, path, body, status):
    response = client.post(f"/insight/{path}", json=body)
    assert response.status_code == status and response.json()["error"]["message"]


def test_a_text_that_would_take_minutes_is_rejected_with_the_allowed_length(client, model, monkeypatch):
    monkeypatch.setattr(introspection, "MAX_OPERATIONS", introspection.count_operations(model.hparams, 5))
    response = client.post("/insight/layers", json={"prompt": PROMPT})
    assert response.status_code == 400 and "shorten the text to 5 tokens" in response.json()["error"]["message"]
    assert client.post("/insight/layers", json={"prompt": "the cat"}).status_code == 200


def test_unused_weights_are_dropped(model, tiny_dir, monkeypatch):
    monkeypatch.setattr(introspection, "KEEP_WEIGHTS_SECONDS", 1)
    served = ServedModel("tiny", model, Scheduler(model), "float32", open_model_dir(tiny_dir))
    inspector = introspection.LayerInspector()
    inspector.pool.submit(inspector._inspect, served, [1, 2, 3]).result()
    assert inspector.loaded is not None
    inspector.timer.join()
    inspector.pool.shutdown()
    assert inspector.loaded is None


def test_a_text_that_needs_too_much_memory_is_rejected(model, tiny_dir, monkeypatch):
    served = ServedModel("tiny", model, Scheduler(model), "float32", open_model_dir(tiny_dir))
    needed = introspection.count_bytes(model.hparams, 3)
    monkeypatch.setattr(introspection, "available_memory", lambda: needed)
    assert introspection.LayerInspector().truncate(served, [1, 2, 3]) == [1, 2, 3]
    monkeypatch.setattr(introspection, "available_memory", lambda: needed - 1)
    with pytest.raises(ApiError, match="not enough memory"):
        introspection.LayerInspector().truncate(served, [1, 2, 3])


def test_all_paths_need_the_key(model):
    served = ServedModel("tiny", model, Scheduler(model), "float32")
    client = TestClient(create_app([served], ServerOptions(AccessLimits(api_key="k"))), base_url="http://localhost")
    for path in ("next", "scores", "layers"):
        assert client.post(f"/insight/{path}", json={"prompt": "a"}).status_code == 401
