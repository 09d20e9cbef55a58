"""Rows, their settings and their errors."""

import dataclasses

import pytest

from gpt2.bulk.rows import InputRecord, RowDefaults, parse_row
from gpt2.request import Request, Sampling

JOB = RowDefaults(Request(None, 20, Sampling(top_k=40), seed=7, end_of_text=True))


def row(values, defaults=JOB, number=3, settings=True):
    return parse_row(InputRecord(number, values, settings), defaults)


def test_a_row_without_settings_has_the_jobs_and_its_own_number():
    parsed = row({"prompt": "the cat"})
    assert parsed.requests == (dataclasses.replace(JOB.request, prompt="the cat", sample=3),)
    assert (parsed.number, parsed.id, parsed.logprobs, parsed.error) == (3, 3, None, "")


def test_settings_of_a_row():
    own = {"max_tokens": 5, "temperature": 0, "top_k": 0, "top_p": 0.5, "min_p": 0.1, "seed": 9, "stop": "x"}
    own |= {"repetition_penalty": 1.2, "frequency_penalty": 1, "presence_penalty": -1, "logit_bias": {"4": -5}}
    [request] = row({"id": "a", "prompt": "the", **own, "ignore_eos": True}).requests
    sampling = Sampling(0, 0, 0.5, 1.2, 1, -1, 0.1, {4: -5})
    assert request == Request("the", 5, sampling, seed=9, sample=0, stop="x", end_of_text=False)
    assert row({"prompt": "the", "length": 5}).requests[0].length == 5
    assert row({"prompt": "the", "temperature": None, "stop": None}).requests[0].sampling == JOB.request.sampling


def test_a_table_has_no_settings():
    assert row({"prompt": "the", "temperature": "hot"}, settings=False).requests[0].sampling.temperature == 1


def test_each_text_of_a_row_has_its_own_random_numbers():
    with_the_jobs_seed = row({"prompt": "the", "n": 3}).requests + row({"prompt": "the", "n": 3}, number=4).requests
    assert len({(one.seed, one.sample) for one in with_the_jobs_seed}) == 6
    assert [(one.seed, one.sample) for one in row({"prompt": "the", "n": 2, "seed": 5}).requests] == [(5, 0), (5, 1)]
    assert row({"prompt": "the", "seed": 5, "sample": 8}).requests[0].sample == 8


def test_openai_rows():
    body = {"model": "gpt2", "prompt": ["the", "a cat"], "n": 2, "max_tokens": 3, "logprobs": 0, "user": "me"}
    parsed = row({"custom_id": "x-1", "method": "POST", "url": "/v1/completions", "body": body})
    assert (parsed.id, parsed.is_openai, parsed.logprobs) == ("x-1", True, 0)
    assert [(request.prompt, request.length) for request in parsed.requests] == [("the", 3)] * 2 + [("a cat", 3)] * 2
    assert len({request.sample for request in parsed.requests}) == 4
    assert row({"custom_id": "x", "body": {"prompt": [5, 6, 7]}}).requests[0].prompt == [5, 6, 7]
    assert row({"custom_id": "x", "body": {"prompt": None}}).requests[0].prompt is None


def test_templates_and_names_of_columns():
    defaults = dataclasses.replace(JOB, template="{brand} {name}: {{}}", id_column="name")
    parsed = row({"name": "kettle", "brand": 3}, defaults, settings=False)
    assert (parsed.requests[0].prompt, parsed.id) == ("3 kettle: {{}}", "kettle")
    assert row({"q": "the"}, dataclasses.replace(JOB, column="q")).requests[0].prompt == "the"
    assert "'brand'" in row({"name": "kettle"}, defaults).error


WRONG = [
    ({}, "the row has no 'prompt'"),
    ({"prompt": ""}, "the prompt is empty"),
    ({"prompt": []}, "the prompt is empty"),
    ({"prompt": {"a": 1}}, "the prompt must be text"),
    ({"prompt": 5}, "the prompt must be text"),
    ({"prompt": "\ud800"}, "half a character"),
    ({"prompt": "a", "length": -1}, "length"),
    ({"prompt": "a", "length": "5"}, "length"),
    ({"prompt": "a", "length": 2.5}, "length"),
    ({"prompt": "a", "temperature": "hot"}, "temperature"),
    ({"prompt": "a", "temperature": float("nan")}, "temperature"),
    ({"prompt": "a", "top_p": 2}, "top_p"),
    ({"prompt": "a", "seed": "x"}, "seed"),
    ({"prompt": "a", "seed": 2**64}, "seed"),
    ({"prompt": "a", "sample": -1, "seed": 1}, "sample"),
    ({"prompt": "a", "n": 0}, "n must be"),
    ({"prompt": "a", "n": 5000}, "at most 1024 texts"),
    ({"prompt": "a", "stop": 5}, "stop"),
    ({"prompt": "a", "stop": [""]}, "stop"),
    ({"prompt": "a", "stop": [5]}, "stop"),
    ({"prompt": "a", "logprobs": True}, "logprobs"),
    ({"prompt": "a", "logit_bias": [1]}, "logit_bias"),
    ({"prompt": "a", "logit_bias": {"x": 1}}, "logit_bias"),
    ({"prompt": "a", "logit_bias": {"1": "much"}}, "logit_bias"),
    ({"custom_id": "x"}, "body must be an object"),
    ({"custom_id": "x", "body": {"messages": [{"role": "user"}], "prompt": "a"}}, "messages is not supported"),
    ({"custom_id": "x", "body": {"prompt": "a", "best_of": 3}}, "best_of is not supported"),
]


@pytest.mark.parametrize(("values", "message"), WRONG, ids=[message for _, message in WRONG])
def test_an_invalid_row_has_an_error(values, message):
    parsed = row(values)
    assert message in parsed.error and not parsed.requests
    assert parsed.id == values.get("custom_id", 3)
