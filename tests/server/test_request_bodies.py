"""Bodies of requests: characters, numbers and lists of any form get a text, or an error that names what is wrong."""

import json

import pytest

LONG_NUMBER = "9" * 10_000
MAX_TOKENS = 20  # of the server of `local_client`
PATHS = (
    "/v1/completions",
    "/tokenize",
    "/detokenize",
    "/autocomplete",
    "/insight/next",
    "/insight/scores",
    "/insight/layers",
)


def post(client, body, path="/v1/completions", **headers):
    """Send a body, which is JSON text or an object, without a Content-Type unless `headers` have one."""
    content = body if isinstance(body, (str, bytes)) else json.dumps(body)
    return client.post(path, content=content, headers=headers)


def error_of(response):
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error" and "\n" not in error["message"]
    return error


@pytest.mark.parametrize(
    "sent, expected",
    [
        (r"x\udfff", "x\ufffd"),
        (r"\ud83d", "\ufffd"),
        (r"\uDe00a\uD83D", "\ufffda\ufffd"),
        (r"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (r"\\udfff \ud800", "\\udfff \ufffd"),
    ],
)
def test_a_lone_surrogate_becomes_the_replacement_character(local_client, sent, expected):
    body = f'{{"prompt": "{sent}", "echo": true, "max_tokens": 0, "logprobs": 1, "user": "{sent}", "{sent}": 1}}'
    choice = post(local_client, body).json()["choices"][0]
    assert choice["text"] == expected
    tokenized = post(local_client, f'{{"prompt": "{sent}"}}', "/tokenize").json()
    assert post(local_client, {"tokens": tokenized["tokens"]}, "/detokenize").json() == {"prompt": expected}


@pytest.mark.parametrize(
    "path, body",
    [
        ("/v1/completions", r'{"prompt": ["a", "\ud800"], "stop": ["\udc00", "\ud83d"], "max_tokens": 2}'),
        ("/autocomplete", r'"the cat \ud83d"'),
        ("/insight/next", r'{"prompt": "\udbff"}'),
        ("/insight/scores", r'{"prompt": "the \ude00 cat"}'),
        ("/insight/layers", r'{"prompt": "the cat\ud83d"}'),
    ],
)
def test_all_paths_take_lone_surrogates(local_client, path, body):
    assert post(local_client, body, path).status_code == 200


def test_a_lone_surrogate_in_a_name_is_part_of_an_error(local_client):
    response = post(local_client, r'{"model": "\ud800"}')
    assert response.status_code == 404 and "'\ufffd' is not served here" in response.json()["error"]["message"]
    assert "'\ufffd'" in error_of(post(local_client, r'{"logit_bias": {"\udfff": 1}}'))["message"]


@pytest.mark.parametrize(
    "key",
    ["9" * 5001, "0" * 5001, "007", "00", "000000000000099999999", "１２", "+5", "-0", "-1", "1_0", " 7 ", "7\n", "1e1"]
    + ["5.0", "", "NaN", "²", "0x5", "99999999999999999999", "٣"],
)
def test_a_key_of_logit_bias_is_an_id_in_its_usual_form(local_client, key):
    error = error_of(post(local_client, {"logit_bias": {key: 1}, "max_tokens": 1}))
    assert "must be token ids from 0 to" in error["message"] and error["param"] == "logit_bias"
    assert len(error["message"]) < 200


def test_keys_of_logit_bias_are_used(local_client):
    body = {"logit_bias": {"0": 100, "7": -100}, "max_tokens": 2, "logprobs": 0}
    assert post(local_client, body).json()["choices"][0]["logprobs"]["tokens"] == ["!"] * 2


@pytest.mark.parametrize("number", [LONG_NUMBER, "-" + LONG_NUMBER, "1e400", "-1e400", "NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize(
    "name", ["max_tokens", "temperature", "top_p", "n", "best_of", "logprobs", "seed", "min_p", "frequency_penalty"]
)
def test_numbers_without_limit_are_rejected_by_name(local_client, name, number):
    error = error_of(post(local_client, f'{{"prompt": "a", "{name}": {number}}}'))
    assert error["param"] == name and name in error["message"] and len(error["message"]) < 200


@pytest.mark.parametrize(
    "body, message",
    [
        ('{"top_k": -2}', "top_k: "),
        ('{"top_k": 1e400}', "top_k: "),
        (f'{{"logit_bias": {{"5": {LONG_NUMBER}}}}}', "logit_bias.5: "),
        (f'{{"prompt": [{LONG_NUMBER}]}}', "from 0 to"),
        (f'{{"prompt": [-{LONG_NUMBER}]}}', "element 0 must be a token id"),
        ('{"max_tokens": "１２"}', "max_tokens: "),
        (f'{{"max_tokens": "{LONG_NUMBER}"}}', "max_tokens: "),
        ('{"max_tokens": 2.5}', "max_tokens: "),
        ('{"max_tokens": true}', "max_tokens must be a number, not true"),
        ('{"temperature": false}', "temperature must be a number, not false"),
        ('{"logit_bias": {"5": false}}', "must be a number, not false"),
        ('{"seed": 1e30}', "seed: "),
        ('{"seed": 18446744073709551616}', "seed must be from -9223372036854775808 to 18446744073709551615, not 1844"),
        ('{"seed": -9223372036854775809}', "seed must be from -9223372036854775808 to 18446744073709551615, not -922"),
        ('{"prompt": "a\nb"}', "it is not JSON: Invalid control character at line 1, column 14"),
    ],
)
def test_other_wrong_numbers(local_client, body, message):
    assert message in error_of(post(local_client, body))["message"]


@pytest.mark.parametrize("number", ["-0", "-0.0", "5e-324", "1e-320", "0.00000", "0e999999999"])
@pytest.mark.parametrize("name", ["temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty"])
def test_tiny_numbers(local_client, name, number):
    assert post(local_client, f'{{"prompt": "a", "max_tokens": 3, "{name}": {number}}}').status_code == 200


@pytest.mark.parametrize("number", [LONG_NUMBER, "-1", "0", str(2**31), str(2**63), str(2**64)])
def test_large_values_of_top_k_are_off(local_client, number):
    body = f'{{"prompt": "a", "seed": 3, "max_tokens": 5, "top_k": {number}}}'
    off = post(local_client, {"prompt": "a", "seed": 3, "max_tokens": 5})
    assert post(local_client, body).json()["choices"] == off.json()["choices"]


@pytest.mark.parametrize("path, field", [("/detokenize", "tokens"), ("/insight/next", "prompt")])
@pytest.mark.parametrize(
    "ids", [f"[{LONG_NUMBER}]", "[99999]", "[-1]", "[1.5]", "[true]", "[null]", '["1"]', "5", "{}"]
)
def test_wrong_ids(local_client, path, field, ids):
    error = error_of(post(local_client, f'{{"{field}": {ids}}}', path))
    assert error["param"] == field and field in error["message"]
    assert "from 0 to" in error["message"] or "token id" in error["message"]


@pytest.mark.parametrize(
    "content_type",
    [None, "text/plain", "application/x-www-form-urlencoded", "application/octet-stream", "json", "", "text/json; x"],
)
@pytest.mark.parametrize("path", PATHS)
def test_a_body_is_json_whatever_its_content_type(local_client, path, content_type):
    body = {"/detokenize": {"tokens": [1]}, "/autocomplete": '"the cat"'}.get(path, {"prompt": "the cat"})
    headers = {} if content_type is None else {"content-type": content_type}
    assert post(local_client, body, path, **headers).status_code == 200
    foreign = post(local_client, body, path, origin="https://evil.example", **headers)
    assert foreign.status_code == 403 and foreign.json()["error"]["code"] == "origin_not_allowed"


@pytest.mark.parametrize(
    "body, reason",
    [
        (b"", "but it is empty"),
        (b" \n", "but it is empty"),
        (b"prompt=hello", "but it is not JSON: Expecting value at line 1, column 1"),
        (b'{"prompt": "a",}', "but it is not JSON"),
        (b'{"prompt": "\xff"}', "but it is not UTF-8: invalid start byte at byte 12"),
        (b'{"prompt": "\xed\xbf\xbf"}', "but it is not UTF-8"),
        (b"[" * 9_000, "nested too deeply"),
        (b'{"a":' * 9_000, "nested too deeply"),
        (b"[" * 90 + rb'"\ud800"' + b"]" * 90, "not a list with 1 element"),
        (b"[1, 2]", "not a list with 2 elements"),
        (b'"text"', "not 'text'"),
        (b"null", "not null"),
        (LONG_NUMBER.encode(), "not 99999999999999999999..."),
        (b"-Infinity", "not -Infinity"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize", "/insight/next"])
def test_a_body_that_is_not_an_object(local_client, path, body, reason):
    message = error_of(post(local_client, body, path))["message"]
    assert message.startswith("the body must be a JSON object") and reason in message


@pytest.mark.parametrize(
    "body, message",
    [
        ({"stop": ["a"] * 65}, "stop must be a string or a list of at most 64 strings, not of 65"),
        ({"stop": ["a", None]}, "element 1 is null"),
        ({"stop": [["a"]]}, "element 0 is a list with 1 element"),
        ({"stop": 5}, "at most 64 strings, not 5"),
        ({"stop": False}, "at most 64 strings, not false"),
        ({"prompt": ["a"] * 200}, "prompt must have at most 128 prompts, not 200"),
        ({"prompt": [[1]] * 129}, "prompt must have at most 128 prompts, not 129"),
        ({"prompt": [-1]}, "element 0 must be a token id, which is a whole number of at least 0, not -1"),
        ({"prompt": [1, 2, 1.5]}, "element 2 must be a token id, which is a whole number of at least 0, not 1.5"),
        ({"prompt": [1, "a"]}, "element 1 must be a token id, which is a whole number of at least 0, not 'a'"),
        ({"prompt": []}, "not an empty list; omit it to start a new text"),
        ({"prompt": [[1], []]}, "element 1 is an empty list"),
        ({"prompt": [[1], [2, -3]]}, "in element 1, element 1 must be a token id"),
        ({"prompt": ["a", None]}, "element 1 must be text as the first one, not null"),
        ({"prompt": [["a"]]}, "in element 0, element 0 must be a token id"),
        ({"prompt": {}}, "prompt must be text, token ids, or a list of either, not an object"),
        ({"stream": "maybe"}, "not 'maybe'"),
        ({"logit_bias": [[1, 2]]}, "not a list with 1 element"),
    ],
)
def test_errors_name_the_element_and_the_limit(local_client, body, message):
    error = error_of(post(local_client, body))
    assert message in error["message"] and error["param"] == next(iter(body))
    assert "valid string" not in error["message"]


@pytest.mark.parametrize(
    "path, body, message",
    [
        ("/tokenize", {}, "the field prompt is missing"),
        ("/tokenize", {"prompt": [1]}, "prompt: Input should be a valid string, not a list with 1 element"),
        ("/insight/next", {"prompt": []}, "prompt must be text or token ids, not an empty list"),
        ("/insight/next", {"prompt": None}, "prompt must be text or token ids, not null"),
        ("/insight/next", {"prompt": [99999]}, "the ids of prompt must be from 0 to 279, not 99999"),
        ("/insight/next", {"prompt": "a", "top": True}, "top must be a number, not true"),
        ("/insight/scores", {"prompt": 5}, "not 5"),
        ("/detokenize", {"tokens": "a"}, "tokens must be a list of token ids, not 'a'"),
    ],
)
def test_errors_of_the_other_paths(local_client, path, body, message):
    assert message in error_of(post(local_client, body, path))["message"]


@pytest.mark.parametrize("stop", ["", [], [""], ["", ""], None])
def test_an_empty_stop_is_off(local_client, stop):
    body = {"prompt": "the", "seed": 1, "max_tokens": 5}
    stopped = post(local_client, {**body, "stop": stop})
    assert stopped.json()["choices"] == post(local_client, body).json()["choices"]


def test_sixty_four_stop_strings(local_client):
    body = {"prompt": "the", "seed": 1, "max_tokens": MAX_TOKENS}
    text = post(local_client, body).json()["choices"][0]["text"]
    stops = ["", *(f"never {number}" for number in range(62)), text[5:8]]
    choice = post(local_client, {**body, "stop": stops}).json()["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (text[: text.index(text[5:8])], "stop")


@pytest.mark.parametrize("value, is_given", [(False, False), (None, False), (0, True), (True, True), (2, True)])
def test_logprobs_false_is_off(local_client, value, is_given):
    body = {"prompt": "the", "max_tokens": 2, "logprobs": value}
    for extra in ({}, {"echo": True}, {"n": 2}):
        choices = post(local_client, {**body, **extra}).json()["choices"]
        assert all((choice["logprobs"] is not None) == is_given for choice in choices)
    streamed = post(local_client, {**body, "stream": True}).text
    assert ('"logprobs":null' in streamed) != is_given


def test_max_tokens_of_minus_one_is_the_servers_limit(local_client):
    body = {"prompt": "the", "max_tokens": -1, "ignore_eos": True}
    for extra, n_texts in (({}, 1), ({"n": 2}, 2), ({"prompt": ["a", "b", "c"]}, 3)):
        usage = post(local_client, {**body, **extra}).json()["usage"]
        assert usage["completion_tokens"] == n_texts * MAX_TOKENS
