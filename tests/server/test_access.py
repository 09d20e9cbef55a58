"""Access control: hosts, origins, the API key, and limits of size and time."""

import gc
import json
import socket
import time
import weakref

import httpx
import pytest
from served import serving

from gpt2.server import protocol, run
from gpt2.server.access import AccessLimits
from gpt2.server.app import ServerOptions
from gpt2.server.origins import is_allowed_host


@pytest.mark.parametrize(
    "host, allowed",
    [
        ("localhost", True),
        ("localhost:8000", True),
        ("LOCALHOST:1", True),
        ("a.localhost", True),
        ("127.0.0.1:8000", True),
        ("192.168.1.7", True),
        ("[::1]:8000", True),
        ("writer.example:80", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.", True),
        ("LocalHost.:8000", True),
        ("a.localhost.:8000", True),
        ("127.0.0.1.", True),
        ("writer.example.:80", True),
        ("other.example", True),
        ("localhost..", False),
        (".", False),
        ("evil.example@localhost", False),
        ("localhost:port", False),
        ("localhost/evil.example", False),
        ("local host", False),
        ("[", False),
        ("[::1]evil.example", False),
        ("", False),
        ("[::1", False),
        ("127.0.0.1@evil.example", False),
    ],
)
def test_allowed_hosts(host, allowed):
    assert is_allowed_host(host, ["Writer.example", "other.example.", "["]) is allowed


def test_another_name_for_this_machine_is_rejected(client):
    response = client.get("/v1/models", headers={"host": "evil.example"})
    assert response.status_code == 403 and response.json()["error"]["code"] == "host_not_allowed"


def test_pages_of_other_sites_are_rejected(client, url):
    other = {"origin": "https://evil.example"}
    assert client.post("/v1/completions", json={"max_tokens": 1}, headers=other).status_code == 403
    assert client.post("/v1/completions", json={"max_tokens": 1}, headers={"origin": "null"}).status_code == 403
    assert client.post("/v1/completions", json={"max_tokens": 1}, headers={"origin": url}).status_code == 200


def test_pages_of_allowed_origins(native_tiny_model):
    limits = AccessLimits(origins=["https://writer.example"])
    with (
        serving({"tiny": native_tiny_model}, ServerOptions(limits)) as address,
        httpx.Client(base_url=address) as client,
    ):
        allowed = {"origin": "https://writer.example"}
        response = client.post("/v1/completions", json={"max_tokens": 1}, headers=allowed)
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == "https://writer.example"
        preflight = {
            **allowed,
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type",
        }
        assert client.options("/v1/completions", headers=preflight).status_code == 200
        other = client.post("/v1/completions", json={"max_tokens": 1}, headers={"origin": "https://evil.example"})
        assert other.status_code == 403


def test_the_api_key(native_tiny_model):
    limits = AccessLimits(api_key="sesam")
    with (
        serving({"tiny": native_tiny_model}, ServerOptions(limits)) as address,
        httpx.Client(base_url=address) as client,
    ):
        for path in ("/v1/models", "/metrics", "/openapi.json", "/v1/nothing"):
            response = client.get(path)
            assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"
            assert response.json()["error"]["code"] == "invalid_api_key"
        for wrong in ("Bearer sesa", "Bearer", "Basic sesam", "Bearer s\u00e9sam", "sesam"):
            assert client.get("/v1/models", headers={"authorization": wrong.encode("utf-8")}).status_code == 401
        assert client.get("/v1/models", headers={"authorization": "Bearer sesam"}).status_code == 200
        assert client.get("/healthz").status_code == 200
        assert client.get("/").status_code == 200  # the page, which prompts for the key


def test_a_large_body_is_rejected(native_tiny_model):
    limits = AccessLimits(max_body_bytes=1000)
    with (
        serving({"tiny": native_tiny_model}, ServerOptions(limits)) as address,
        httpx.Client(base_url=address) as client,
    ):
        large = json.dumps({"prompt": "x" * 2000}).encode()
        assert client.post("/v1/completions", content=large).status_code == 413
        assert client.post("/v1/completions", content=iter([large[:900], large[900:]])).status_code == 413
        assert client.post("/v1/completions", json={"max_tokens": 1}).status_code == 200


def connect_and_send(address: str, data: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=20)
    connection.sendall(data)
    return connection


def test_a_body_that_does_not_arrive_times_out(native_tiny_model):
    with serving({"tiny": native_tiny_model}, ServerOptions(AccessLimits(body_timeout=0.3))) as address:
        head = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 50\r\n\r\n{"
        with connect_and_send(address, head) as connection:
            assert connection.recv(1000).startswith(b"HTTP/1.1 408")


def test_headers_that_do_not_end_time_out(native_tiny_model, monkeypatch):
    monkeypatch.setattr(protocol, "HEADER_TIMEOUT_SECONDS", 0.4)
    with (
        serving({"tiny": native_tiny_model}) as address,
        connect_and_send(address, b"GET / HTTP/1.1\r\n") as connection,
    ):
        start = time.monotonic()
        connection.setblocking(False)
        while time.monotonic() - start < 10:
            try:
                connection.sendall(b"x: y\r\n")
                if not connection.recv(1000):
                    return
            except BlockingIOError:
                time.sleep(0.05)
            except OSError:
                return
        raise AssertionError("the connection is still open")


def test_a_client_that_disconnects_leaves_nothing_in_memory(native_tiny_model, monkeypatch):
    protocols = []
    connection_made = protocol.LimitedProtocol.connection_made

    def remember_protocol(self, transport):
        protocols.append(weakref.ref(self))
        connection_made(self, transport)

    monkeypatch.setattr(protocol.LimitedProtocol, "connection_made", remember_protocol)
    body = b'{"prompt": "the cat", "max_tokens": 5}'
    head = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body)
    with serving({"tiny": native_tiny_model}) as address:
        for _ in range(5):
            with connect_and_send(address, head + body) as connection:
                connection.recv(10)
                time.sleep(0.1)  # the rest arrives; closing a socket with unread data resets the connection
        end = time.monotonic() + run.KEEP_ALIVE_SECONDS / 2
        while any(protocol() for protocol in protocols) and time.monotonic() < end:
            time.sleep(0.05)
            gc.collect()
        assert len(protocols) == 5 and [protocol() for protocol in protocols] == [None] * 5


def test_every_response_has_a_content_security_policy(client):
    for path in ("/", "/v1/models", "/nothing"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
