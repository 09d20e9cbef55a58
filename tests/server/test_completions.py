"""What OpenAI's official client and plain requests get from /v1/completions, beside what the library writes itself."""

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


def written(model, prompt=PROMPT, length=12, sample=0, seed=1, **settings):
    """The library's own completion."""
    sampling = settings.pop("sampling", Sampling())
    request = Request(prompt, length, sampling, seed, sample, end_of_text=True, **settings)
    return next(generate.completions(model, [request]))


@pytest.fixture
def official(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_official_client_gets_the_librarys_text(official, native_tiny_model):
    answer = official.completions.create(model="tiny", prompt=PROMPT, max_tokens=12, seed=1)
    expected = written(native_tiny_model)
    assert answer.choices[0].text == expected.text
    assert answer.choices[0].finish_reason == expected.ended == "length"
    assert answer.usage.prompt_tokens == len(native_tiny_model.encoder.encode(PROMPT))
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12


def test_it_streams_the_same_text(official, native_tiny_model, monkeypatch):
    monkeypatch.setattr(scheduler, "TELLING", 0)
    options = {"include_usage": True}
    parts = list(
        official.completions.create(
            model="tiny", prompt=PROMPT, max_tokens=30, seed=3, stream=True, stream_options=options
        )
    )
    text = "".join(part.choices[0].text for part in parts if part.choices)
    assert text == written(native_tiny_model, length=30, seed=3).text
    assert [part.choices[0].finish_reason for part in parts if part.choices][-1] == "length"
    assert parts[-1].usage.completion_tokens == 30 and not parts[-1].choices
    assert len(parts) > 10


def test_log_probabilities_of_the_prompt_and_of_the_text(official, native_tiny_model):
    answer = official.completions.create(
        model="tiny", prompt=PROMPT, max_tokens=5, seed=1, logprobs=3, echo=True, temperature=0.7
    )
    expected = written(native_tiny_model, length=5, logprobs=3, echo=True, sampling=Sampling(temperature=0.7))
    found, choices = answer.choices[0].logprobs, [*expected.prompt, *expected.tokens]
    assert answer.choices[0].text == PROMPT + expected.text
    assert found.token_logprobs[0] is None and found.top_logprobs[0] is None
    assert found.token_logprobs[1:] == [choice.logprob for choice in choices[1:]]
    piece = native_tiny_model.encoder.token_text
    for choice, top in zip(choices[1:], found.top_logprobs[1:]):
        assert top == {piece(i): x for i, x in [*choice.top_logprobs, (choice.id, choice.logprob)]}
    assert "".join(found.tokens[: len(expected.prompt)]) == PROMPT
    text = answer.choices[0].text
    for token, offset in zip(found.tokens[: len(expected.prompt)], found.text_offset):
        assert text[offset : offset + len(token)] == token


def test_a_prompt_is_scored_alone(client, native_tiny_model):
    ids = native_tiny_model.encoder.encode(PROMPT)
    body = {"prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 0}
    answer = client.post("/v1/completions", json=body).json()
    expected = written(native_tiny_model, prompt=ids, length=0, echo=True)
    choice = answer["choices"][0]
    assert choice["text"] == PROMPT
    assert choice["logprobs"]["token_logprobs"] == [None, *(one.logprob for one in expected.prompt[1:])]
    assert answer["usage"]["completion_tokens"] == 0


def test_several_prompts_and_several_texts_of_each(client, native_tiny_model):
    prompts = [PROMPT, "the dog"]
    body = {"prompt": prompts, "n": 2, "max_tokens": 6, "seed": 5}
    choices = client.post("/v1/completions", json=body).json()["choices"]
    samples = [(prompt, number * 2 + i) for number, prompt in enumerate(prompts) for i in range(2)]
    texts = [written(native_tiny_model, prompt, 6, sample, 5).text for prompt, sample in samples]
    assert [choice["text"] for choice in choices] == texts
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]


def test_the_best_of_several(client, native_tiny_model):
    body = {"prompt": PROMPT, "n": 2, "best_of": 6, "max_tokens": 6, "seed": 5}
    answer = client.post("/v1/completions", json=body).json()
    all_of_them = [written(native_tiny_model, length=6, sample=sample, seed=5) for sample in range(6)]
    means = {one.text: sum(token.logprob for token in one.tokens) / len(one.tokens) for one in all_of_them}
    best = sorted(means, key=lambda text: -means[text])
    assert [choice["text"] for choice in answer["choices"]] == best[:2]
    assert answer["usage"]["completion_tokens"] == 36


def test_a_stop_string_ends_a_text_and_is_no_part_of_it(client, native_tiny_model):
    whole = written(native_tiny_model, length=30).text
    stop = whole[8:11]
    body = {"prompt": PROMPT, "max_tokens": 30, "seed": 1, "stop": stop, "logprobs": 1}
    choice = client.post("/v1/completions", json=body).json()["choices"][0]
    assert choice["text"] == whole[: whole.index(stop)]
    assert choice["finish_reason"] == "stop"
    assert all(offset < len(choice["text"]) for offset in choice["logprobs"]["text_offset"])


def test_the_end_of_text_token_ends_it_unless_that_is_ignored(client, native_tiny_model):
    end = native_tiny_model.encoder.end_of_text
    body = {"prompt": PROMPT, "max_tokens": 3, "logit_bias": {str(end): 100}}
    ended = client.post("/v1/completions", json=body).json()["choices"][0]
    assert (ended["text"], ended["finish_reason"]) == ("", "stop")
    going_on = client.post("/v1/completions", json={**body, "ignore_eos": True}).json()["choices"][0]
    assert (going_on["text"], going_on["finish_reason"]) == ("<|endoftext|>" * 3, "length")


@pytest.mark.parametrize("prompt", [None, "", [""]])
def test_from_nothing(client, native_tiny_model, prompt):
    body = {"prompt": prompt, "max_tokens": 8, "seed": 2}
    assert client.post("/v1/completions", json=body).json()["choices"][0]["text"] == (
        written(native_tiny_model, None, 8, seed=2).text
    )


@pytest.mark.parametrize(
    "body, status, said, param",
    [
        ({"suffix": "x"}, 400, "forwards only", "suffix"),
        ({"model": "none"}, 404, "there is no model 'none' here; there is tiny", "model"),
        ({"n": 3, "best_of": 2}, 400, "at least n", "best_of"),
        ({"best_of": 2, "stream": True}, 400, "cannot be streamed", "best_of"),
        ({"n": 100, "prompt": ["a", "b"]}, 400, "at most 128 texts", "n"),
        ({"max_tokens": 5000}, 400, "at most 4096", "max_tokens"),
        ({"max_tokens": -1}, 400, "greater than or equal to 0", "max_tokens"),
        ({"temperature": -1}, 400, "greater than or equal to 0", "temperature"),
        ({"temperature": "hot"}, 400, "temperature: ", "temperature"),
        ({"prompt": 5}, 400, "text, ids, or several", "prompt"),
        ({"prompt": [10**6]}, 400, "from 0 to", "prompt"),
        ({"prompt": [10**30]}, 400, "from 0 to", "prompt"),
        ({"prompt": []}, 400, "prompt", "prompt"),
        ({"prompt": [1] * 40}, 400, "context is 32 tokens and the prompt has 40", "prompt"),
        ({"logit_bias": {"x": 1}}, 400, "ids from 0 to", "logit_bias"),
        ({"logit_bias": {"99999999999999": 1}}, 400, "ids from 0 to", "logit_bias"),
        ({"stop": ""}, 400, "stop", "stop"),
        ({"logprobs": 21}, 400, "less than or equal to 20", "logprobs"),
        ({"seed": 2**64}, 400, "seed", "seed"),
    ],
)
def test_what_cannot_be_is_refused_in_openais_shape(client, body, status, said, param):
    answer = client.post("/v1/completions", json={"prompt": PROMPT, **body})
    error = answer.json()["error"]
    assert answer.status_code == status
    assert said in error["message"] and error["param"] == param and "\n" not in error["message"]
    assert error["type"] == "invalid_request_error"


def test_the_official_client_raises_its_own_errors(official):
    with pytest.raises(openai.NotFoundError, match="there is no model"):
        official.completions.create(model="none", prompt="x")
    with pytest.raises(openai.NotFoundError, match="no chat model"):
        official.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hello"}])
    assert [one.id for one in official.models.list()] == ["tiny"]
    assert official.models.retrieve("tiny").id == "tiny"


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[1]", b'"text"', b"", b"[" * 100_000, b"NaN"])
def test_what_is_no_request_is_refused(client, content):
    answer = client.post("/v1/completions", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and "JSON object" in answer.json()["error"]["message"]


def ragged(rng, number):
    return {
        "prompt": " ".join(rng.choice(["the", "cat", "sat", "mat", "log"]) for _ in range(rng.randint(1, 20))),
        "max_tokens": rng.randint(1, 24),
        "temperature": rng.choice([0, 0.8, 1.3]),
        "top_k": rng.choice([0, 5]),
        "seed": number,
    }


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_text_does_not_depend_on_what_else_is_written(native, tiny_dir, precision):
    bodies = [ragged(random.Random(number), number) for number in range(64)]
    model = generate.load(str(tiny_dir), precision=precision)
    with serving({"tiny": model}, rows=32, waiting=64) as address, httpx.Client(base_url=address, timeout=60) as client:

        def text(body):
            return client.post("/v1/completions", json=body).json()["choices"][0]["text"]

        alone = [text(body) for body in bodies]
        order = random.Random(1).sample(range(64), 64)
        with ThreadPoolExecutor(64) as threads:
            together = dict(zip(order, threads.map(text, [bodies[number] for number in order])))
    assert [together[number] for number in range(64)] == alone
    assert len(set(alone)) > 50


def test_streams_never_hold_half_a_character(client):
    """The tiny model writes bytes at random: what is streamed is, put together, what is answered at once."""
    body = {"prompt": "é", "max_tokens": 200, "seed": 7, "ignore_eos": True}
    whole = client.post("/v1/completions", json=body).json()["choices"][0]["text"]
    with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines.pop() == "[DONE]"
    assert "".join(json.loads(line)["choices"][0]["text"] for line in lines) == whole
    assert "\ufffd" in whole and len(whole.encode("utf-8")) > 100
