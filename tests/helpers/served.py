"""Servers for tests, each on a port of its own, as clients see them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from gpt2.server import run
from gpt2.server.app import ServerOptions
from gpt2.server.scheduler import Scheduler
from gpt2.server.served_model import ServedModel
from gpt2.text_batch import Model


@contextlib.contextmanager
def serving(
    models: Mapping[str, Model],
    options: ServerOptions = ServerOptions(),  # noqa: B008 - it is frozen
    batch_size: int = 32,
    queue_size: int = 64,
) -> Iterator[str]:
    """Yield the URL of a server of these models, which are given by their names."""
    served = [
        ServedModel(name, model, Scheduler(model, batch_size, queue_size), "float32") for name, model in models.items()
    ]
    listener = run.listen("127.0.0.1", 0)
    ready = threading.Event()
    servers = []
    with pytest.MonkeyPatch.context() as patch:
        create_server = run.Server

        def remember_server(*arguments: Any) -> run.Server:
            servers.append(create_server(*arguments))
            return servers[0]

        patch.setattr(run, "Server", remember_server)
        thread = threading.Thread(target=run.serve, args=(served, listener, options, 5, ready.set), daemon=True)
        thread.start()
        assert ready.wait(30)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        servers[0].should_exit = True
        thread.join(30)
        assert not thread.is_alive()
