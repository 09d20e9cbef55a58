"""A server of the tiny model, and clients for it."""

import httpx
import pytest
from served import serving

from gpt2 import generate


@pytest.fixture(scope="session")
def native_tiny_model(tiny_dir):
    return generate.load(str(tiny_dir))


@pytest.fixture(scope="session")
def url(native_tiny_model):
    with serving({"tiny": native_tiny_model}) as address:
        yield address


@pytest.fixture
def client(url):
    with httpx.Client(base_url=url, timeout=60) as http_client:
        yield http_client
