"""Responses of /v1/completions to OpenAI's client and to plain requests, compared with the library's own texts."""

import json
import random
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from served import serving

from gpt2 import generate
from gpt2.request import PRECISIONS, Request, Sampling
from gpt2.server import scheduler

PROMPT = "the cat sat"


def complete(model, prompt=PROMPT, length=12, sample=0, seed=1, **settings):
    """Return the library's own completion."""
    sampling = settings.pop("sampling", Sampling())
    request = Request(prompt, length, sampling, seed, sample, end_of_text=True, **settings)
    return next(generate.completions(model, [request]))


@pytest.fixture
def official(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_official_client_gets_the_text_of_the_library(official, native_tiny_model):
    response = official.completions.create(model="tiny", prompt=PROMPT, max_tokens=12, seed=1)
    expected = complete(native_tiny_model)
    assert response.choices[0].text == expected.text
    assert response.choices[0].finish_reason == expected.finish_reason == "length"
    assert response.usage.prompt_tokens == len(native_tiny_model.encoder.encode(PROMPT))
    assert response.usage.completion_tokens == 12
    assert response.usage.total_tokens == response.usage.prompt_tokens + 12


def test_a_streamed_text_is_the_same(official, native_tiny_model, monkeypatch):
    monkeypatch.setattr(scheduler, "UPDATE_INTERVAL_SECONDS", 0)
    options = {"include_usage": True}
    parts = list(
        official.completions.create(
            model="tiny", prompt=PROMPT, max_tokens=30, seed=3, stream=True, stream_options=options
        )
    )
    text = "".join(part.choices[0].text for part in parts if part.choices)
    assert text == complete(native_tiny_model, length=30, seed=3).text
    assert [part.choices[0].finish_reason for part in parts if part.choices][-1] == "length"
    assert parts[-1].usage.completion_tokens == 30 and not parts[-1].choices
    assert len(parts) > 10


def test_log_probabilities_of_prompt_and_text(official, native_tiny_model):
    response = official.completions.create(
        model="tiny", prompt=PROMPT, max_tokens=5, seed=1, logprobs=3, echo=True, temperature=0.7
    )
    expected = complete(native_tiny_model, length=5, logprobs=3, echo=True, sampling=Sampling(temperature=0.7))
    logprobs = response.choices[0].logprobs
    choices = [*expected.prompt, *expected.tokens]
    assert response.choices[0].text == PROMPT + expected.text
    assert logprobs.token_logprobs[0] is None and logprobs.top_logprobs[0] is None
    assert logprobs.token_logprobs[1:] == [choice.logprob for choice in choices[1:]]
    token_text = native_tiny_model.encoder.token_text
    for choice, top in zip(choices[1:], logprobs.top_logprobs[1:]):
        assert top == {
            token_text(token): logprob for token, logprob in [*choice.top_logprobs, (choice.id, choice.logprob)]
        }
    assert "".join(logprobs.tokens[: len(expected.prompt)]) == PROMPT
    text = response.choices[0].text
    for token, offset in zip(logprobs.tokens[: len(expected.prompt)], logprobs.text_offset):
        assert text[offset : offset + len(token)] == token


def test_only_the_prompt_is_scored(client, native_tiny_model):
    ids = native_tiny_model.encoder.encode(PROMPT)
    body = {"prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 0}
    response = client.post("/v1/completions", json=body).json()
    expected = complete(native_tiny_model, prompt=ids, length=0, echo=True)
    choice = response["choices"][0]
    assert choice["text"] == PROMPT
    assert choice["logprobs"]["token_logprobs"] == [None, *(token.logprob for token in expected.prompt[1:])]
    assert response["usage"]["completion_tokens"] == 0


def test_several_prompts_with_several_texts_each(client, native_tiny_model):
    prompts = [PROMPT, "the dog"]
    body = {"prompt": prompts, "n": 2, "max_tokens": 6, "seed": 5}
    choices = client.post("/v1/completions", json=body).json()["choices"]
    samples = [(prompt, number * 2 + i) for number, prompt in enumerate(prompts) for i in range(2)]
    texts = [complete(native_tiny_model, prompt, 6, sample, 5).text for prompt, sample in samples]
    assert [choice["text"] for choice in choices] == texts
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]


def test_best_of(client, native_tiny_model):
    body = {"prompt": PROMPT, "n": 2, "best_of": 6, "max_tokens": 6, "seed": 5}
    response = client.post("/v1/completions", json=body).json()
    candidates = [complete(native_tiny_model, length=6, sample=sample, seed=5) for sample in range(6)]
    means = {
        candidate.text: sum(token.logprob for token in candidate.tokens) / len(candidate.tokens)
        for candidate in candidates
    }
    best = sorted(means, key=lambda text: -means[text])
    assert [choice["text"] for choice in response["choices"]] == best[:2]
    assert response["usage"]["completion_tokens"] == 36


def test_a_stop_string_ends_a_text_and_is_not_part_of_it(client, native_tiny_model):
    whole = complete(native_tiny_model, length=30).text
    stop = whole[8:11]
    body = {"prompt": PROMPT, "max_tokens": 30, "seed": 1, "stop": stop, "logprobs": 1}
    choice = client.post("/v1/completions", json=body).json()["choices"][0]
    assert choice["text"] == whole[: whole.index(stop)]
    assert choice["finish_reason"] == "stop"
    assert all(offset < len(choice["text"]) for offset in choice["logprobs"]["text_offset"])


def test_the_end_of_text_token_ends_a_text_unless_it_is_ignored(client, native_tiny_model):
    end = native_tiny_model.encoder.end_of_text
    body = {"prompt": PROMPT, "max_tokens": 3, "logit_bias": {str(end): 100}}
    ended = client.post("/v1/completions", json=body).json()["choices"][0]
    assert (ended["text"], ended["finish_reason"]) == ("", "stop")
    continued = client.post("/v1/completions", json={**body, "ignore_eos": True}).json()["choices"][0]
    assert (continued["text"], continued["finish_reason"]) == ("<|endoftext|>" * 3, "length")


@pytest.mark.parametrize("prompt", [None, "", [""]])
def test_no_prompt(client, native_tiny_model, prompt):
    body = {"prompt": prompt, "max_tokens": 8, "seed": 2}
    assert client.post("/v1/completions", json=body).json()["choices"][0]["text"] == (
        complete(native_tiny_model, None, 8, seed=2).text
    )


@pytest.mark.parametrize(
    "body, status, message, param",
    [
        ({"suffix": "x"}, 400, "forward only", "suffix"),
        ({"model": "none"}, 404, "model 'none' is not served here; choose one of: tiny", "model"),
        ({"n": 3, "best_of": 2}, 400, "at least n", "best_of"),
        ({"best_of": 2, "stream": True}, 400, "cannot be streamed", "best_of"),
        ({"n": 100, "prompt": ["a", "b"]}, 400, "at most 128 texts", "n"),
        ({"max_tokens": 5000}, 400, "must be at most 4096", "max_tokens"),
        ({"max_tokens": -2}, 400, "greater than or equal to -1, not -2", "max_tokens"),
        ({"temperature": -1}, 400, "greater than or equal to 0", "temperature"),
        ({"temperature": "hot"}, 400, "temperature: ", "temperature"),
        ({"prompt": 5}, 400, "text, token ids, or a list of either", "prompt"),
        ({"prompt": [10**6]}, 400, "from 0 to", "prompt"),
        ({"prompt": [10**30]}, 400, "from 0 to", "prompt"),
        ({"prompt": []}, 400, "prompt", "prompt"),
        ({"prompt": [1] * 40}, 400, "context is 32 tokens and the prompt has 40", "prompt"),
        ({"logit_bias": {"x": 1}}, 400, "ids from 0 to", "logit_bias"),
        ({"logit_bias": {"99999999999999": 1}}, 400, "ids from 0 to", "logit_bias"),
        ({"logprobs": 21}, 400, "less than or equal to 20", "logprobs"),
        ({"seed": 2**64}, 400, "seed", "seed"),
    ],
)
def test_wrong_requests_get_errors_in_the_form_of_openai(client, body, status, message, param):
    response = client.post("/v1/completions", json={"prompt": PROMPT, **body})
    error = response.json()["error"]
    assert response.status_code == status
    assert message in error["message"] and error["param"] == param and "\n" not in error["message"]
    assert error["type"] == "invalid_request_error"


def test_the_official_client_raises_its_own_errors(official):
    with pytest.raises(openai.NotFoundError, match="is not served here"):
        official.completions.create(model="none", prompt="x")
    with pytest.raises(openai.NotFoundError, match="not a chat model"):
        official.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hello"}])
    assert [model.id for model in official.models.list()] == ["tiny"]
    assert official.models.retrieve("tiny").id == "tiny"


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[1]", b'"text"', b"", b"[" * 100_000, b"NaN"])
def test_a_body_that_is_not_a_request_is_rejected(client, content):
    response = client.post("/v1/completions", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 400 and "JSON object" in response.json()["error"]["message"]


def random_body(rng, number):
    return {
        "prompt": " ".join(rng.choice(["the", "cat", "sat", "mat", "log"]) for _ in range(rng.randint(1, 20))),
        "max_tokens": rng.randint(1, 24),
        "temperature": rng.choice([0, 0.8, 1.3]),
        "top_k": rng.choice([0, 5]),
        "seed": number,
    }


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_text_does_not_depend_on_other_texts(native, tiny_dir, precision):
    bodies = [random_body(random.Random(number), number) for number in range(64)]
    model = generate.load(str(tiny_dir), precision=precision)
    with (
        serving({"tiny": model}, batch_size=32, queue_size=64) as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):

        def generate_text(body):
            return client.post("/v1/completions", json=body).json()["choices"][0]["text"]

        alone = [generate_text(body) for body in bodies]
        order = random.Random(1).sample(range(64), 64)
        with ThreadPoolExecutor(64) as threads:
            together = dict(zip(order, threads.map(generate_text, [bodies[number] for number in order])))
    assert [together[number] for number in range(64)] == alone
    assert len(set(alone)) > 50


def test_streams_never_split_a_character(client):
    """The tiny model generates random bytes; the parts of the stream make up the whole text."""
    body = {"prompt": "é", "max_tokens": 200, "seed": 7, "ignore_eos": True}
    whole = client.post("/v1/completions", json=body).json()["choices"][0]["text"]
    with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines.pop() == "[DONE]"
    assert "".join(json.loads(line)["choices"][0]["text"] for line in lines) == whole
    assert "\ufffd" in whole and len(whole.encode("utf-8")) > 100
