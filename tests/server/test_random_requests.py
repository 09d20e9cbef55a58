"""Random requests: damaged JSON, any value in any field, any path, method and header. None is a server error."""

import json
import os
import random

import pytest

CASES = int(os.environ.get("RANDOM_REQUESTS", "250"))  # for each path
FIELDS = {
    "/v1/completions": "model prompt suffix max_tokens temperature top_p n best_of stream stream_options logprobs echo"
    " stop presence_penalty frequency_penalty logit_bias seed user top_k min_p repetition_penalty ignore_eos other",
    "/tokenize": "model prompt",
    "/detokenize": "model tokens",
    "/insight/next": "model prompt top",
    "/insight/scores": "model prompt top",
    "/insight/layers": "model prompt",
    "/autocomplete": "",
    "/v1/chat/completions": "model messages",
}
NUMBERS = ["0", "-0", "1", "-1", "-2", "1.5", "1e400", "-1e400", "5e-324", "1E+5", "NaN", "Infinity", "-Infinity"]
NUMBERS += [
    "9" * 5000,
    "-" + "9" * 10_000,
    str(2**31),
    str(2**63),
    str(2**64),
    "0." + "3" * 9000,
    "1e-99999",
    "1" * 400,
]
TEXTS = [
    "",
    "a",
    "the cat",
    "é",
    r"\ud83d",
    r"x\udfff",
    r"\ud83d\ude00",
    r"\u0000",
    r"\n",
    " ",
    "\U0001f600",
    "9" * 5001,
]
TEXTS += ["007", "１２", "+5", "1_0", " 7 ", "nan", "true", "x" * 3000, r"\\ud800", "<|endoftext|>", "\ufeff", "-1"]
HEADERS = ["content-type", "origin", "authorization", "host", "accept", "range", "cookie", "x-forwarded-proto", "te"]
VALUES = [
    "",
    "http://[",
    "null",
    "application/json; charset=x",
    "text/plain",
    "Bearer \u00e9",
    "[",
    "localhost.",
    "9" * 99,
]


def random_json(rng, depth=2):
    """Return JSON, mostly valid."""
    kind = rng.random()
    if kind < 0.35:
        return rng.choice(NUMBERS)
    if kind < 0.65 or not depth:
        return f'"{rng.choice(TEXTS)}"' if kind > 0.4 else rng.choice(["null", "true", "false"])
    size = rng.choice([0, 1, 1, 2, 3, 70, 140])
    values = [random_json(rng, depth - 1) for _ in range(size)]
    if kind < 0.85:
        return f"[{', '.join(rng.sample(values[:1] * size, size) if rng.random() < 0.5 else values)}]"
    return "{" + ", ".join(f'"{rng.choice(TEXTS)}": {value}' for value in values) + "}"


def random_body(rng, names):
    fields = {name: random_json(rng) for name in rng.sample(names, min(len(names), rng.randint(0, 3)))}
    if rng.random() < 0.6 and "prompt" in names:
        fields["prompt"] = '"the"'
    if "max_tokens" in names:
        fields.setdefault("max_tokens", "1")
    body = ("{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}").encode()
    if not names or rng.random() < 0.1:
        body = random_json(rng).encode()
    if rng.random() < 0.1:
        start = rng.randrange(len(body) + 1)
        body = (
            body[:start] + rng.choice([b"", b"\xff", b"\xed\xbf\xbf", b"[" * 3000, b'"', b"\x00"]) + body[start + 1 :]
        )
    return body


def assert_no_server_error(response):
    assert response.status_code < 500 or response.status_code == 501, response.text
    if response.status_code >= 400 and response.request.method != "HEAD":
        error = response.json()["error"]
        assert error["message"] and "\n" not in error["message"] and len(error["message"]) < 400
        assert set(error) == {"message", "type", "param", "code"}
    if response.headers["content-type"].startswith("application/json") and response.content:
        response.content.decode("utf-8")
        json.loads(response.content)


@pytest.mark.parametrize("path", FIELDS)
def test_random_bodies(local_client, path):
    rng = random.Random(path)
    names = FIELDS[path].split()
    for _ in range(CASES):
        body = random_body(rng, names)
        response = local_client.post(path, content=body)
        assert_no_server_error(response)
        assert b"unexpected exception" not in response.content, body


def test_random_paths_methods_and_headers(local_client):
    rng = random.Random(1)
    parts = [
        "v1",
        "completions",
        "models",
        "insight",
        "next",
        "health",
        "%00",
        "..",
        "%ff",
        "é",
        "",
        "page.css",
        "a" * 300,
    ]
    for _ in range(CASES):
        path = "/" + "/".join(rng.sample(parts, rng.randint(0, 3)))
        headers = {name: rng.choice(VALUES).encode("latin-1") for name in rng.sample(HEADERS, rng.randint(0, 3))}
        method = rng.choice(["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "FOO"])
        if method == "GET" and "range" in headers:
            headers.pop("range")  # answered by Starlette, in plain text
        response = local_client.request(method, f"http://localhost{path}", headers=headers)
        assert_no_server_error(response)
