"""Heavy requests: the event loop stays free for other clients, and what one request may cost has limits."""

import asyncio
import contextlib
import http.client
import json
import socket
import threading
from collections import Counter
from types import SimpleNamespace

import httpx
import pytest
from pydantic import ValidationError
from served import serving

from gpt2 import encoder
from gpt2.server import fields as fields_module
from gpt2.server import insight_schema, json_body, offload, protocol, request, schema
from gpt2.server.access import AccessLimits, RequestFilter
from gpt2.server.response import PendingCompletion

MANY = 20_000  # elements of a heavy request
LONG_WORD = "wonderful" * 3000


@pytest.fixture
def heavy_calls(monkeypatch):
    """Count the calls that process much, by the name of their thread."""
    threads = Counter()

    def count_calls(target, name, size):
        function = getattr(target, name)

        def call(*arguments, **options):
            if size(arguments) > offload.MAX_INLINE_ITEMS:
                threads[threading.current_thread().name] += 1
            return function(*arguments, **options)

        monkeypatch.setattr(target, name, call)

    fake_json = SimpleNamespace(**vars(json))
    monkeypatch.setattr(json_body, "json", fake_json)
    count_calls(fake_json, "loads", lambda arguments: len(arguments[0]))
    count_calls(encoder.Encoder, "encode", lambda arguments: len(arguments[1]))
    count_calls(encoder.Encoder, "decode", lambda arguments: len(arguments[1]))
    count_calls(offload, "to_json", lambda arguments: 1000 * len(arguments[0]) if isinstance(arguments[0], list) else 0)
    for name in ("_add_chunks", "_add_to_stream"):
        count_calls(PendingCompletion, name, lambda arguments: sum(21 * len(chunk.prompt) for chunk in arguments[1]))
    return threads


@pytest.mark.parametrize(
    "path, fields",
    [
        ("/tokenize", {"prompt": LONG_WORD}),
        ("/tokenize", {"prompt": "\U0001f600" * 5000}),
        ("/tokenize", {"prompt": "a b " * 5000}),
        ("/detokenize", {"tokens": [1] * MANY}),
        ("/v1/completions", {"prompt": LONG_WORD}),
        ("/v1/completions", {"prompt": [1] * MANY}),
        ("/v1/completions", {"prompt": [[]] * 5000}),
        ("/v1/completions", {"logit_bias": {str(number): 1 for number in range(MANY)}}),
        ("/v1/completions", {"logit_bias": {str(number): "x" for number in range(MANY)}}),
        ("/v1/completions", {"prompt": [[1] * 30] * 64, "echo": True, "logprobs": 20, "max_tokens": 0}),
        ("/v1/completions", {"prompt": [[1] * 30] * 64, "echo": True, "logprobs": 20, "stream": True}),
        ("/insight/scores", {"prompt": LONG_WORD}),
        ("/insight/next", {"prompt": [1] * MANY}),
        ("/insight/next", {"prompt": [[]] * 5000}),
        ("/insight/layers", {"prompt": LONG_WORD}),
    ],
)
def test_heavy_work_is_done_outside_the_event_loop(client, heavy_calls, path, fields):
    response = client.post(path, json=fields)
    assert response.status_code in (200, 400, 404)
    assert heavy_calls and all(name.startswith("worker") for name in heavy_calls)


@pytest.mark.parametrize("content", [json.dumps(LONG_WORD), json.dumps([[]] * 5000)])
def test_autocomplete_parses_large_bodies_outside_the_event_loop(client, content, monkeypatch):
    names = []

    def loads(data, **options):
        names.append(threading.current_thread().name)
        return json.loads(data, **options)

    monkeypatch.setattr(json_body, "json", SimpleNamespace(**{**vars(json), "loads": loads}))
    assert client.post("/autocomplete", content=content).status_code == 400
    assert len(names) == 1 and names[0].startswith("worker")


def test_large_responses_are_the_same_as_small_ones(client, native_tiny_model):
    encoder = native_tiny_model.encoder
    text = "the cat sat on the mat " * 1000 + "\U0001f600" * 2000
    tokenized = client.post("/tokenize", json={"prompt": text}).json()
    assert tokenized["tokens"] == encoder.encode(text) and tokenized["count"] == len(tokenized["tokens"]) > MANY / 4
    assert tokenized["pieces"] == [encoder.token_text(token) for token in tokenized["tokens"]]
    assert client.post("/detokenize", json={"tokens": tokenized["tokens"]}).json() == {"prompt": text}
    fields = {"prompt": [[1, 2, 3] * 10, [3] * 20] * 30, "echo": True, "logprobs": 20, "max_tokens": 2, "seed": 1}
    many = client.post("/v1/completions", json=fields).json()["choices"]
    alone = client.post("/v1/completions", json={**fields, "prompt": fields["prompt"][:1]}).json()["choices"]
    assert many[0] == alone[0] and [choice["index"] for choice in many] == list(range(60))


def make_response(n_tokens):
    choice = schema.CompletionChoice(
        index=0,
        text="ä\u2028\"'\\",
        logprobs=schema.Logprobs(
            tokens=["a"] * n_tokens,
            token_logprobs=[None] + [-1.5e-7] * (n_tokens - 1),
            top_logprobs=[{"\x00": -0.1, "b": None}, None] * (n_tokens // 2),
            text_offset=list(range(n_tokens)),
        ),
        finish_reason="stop",
    )
    return schema.CompletionResponse(id="x", created=1, model='"choices":[]', choices=[choice] * (n_tokens % 5))


@pytest.mark.parametrize(
    "response",
    [
        *(make_response(n_tokens) for n_tokens in (2, 10, 1024, 1026, 3001)),
        schema.TokenizeResponse(count=0, max_model_len=1, tokens=[], pieces=[]),
        insight_schema.LayersResponse(
            skipped=0,
            tokens=[],
            n_head=1,
            attention=["x"],
            guesses=[],
            logits="",
            likeliest=[1],
            pieces={3: "c", 1: "a"},
        ),
    ],
)
def test_json_in_pieces_equals_that_of_pydantic(response):
    pieces = list(offload.json_pieces(response))
    assert b"".join(pieces).decode() == response.model_dump_json()
    assert max(map(len, pieces)) < 30 * offload.PIECE_ITEMS


@pytest.mark.parametrize(
    "model, fields",
    [
        (schema.CompletionRequest, {"prompt": [[]] * MANY}),
        (schema.CompletionRequest, {"prompt": [[1], []] * MANY}),
        (schema.CompletionRequest, {"prompt": [[""]] * MANY}),
        (schema.CompletionRequest, {"prompt": [""] * MANY}),
        (schema.CompletionRequest, {"prompt": [1, ""] * MANY}),
        (schema.CompletionRequest, {"prompt": [{}] * MANY}),
        (schema.CompletionRequest, {"prompt": [None] * MANY}),
        (schema.CompletionRequest, {"prompt": [float("inf")] * MANY}),
        (schema.CompletionRequest, {"prompt": [[-1] * MANY]}),
        (schema.CompletionRequest, {"stop": [1] * MANY}),
        (schema.CompletionRequest, {"stop": [""] * MANY}),
        (schema.CompletionRequest, {"logit_bias": {str(number): "x" for number in range(MANY)}}),
        (schema.CompletionRequest, {"logit_bias": {str(number): 101 for number in range(MANY)}}),
        (schema.CompletionRequest, {"logit_bias": {str(number): 0 if number else None for number in range(MANY)}}),
        (schema.DetokenizeRequest, {"tokens": [-1] * MANY}),
        (schema.DetokenizeRequest, {"tokens": ["1"] * MANY}),
        (insight_schema.NextRequest, {"prompt": [[]] * MANY}),
        (insight_schema.ScoresRequest, {"prompt": [[]] * MANY}),
        (insight_schema.LayersRequest, {"prompt": [[]] * MANY}),
    ],
)
def test_validation_stops_at_the_first_error(model, fields):
    with pytest.raises(ValidationError) as raised:
        model.model_validate(fields)
    assert raised.value.error_count() <= 5  # one for each type that a prompt may have


def test_only_a_wrong_bias_hides_the_others():
    biases = {str(number): number / 10 for number in range(100)}
    assert schema.CompletionRequest.model_validate({"logit_bias": biases}).logit_bias == biases
    with pytest.raises(ValidationError, match="logit_bias.7\n"):
        schema.CompletionRequest.model_validate({"logit_bias": {**biases, "7": -101, "8": 500}})


def test_the_number_of_biases_is_limited(client):
    biases = dict.fromkeys(map(str, range(fields_module.MAX_BIASES + 1)), 1)
    response = client.post("/v1/completions", json={"logit_bias": biases})
    assert response.status_code == 400 and str(fields_module.MAX_BIASES) in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "the cat", "n": 50, "max_tokens": 10, "logprobs": 1},
        {"prompt": "the cat", "max_tokens": 100, "logprobs": 9},
        {"prompt": ["the cat"] * 16, "echo": True, "max_tokens": 10, "logprobs": 5},
        {"prompt": "the cat", "max_tokens": 500, "logprobs": 1, "stream": True},
    ],
)
def test_the_number_of_listed_log_probabilities_is_limited(client, fields, monkeypatch):
    monkeypatch.setattr(request, "MAX_LISTED_LOGPROBS", 999)
    error = client.post("/v1/completions", json=fields)
    assert error.status_code == 400 and "999 are allowed" in error.json()["error"]["message"]
    assert error.json()["error"]["param"] == "logprobs"
    fewer = {**fields, "max_tokens": fields["max_tokens"] // 4}
    assert client.post("/v1/completions", json=fewer).status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        b'{"prompt": [' + b"[]," * MANY + b"[]]}",
        b'{"prompt": [' + b"{}," * MANY + b"1]}",
        b'{"a": ["]", "\\"[", ' + b"[[1]]," * MANY + b"[]]}",
        b"[" * MANY,
        b'{"a":' * MANY,
        b"[" * MANY + b'"' + b'\\"' * MANY,
    ],
)
def test_the_number_of_lists_and_objects_is_limited(client, content):
    message = client.post("/v1/completions", content=content).json()["error"]["message"]
    assert "lists and objects" in message and f"{json_body.MAX_LISTS} are allowed" in message


@pytest.mark.parametrize("text", ["[{" * MANY, '"[\\{' * MANY, "[" * MANY + "\\", "\n[\u2028{" * MANY])
def test_brackets_in_strings_are_no_lists(text):
    for ensure_ascii in (True, False):
        content = json.dumps({"prompt": text, "a": [[1]] * 100}, ensure_ascii=ensure_ascii).encode()
        assert json_body.parse_json(content)["prompt"] == text


def test_a_body_is_counted_once():
    n_counted = 0

    class CountedBytes(bytes):
        def __len__(self):
            nonlocal n_counted
            n_counted += 1
            return super().__len__()

    messages = [{"type": "http.request", "body": CountedBytes(b"x"), "more_body": number > 0} for number in range(1000)]
    bodies = []

    async def receive():
        return messages.pop()

    async def app(_scope, receive, _send):
        bodies.append((await receive())["body"])

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"host", b"localhost")]}
    asyncio.run(RequestFilter(app, AccessLimits(), ())(scope, receive, None))
    assert bodies == [b"x" * 1000] and n_counted <= 2000


def connect(url):
    return socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30)


def post_in_chunks(url, path, chunks):
    """Return the status of a request whose body has these chunks, and the error's message."""
    connection = http.client.HTTPConnection("127.0.0.1", int(url.rpartition(":")[2]), timeout=30)
    with contextlib.closing(connection):
        connection.putrequest("POST", path)
        for header in ("transfer-encoding", "chunked"), ("content-type", "application/json"):
            connection.putheader(*header)
        connection.endheaders()
        connection.sock.sendall(b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n")
        response = connection.getresponse()
        return response.status, json.load(response).get("error", {}).get("message", "")


@pytest.mark.parametrize("path", ["/tokenize", "/v1/completions", "/insight/scores", "/v1/nothing"])
def test_the_number_of_chunks_is_limited(url, path, monkeypatch):
    monkeypatch.setattr(protocol, "MAX_CHUNKS", 100)
    text = b'{"prompt": "' + b"a" * 5 + b'"}'
    status, _ = post_in_chunks(url, path, [text[i : i + 1] for i in range(len(text))])
    assert status in (200, 404, 405)
    text = b'{"prompt": "' + b"a" * 100_000 + b'"}'
    status, message = post_in_chunks(url, path, [text[i : i + 1] for i in range(len(text))])
    assert status == 413 and "more than 100 chunks" in message
    status, _ = post_in_chunks(url, path, [text[i : i + 5000] for i in range(0, len(text), 5000)])
    assert status in (200, 400, 404, 405)


@pytest.mark.parametrize("chunk_bytes", [1, 7, 1000, 50_000])
def test_received_bytes_are_parsed_in_parts(url, chunk_bytes, monkeypatch):
    sizes = []
    receive_data = protocol.LimitedParser.receive_data

    def count_bytes(self, data):
        sizes.append(len(data))
        receive_data(self, data)

    monkeypatch.setattr(protocol.LimitedParser, "receive_data", count_bytes)
    text = b'{"prompt": "' + b"a b " * 12_000 + b'"}'
    status, _ = post_in_chunks(url, "/tokenize", [text[i : i + chunk_bytes] for i in range(0, len(text), chunk_bytes)])
    assert status == 200
    assert sum(sizes) > len(text) and max(sizes) <= protocol.PARSED_BYTES


def test_many_requests_on_one_connection_get_their_responses_in_order(url):
    paths = [f"/v1/models/{'tiny' if number % 3 else 'other'}" for number in range(300)]
    head = "GET {} HTTP/1.1\r\nhost: localhost\r\n{}\r\n"
    data = "".join(head.format(path, "") for path in paths) + head.format("/healthz", "connection: close\r\n")
    with connect(url) as connection:
        connection.sendall(data.encode())
        received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    statuses = [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200 if number % 3 else 404 for number in range(300)] + [200]


@pytest.mark.parametrize(
    "head, status, message",
    [
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000, 431, "larger than 65536 bytes"),
        (b"GET / HTTP/1.1\r\na: " + b"b" * 200_000, 431, "larger than 65536 bytes"),
        (b"GET /" + b"b" * 200_000, 431, "larger than 65536 bytes"),
        (b"GET / HTTP/1.1\r\nno header\r\n\r\n", 400, "not valid HTTP"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, "not valid HTTP"),
    ],
)
def test_wrong_headers_get_an_error_with_the_limit(url, head, status, message):
    with connect(url) as connection:
        connection.sendall(head)
        received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert int(received.split(b" ")[1]) == status
    error = json.loads(received.partition(b"\r\n\r\n")[2])["error"]
    assert message in error["message"] and error["type"] == "invalid_request_error"


def test_a_heavy_request_does_not_change_the_texts_of_others(native_tiny_model):
    with serving({"tiny": native_tiny_model}) as address, httpx.Client(base_url=address, timeout=60) as client:
        fields = {"prompt": "the cat", "seed": 1, "max_tokens": 300, "ignore_eos": True}
        expected = client.post("/v1/completions", json=fields).json()["choices"][0]["text"]
        heavy = threading.Thread(target=client.post, args=("/tokenize",), kwargs={"json": {"prompt": LONG_WORD}})
        heavy.start()
        assert client.post("/v1/completions", json=fields).json()["choices"][0]["text"] == expected
        heavy.join()
