"""Paths and methods: an error names the path or the method that was probably meant."""

import pytest


@pytest.mark.parametrize(
    "path, meant",
    [
        ("/completions", "/v1/completions"),
        ("/completion", "/v1/completions"),
        ("/v1/completion", "/v1/completions"),
        ("/api/generate", "/v1/completions"),
        ("/generate", "/v1/completions"),
        ("/v1/completions/", "/v1/completions"),
        ("/v1/v1/completions", "/v1/completions"),
        ("/V1/Completions", "/v1/completions"),
        ("/v1/engines/gpt2/completions", "/v1/completions"),
        ("/v1/embeddings", "/v1/completions"),
        ("/embeddings", "/v1/completions"),
        ("/v1/tokenize", "/tokenize"),
        ("/tokenise", "/tokenize"),
        ("/v1/detokenize", "/detokenize"),
        ("/v1/autocomplete", "/autocomplete"),
        ("/api/insight/next", "/insight/next"),
        ("/models", "/v1/models"),
        ("/api/tags", "/v1/models"),
        ("/chat/completions", "not a chat model"),
        ("/api/chat", "not a chat model"),
        ("/v1/messages", "not a chat model"),
        ("/something/else", "/openapi.json"),
        ("/%00", "/openapi.json"),
        ("/" + "x" * 5000, "/openapi.json"),
        ("/..%2f..%2fetc%2fpasswd", "/openapi.json"),
        ("/%ff%ed%bf%bf", "/openapi.json"),
    ],
)
def test_an_unknown_path_gets_the_one_that_was_meant(local_client, path, meant):
    for method in ("POST", "GET", "PUT", "DELETE"):
        response = local_client.request(method, f"http://localhost{path}", content=b"{}" if method == "POST" else None)
        error = response.json()["error"]
        assert response.status_code == 404 and error["code"] == "unknown_url"
        assert meant in error["message"] and len(error["message"]) < 300


@pytest.mark.parametrize(
    "method, path, allowed",
    [
        ("GET", "/v1/completions", "POST"),
        ("HEAD", "/v1/completions", "POST"),
        ("PUT", "/v1/completions", "POST"),
        ("OPTIONS", "/v1/completions", "POST"),
        ("GET", "/v1/chat/completions", "POST"),
        ("GET", "/tokenize", "POST"),
        ("DELETE", "/insight/next", "POST"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/models/tiny", "GET"),
        ("POST", "/healthz", "GET"),
        ("POST", "/", "GET, HEAD"),
        ("POST", "/index.html", "GET, HEAD"),
        ("PATCH", "/page.css", "GET, HEAD"),
    ],
)
def test_a_wrong_method_gets_the_allowed_ones(local_client, method, path, allowed):
    response = local_client.request(method, path)
    assert response.status_code == 405 and response.headers["allow"] == allowed
    if method != "HEAD":
        assert response.json()["error"]["message"] == f"{path} does not allow {method}; use {allowed}"


def test_health(local_client):
    for path in ("/health", "/healthz"):
        assert local_client.get(path).json() == {"status": "ok"}
        assert local_client.head(path).status_code == 200
