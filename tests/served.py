"""Servers on ports of their own, as clients meet them."""

import contextlib
import threading

import pytest

from gpt2.server import run
from gpt2.server.app import ServerOptions
from gpt2.server.scheduler import Scheduler
from gpt2.server.served_model import ServedModel


@contextlib.contextmanager
def serving(models, options=ServerOptions(), rows=32, waiting=64):  # noqa: B008 - it is frozen
    """The URL of a server of these models, by their names."""
    served = [ServedModel(name, model, Scheduler(model, rows, waiting), "float32") for name, model in models.items()]
    listening = run.bound("127.0.0.1", 0)
    ready, servers = threading.Event(), []
    with pytest.MonkeyPatch.context() as patch:
        real = run.Server

        def remembered(*arguments):
            servers.append(real(*arguments))
            return servers[0]

        patch.setattr(run, "Server", remembered)
        thread = threading.Thread(target=run.serve, args=(served, listening, options, 5, ready.set), daemon=True)
        thread.start()
        assert ready.wait(30)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        servers[0].should_exit = True
        thread.join(30)
        assert not thread.is_alive()
