#!/usr/bin/env python3
"""Command: a page to write on, and an HTTP API that clients of OpenAI's completions speak."""

import os
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))  # where src/'s content is if it was moved up
sys.path.insert(0, str(CHECKOUT / "src"))

from gpt2.cli import command, serving
from gpt2.cli.server_flags import SERVER_FLAGS
from gpt2.formats.model_dir import DEFAULT_MODEL, DEFAULT_MODELS_DIR
from gpt2.request import DEFAULT_PRECISION
from gpt2.server import defaults


def serve(
    model_name=(DEFAULT_MODEL,),
    host=defaults.HOST,
    port=defaults.PORT,
    precision=DEFAULT_PRECISION,
    models_dir=DEFAULT_MODELS_DIR,
    threads=None,
    open=False,
    api_key=None,
    allow_host=(),
    allow_origin=(),
    batch_size=defaults.ROWS,
    queue=defaults.WAITING,
    max_tokens=defaults.MOST_TOKENS,
    max_body=defaults.MOST_BODY,
    timeout=defaults.PATIENCE,
    grace=defaults.GRACE,
    no_cache=False,
):
    """Serve models on http://127.0.0.1:8000: a page to write on, and /v1/completions as OpenAI's clients know it.

    Nothing leaves this machine, and no text is stored on it. Ctrl-C ends the server once what is being written has
    ended.
    """
    limits = serving.limits(api_key or os.environ.get("GPT2_API_KEY") or None, allow_host, allow_origin, max_body)
    models = serving.Models(model_name, models_dir, precision, threads, batch_size, queue, not no_cache)
    serving.run(models, host, port, open, limits, max_tokens, timeout, grace)


if __name__ == "__main__":
    sys.exit(command.main(serve, flags=SERVER_FLAGS))
