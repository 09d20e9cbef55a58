"""The tiny model on each backend that there is, and the slow way to score with it."""

from __future__ import annotations

import pytest
import tiny
from reference_scorer import Slow

from gpt2 import generate
from gpt2.engine.load import all_backends
from gpt2.formats.model_dir import load_vocabulary, open_model_dir


@pytest.fixture(scope="session")
def scorers(tiny_dir) -> list[generate.Model]:
    """The tiny model on all backends."""
    found = open_model_dir(tiny_dir)
    vocabulary = load_vocabulary(found)
    return [generate.Model(vocabulary, one) for one in all_backends(tiny.read_model(tiny_dir), found.hparams)]


@pytest.fixture(scope="session")
def scorer(scorers) -> generate.Model:
    return scorers[-1]


@pytest.fixture(scope="session")
def slow(tiny_dir) -> Slow:
    return Slow(tiny.read_model(tiny_dir), open_model_dir(tiny_dir).hparams)
