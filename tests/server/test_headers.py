"""Headers of requests: hosts and origins in all forms, keys in all encodings, and who may read the responses."""

from __future__ import annotations

import asyncio
import random
import socket

import pytest
from served import serving
from starlette.testclient import TestClient

from gpt2 import generate
from gpt2.cli.serving import access_limits
from gpt2.errors import UsageError
from gpt2.server.access import AccessLimits
from gpt2.server.app import ServerOptions, create_app
from gpt2.server.origins import is_same_origin
from gpt2.server.scheduler import Scheduler
from gpt2.server.served_model import ServedModel

SITE = "https://writer.example"
BODY = {"prompt": "the", "max_tokens": 1}


@pytest.fixture(scope="module")
def served(tiny_dir):
    model = generate.load(str(tiny_dir))
    served_model = ServedModel("tiny", model, Scheduler(model), "float32")
    served_model.scheduler.start()
    yield served_model
    assert served_model.scheduler.close(5)


def client_of(served, base_url="http://localhost", raises=True, **limits):
    app = create_app([served], ServerOptions(AccessLimits(**limits), max_tokens=20))
    return TestClient(app, base_url=base_url, raise_server_exceptions=raises)


@pytest.mark.parametrize(
    "origin",
    [
        "http://[",
        "http://]",
        "http://[::1",
        "http://[x]:1",
        "http://",
        "://",
        "",
        "http://a:b",
        "http://localhost:99999x",
    ]
    + ["http://localhost@evil.example", "http://localhost/", "http://\u00e9", "null", "file://", "\x7f", "localhost"]
    + ["http://localhost.evil.example", "http://localhost:8000", "chrome-extension://localhost", "http://localhost\\"],
)
def test_an_origin_that_is_malformed_or_foreign_is_rejected(served, origin):
    client = client_of(served)
    response = client.post("/v1/completions", json=BODY, headers={"origin": origin.encode("latin-1")})
    if origin == "http://localhost/":  # a slash too many
        assert response.status_code == 200
    else:
        assert response.status_code == 403 and response.json()["error"]["code"] == "origin_not_allowed"


@pytest.mark.parametrize(
    "name, value",
    [
        ("host", "["),
        ("host", "[::1"),
        ("host", "a b"),
        ("host", "\u00e9"),
        ("host", ":"),
        ("host", "@"),
        ("host", ":80"),
    ]
    + [("origin", "http://["), ("content-type", "\u00ff/[;=\t"), ("content-type", "application/json; charset=\u00fc")]
    + [("content-length", "-1"), ("content-length", "\u00b2"), ("content-length", "1e3"), ("content-length", "")]
    + [("authorization", "\u00ff"), ("authorization", "Bearer"), ("authorization", "")]
    + [
        ("range", "bytes=9-1"),
        ("if-modified-since", "yesterday"),
        ("accept-encoding", "\u00ff"),
        ("cookie", "=;\u00ff="),
    ]
    + [("access-control-request-method", "\u00ff"), ("sec-fetch-site", "\u00ff"), ("x-forwarded-for", "[")],
)
@pytest.mark.parametrize("limits", [{}, {"origins": ["*"], "api_key": "k"}], ids=["alone", "with origins and a key"])
def test_malformed_headers_are_the_clients_error(served, name, value, limits):
    client = client_of(served, **limits)
    for method, path in (("GET", "/"), ("GET", "/v1/models"), ("POST", "/v1/completions"), ("OPTIONS", "/tokenize")):
        content = b'{"prompt": "a", "max_tokens": 1}' if method == "POST" else None
        response = client.request(method, path, content=content, headers={name: value.encode("latin-1")})
        assert response.status_code < 500


@pytest.mark.parametrize(
    "origin, host, expected",
    [
        ("http://localhost.:8000", "localhost.:8000", True),
        ("http://localhost.:8000", "localhost:8000", True),
        ("http://localhost:8000", "LOCALHOST.:8000", True),
        ("http://localhost.", "localhost.:80", True),
        ("https://gpt.example", "gpt.example", True),
        ("https://gpt.example", "gpt.example:443", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("http://localhost.:8001", "localhost.:8000", False),
        ("http://localhost..:8000", "localhost.:8000", False),
        ("https://localhost.", "localhost.:80", False),
        ("app://localhost", "localhost", False),
        ("null", "localhost", False),
        ("http://", "", False),
    ],
)
def test_same_origin(origin, host, expected):
    assert is_same_origin(origin, host) is expected


@pytest.mark.parametrize("base_url", ["http://localhost.", "http://localhost.:8000", "http://a.localhost.:81"])
def test_a_final_dot_in_the_name(served, base_url):
    client = client_of(served, base_url)
    assert client.get("/").status_code == 200
    assert client.post("/v1/completions", json=BODY, headers={"origin": base_url}).status_code == 200
    assert client.post("/v1/completions", json=BODY, headers={"origin": f"{base_url}.x"}).status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_of_another_site_without_an_origin(served, site):
    headers = {"sec-fetch-site": site, "content-type": "text/plain"}
    assert client_of(served).post("/v1/completions", json=BODY, headers=headers).status_code == 403
    assert client_of(served).get("/", headers=headers).status_code == 200  # a link to the page
    for own in ("same-origin", "none"):
        assert client_of(served).post("/tokenize", json=BODY, headers={"sec-fetch-site": own}).status_code == 200


@pytest.mark.parametrize(
    "name", ["host", "origin", "authorization", "content_length", "content_type", "range", "cookie"]
)
def test_random_bytes_in_a_header(served, name):
    client = client_of(served, origins=[SITE], api_key="k")
    rng = random.Random(name)
    for _ in range(30):
        value = bytes(rng.choice(b'[]:/@.%,;= \t"\\abc019\x80\xe9\xff\xb2') for _ in range(rng.randint(0, 12)))
        value = rng.choice([b"", b"http://", b"localhost", b"Bearer ", b"bytes=", b"[::1"]) + value
        for path in ("/", "/v1/models", "/healthz"):
            assert call(client.app, path, **{name: value}) < 500


def raw_status(url, request):
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=20) as connection:
        connection.sendall(request)
        return connection.recv(4096).split()[1].decode()


@pytest.mark.parametrize(
    "request_line, status",
    [
        ("GET /healthz", "200"),
        ("GET /health", "200"),
        ("GET /", "403"),
        ("GET /v1/models", "403"),
        ("GET /metrics", "403"),
    ]
    + [("POST /v1/completions", "403"), ("GET /healthz/", "403"), ("GET /healthzz", "403")],
)
@pytest.mark.parametrize("host", ["", "host:\r\n", "host: \r\n"])
def test_only_health_checks_need_no_host(url, request_line, status, host):
    assert raw_status(url, f"{request_line} HTTP/1.0\r\n{host}\r\n".encode()) == status


@pytest.mark.parametrize(
    "header",
    [b"content-length: " + b"9" * 5000, b"content-length: x", b"content-length: -1", b"host: a\r\nhost: b", b"\xff: 1"]
    + [b"transfer-encoding: gzip", b"content-length: 1\r\ncontent-length: 2", b"a b: c", b"origin: http://[", b":"],
)
def test_malformed_headers_on_the_wire(url, header, caplog):
    assert raw_status(url, b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n" + header + b"\r\n\r\n")[0] == "4"
    assert not [record for record in caplog.records if record.exc_info]


def failing(*_arguments, **_options):
    raise RuntimeError("a fault of the server")


@pytest.mark.parametrize(
    "method, path, status, options",
    [
        ("POST", "/v1/completions", 200, {"json": BODY}),
        ("POST", "/v1/completions", 200, {"json": {**BODY, "stream": True}}),
        ("POST", "/v1/completions", 400, {"content": b"{"}),
        ("POST", "/v1/completions", 401, {"json": BODY, "headers": {"authorization": "Bearer wrong"}}),
        ("GET", "/v1/models", 401, {"headers": {"authorization": ""}}),
        ("POST", "/v1/completions", 403, {"json": BODY, "headers": {"host": "evil.example"}}),
        ("GET", "/v1/models/none", 404, {}),
        ("POST", "/completions", 404, {"json": BODY}),
        ("GET", "/v1/completions", 405, {}),
        ("POST", "/v1/completions", 413, {"content": b" " * 2000}),
        ("POST", "/tokenize", 500, {"json": BODY}),
        ("GET", "/", 200, {}),
        ("GET", "/healthz", 200, {}),
        ("OPTIONS", "/v1/completions", 405, {}),
        ("OPTIONS", "/v1/completions", 200, {"headers": {"access-control-request-method": "POST"}}),
        ("OPTIONS", "/nothing", 200, {"headers": {"access-control-request-method": "POST"}}),
    ],
)
@pytest.mark.parametrize("allowed", [[SITE], ["*"], ["https://other.example", "HTTPS://Writer.example.:443/"]])
def test_an_allowed_page_can_read_every_response(served, monkeypatch, allowed, method, path, status, options):
    monkeypatch.setattr(served.model.encoder, "encode", failing if status == 500 else served.model.encoder.encode)
    client = client_of(served, raises=False, origins=allowed, api_key="k", max_body_bytes=1000)
    headers = {"origin": SITE, "authorization": "Bearer k", **options.get("headers", {})}
    response = client.request(method, path, **{**options, "headers": headers})
    assert response.status_code == status
    assert response.headers["access-control-allow-origin"] in (SITE, "*")
    if status >= 400:
        assert response.json()["error"]["message"]
    foreign = client.request(method, path, **{**options, "headers": {**headers, "origin": "https://evil.example"}})
    if "*" not in allowed:
        assert foreign.status_code == 403 and "access-control-allow-origin" not in foreign.headers


def test_an_allowed_page_can_read_that_the_server_is_busy_or_the_body_late(native_tiny_model):
    limits = AccessLimits(origins=[SITE], body_timeout=0.2)
    with serving({"tiny": native_tiny_model}, ServerOptions(limits, timeout=0.05), queue_size=0, batch_size=1) as url:
        late = (
            b"POST /tokenize HTTP/1.1\r\nhost: localhost\r\norigin: %s\r\ncontent-length: 50\r\n\r\n{" % SITE.encode()
        )
        body = b'{"max_tokens": 4000, "ignore_eos": true}'
        slow = late.replace(b"/tokenize", b"/v1/completions").replace(
            b"50\r\n\r\n{", b"%d\r\n\r\n%s" % (len(body), body)
        )
        for request, status in ((late, b"408"), (slow, b"503")):
            with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=20) as connection:
                connection.sendall(request)
                response = connection.recv(4096)
            assert status in response and f"access-control-allow-origin: {SITE}".encode() in response


def call(app, path="/v1/models", **headers):
    """Return the status for a request with exactly these bytes in its headers; the test client encodes them anew."""
    messages = []
    received = [{"type": "http.disconnect"}, {"type": "http.request", "body": b"", "more_body": False}]

    async def receive():
        return received.pop() if received else await asyncio.sleep(60)

    async def send(message):
        messages.append(message)

    names = [(name.replace("_", "-").encode(), value) for name, value in {"host": b"localhost", **headers}.items()]
    scope = {"type": "http", "method": "GET", "path": path, "headers": names, "query_string": b"", "root_path": ""}
    asyncio.run(app({**scope, "http_version": "1.1", "scheme": "http", "server": ("localhost", 80)}, receive, send))
    return messages[0]["status"]


@pytest.mark.parametrize("key", ["sésam", "\u00fc", "ключ", "鍵 key", "€", "\udce9"])
def test_a_key_beyond_ascii_in_both_encodings(served, key):
    client = client_of(served, api_key=f" {key}\n")
    sent = [key.encode("utf-8", "surrogateescape")]
    if all(character <= "\xff" for character in key):
        sent.append(key.encode("latin-1"))
    for encoded in sent:
        for value in (b"Bearer " + encoded, b"bearer  " + encoded + b" "):
            assert call(client.app, authorization=value) == 200
    for wrong in (b"Bearer ", b"Bearer \xff", b"Basic " + sent[0], b"Bearer " + sent[0][:-1], b"Bearer ?", sent[0]):
        assert call(client.app, authorization=wrong) == 401


@pytest.mark.parametrize("key", ["", "  ", "\n", "a\nb", "a\x00b"])
def test_a_key_that_cannot_be_sent_is_rejected(key):
    with pytest.raises(UsageError, match="api_key is empty or has a control character"):
        AccessLimits(api_key=key)


@pytest.mark.parametrize("origins", [["null"], ["NULL"], [" null "], [SITE, "null"], ["*", "null"]])
def test_the_origin_null_needs_a_key(served, origins):
    with pytest.raises(UsageError, match="allow_origin null needs an api_key, because any website can send") as error:
        access_limits(None, [], origins, 1000)
    assert "\n" not in str(error.value) and "--api_key" in str(error.value)
    client = client_of(served, origins=origins, api_key="k")
    headers = {"origin": "null", "authorization": "Bearer k"}
    response = client.post("/v1/completions", json=BODY, headers=headers)
    assert response.status_code == 200 and response.headers["access-control-allow-origin"] in ("null", "*")
    rejected = client.post("/v1/completions", json=BODY, headers={"origin": "null"})
    assert rejected.status_code == 401 and rejected.headers["access-control-allow-origin"] in ("null", "*")


def test_an_error_for_null_says_what_to_type(served):
    message = client_of(served).post("/tokenize", json=BODY, headers={"origin": "null"}).json()["error"]["message"]
    assert "--allow_origin null" in message and "--api_key" in message


@pytest.mark.parametrize("origin", ["writer.example", "https://", "https://a/b", "", "http://[", "https://a b"])
def test_an_origin_that_no_browser_sends_is_rejected_at_the_start(origin):
    with pytest.raises(UsageError, match="allow_origin must be like https://example.org"):
        AccessLimits(origins=[origin])
