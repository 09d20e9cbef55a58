"""The command serve.py, which serves a page for writing, and an HTTP API for clients of OpenAI's completions."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

from gpt2.flags import Flag, ModelsDir, NoCache, Precision, Threads
from gpt2.formats.model_dir import DEFAULT_MODEL, DEFAULT_MODELS_DIR
from gpt2.request import DEFAULT_PRECISION
from gpt2.server import defaults


@dataclass(frozen=True)
class ServeFlags:
    """The flags of serve.py."""

    model_name: Annotated[
        tuple[str, ...],
        Flag(
            expects="a name",
            help="the model: a name under models_dir, or the path of a model directory; if given more than once,"
            " requests choose a model by their field `model`",
            repeatable=True,
        ),
    ] = (DEFAULT_MODEL,)
    host: Annotated[
        str,
        Flag(
            expects="an address", help="address to listen on: 127.0.0.1 for this machine only, 0.0.0.0 for all networks"
        ),
    ] = defaults.HOST
    port: Annotated[int, Flag(help="port to listen on; 0 is any free port", minimum=0)] = defaults.PORT
    precision: Precision = DEFAULT_PRECISION
    models_dir: ModelsDir = DEFAULT_MODELS_DIR
    threads: Threads = None
    open: Annotated[bool, Flag(help="open the page in the browser")] = False
    api_key: Annotated[
        str | None, Flag(help="bearer token that clients must send; by default the environment variable GPT2_API_KEY")
    ] = None
    allow_host: Annotated[
        tuple[str, ...],
        Flag(
            expects="a name",
            help="a host name by which clients may call the server, in addition to localhost and IP addresses",
            repeatable=True,
        ),
    ] = ()
    allow_origin: Annotated[
        tuple[str, ...],
        Flag(
            expects="a URL",
            help="an origin whose pages may send requests, such as https://example.org; * allows all, and null"
            " allows pages from files, together with --api_key",
            repeatable=True,
        ),
    ] = ()
    batch_size: Annotated[
        int,
        Flag(help="number of texts that each model generates together", minimum=1),
    ] = defaults.BATCH_SIZE
    queue: Annotated[
        int, Flag(help="number of requests that may wait for each model; further requests get HTTP 429", minimum=0)
    ] = defaults.QUEUE_SIZE
    max_tokens: Annotated[int, Flag(help="maximum number of new tokens of a text", minimum=1)] = defaults.MAX_TOKENS
    max_body: Annotated[int, Flag(help="maximum size of a request, in bytes", minimum=1)] = defaults.MAX_BODY_BYTES
    timeout: Annotated[float, Flag(help="maximum duration of a request, in seconds")] = defaults.TIMEOUT_SECONDS
    grace: Annotated[
        float,
        Flag(help="seconds that running requests have to finish when the server is stopped"),
    ] = defaults.GRACE_SECONDS
    no_cache: NoCache = False


def serve(flags: ServeFlags) -> None:
    """Serve models on http://127.0.0.1:8000: a page for writing, and /v1/completions for OpenAI's clients.

    No text leaves this machine or is stored on it. Ctrl-C stops the server when the running requests have finished.
    """
    from gpt2.cli import serving  # imports packages that --help does not need

    api_key = flags.api_key or os.environ.get("GPT2_API_KEY") or None
    limits = serving.access_limits(api_key, flags.allow_host, flags.allow_origin, flags.max_body)
    models = serving.ServedModelsConfig(
        flags.model_name,
        flags.models_dir,
        flags.precision,
        flags.threads,
        flags.batch_size,
        flags.queue,
        not flags.no_cache,
    )
    serving.run(models, flags.host, flags.port, flags.open, limits, flags.max_tokens, flags.timeout, flags.grace)
