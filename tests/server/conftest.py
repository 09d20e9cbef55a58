"""A server of the tiny model, and clients for it."""

import httpx
import pytest
from served import serving
from starlette.testclient import TestClient

from gpt2 import generate
from gpt2.formats.model_dir import open_model_dir
from gpt2.server.app import ServerOptions, create_app
from gpt2.server.scheduler import Scheduler
from gpt2.server.served_model import ServedModel


@pytest.fixture(scope="session")
def native_tiny_model(tiny_dir):
    return generate.load(str(tiny_dir))


@pytest.fixture(scope="session")
def local_client(tiny_dir):
    """A client that calls the application without a socket, and raises the application's exceptions."""
    model = generate.load(str(tiny_dir))
    served = ServedModel("tiny", model, Scheduler(model), "float32", open_model_dir(tiny_dir))
    served.scheduler.start()
    app = create_app([served], ServerOptions(max_tokens=20))
    with TestClient(app, base_url="http://localhost") as test_client:
        yield test_client
    assert served.scheduler.close(5)


@pytest.fixture(scope="session")
def url(native_tiny_model):
    with serving({"tiny": native_tiny_model}) as address:
        yield address


@pytest.fixture
def client(url):
    with httpx.Client(base_url=url, timeout=60) as http_client:
        yield http_client
