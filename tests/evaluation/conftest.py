"""The tiny model on each available backend, and the slow reference that its scores are compared with."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from reference_scorer import ReferenceScorer

from gpt2 import generate
from gpt2.engine.load import all_backends
from gpt2.formats.model_dir import load_vocabulary, open_model_dir


@pytest.fixture(scope="session")
def scorers(tiny_dir: Path) -> list[generate.Model]:
    """The tiny model on all backends."""
    model = open_model_dir(tiny_dir)
    vocabulary = load_vocabulary(model)
    return [generate.Model(vocabulary, backend) for backend in all_backends(tiny.read_model(tiny_dir), model.hparams)]


@pytest.fixture(scope="session")
def scorer(scorers: list[generate.Model]) -> generate.Model:
    return scorers[-1]


@pytest.fixture(scope="session")
def reference(tiny_dir: Path) -> ReferenceScorer:
    return ReferenceScorer(tiny.read_model(tiny_dir), open_model_dir(tiny_dir).hparams)
