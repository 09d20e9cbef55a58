"""The flags of the server."""

from __future__ import annotations

from gpt2.cli.flags import FLAGS, NUMBER, WHOLE, YES_OR_NO, Flag, parse_switch, texts

SERVER_FLAGS = FLAGS | {
    "model_name": FLAGS["model_name"]._replace(
        kind=texts, help=f"{FLAGS['model_name'].help}; given more than once, requests choose by `model`", many=True
    ),
    "host": Flag(str, "an address", "where to listen: 127.0.0.1 is this machine alone, 0.0.0.0 every network"),
    "port": Flag(int, WHOLE, "where to listen; 0 is any free one", 0),
    "open": Flag(parse_switch, YES_OR_NO, "open the page in the browser"),
    "api_key": Flag(str, "text", "what clients have to give as a bearer token; GPT2_API_KEY in the environment too"),
    "allow_host": Flag(
        texts, "a name", "a name by which the server may be called, besides localhost and addresses", many=True
    ),
    "allow_origin": Flag(texts, "a URL", "whose pages may ask, such as https://example.org; * is all", many=True),
    "batch_size": Flag(int, WHOLE, "how many texts are written at a time, of each model", 1),
    "queue": Flag(int, WHOLE, "how many requests may wait, of each model; more are told to come again", 0),
    "max_tokens": Flag(int, WHOLE, "how many new tokens a text may have", 1),
    "max_body": Flag(int, WHOLE, "how many bytes a request may have", 1),
    "timeout": Flag(float, NUMBER, "how many seconds a request may take"),
    "grace": Flag(float, NUMBER, "how many seconds what is being written has to end when the server is stopped"),
}
