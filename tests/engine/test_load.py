"""Which backend a model gets."""

import importlib.util

import pytest
import tiny

from gpt2 import devices, tensorflow_startup
from gpt2.engine import load
from gpt2.engine.native import build
from gpt2.errors import GPT2Error
from gpt2.formats.model_dir import open_model_dir


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What TensorFlow is started with, on a machine with a driver for a GPU."""
    started = []
    monkeypatch.setattr(devices, "NVIDIA_DRIVER_PATHS", (str(tmp_path),))
    monkeypatch.setattr(
        tensorflow_startup, "start_tensorflow", lambda threads=None, **_: started.append(threads) or "a GPU"
    )
    return started


def test_where_there_is_a_driver_tensorflow_is_asked(native, asked, monkeypatch, tiny_dir):
    monkeypatch.setattr(tensorflow_startup, "visible_devices", lambda: ["CPU:0", "GPU:0"])
    backend = load.load_backend(open_model_dir(tiny_dir), threads=2)
    assert (backend.device, backend.name) == ("a GPU", "TensorFlow: it computes on CPUs only")
    assert asked == [2, 2]


def test_a_driver_alone_is_no_gpu(native, asked, monkeypatch, tiny_dir):
    monkeypatch.setattr(tensorflow_startup, "visible_devices", lambda: ["CPU:0"])
    backend = load.load_backend(open_model_dir(tiny_dir))
    assert (backend.device, backend.name) == ("CPU", "the native step")
    assert asked == [None]


def test_without_a_driver_it_is_not(native, asked, monkeypatch, tiny_dir):
    monkeypatch.setattr(devices, "NVIDIA_DRIVER_PATHS", ())
    monkeypatch.setattr(devices, "AMD_DRIVER_PATHS", ())
    assert load.load_backend(open_model_dir(tiny_dir)).name == "the native step"
    assert asked == []


def test_a_driver_is_no_use_without_tensorflow(native, monkeypatch, tiny_dir):
    monkeypatch.setattr(devices, "NVIDIA_DRIVER_PATHS", (str(tiny_dir),))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert load.load_backend(open_model_dir(tiny_dir)).name == "the native step"


def test_with_neither_a_compiler_nor_tensorflow_both_are_named(monkeypatch, tiny_dir):
    def no_library(*_):
        raise build.NoLibraryError(build.NO_COMPILER)

    def no_tensorflow(*_, **__):
        raise ModuleNotFoundError("no module", name="tensorflow")

    monkeypatch.setattr(build, "load", no_library)
    monkeypatch.setattr(tensorflow_startup, "start_tensorflow", no_tensorflow)
    with pytest.raises(
        GPT2Error, match="TensorFlow is not installed, and there is no native step: .*pip install ziglang"
    ):
        load.load_backend(open_model_dir(tiny_dir))


def test_threads_are_those_asked_for_or_all_cores(native, tiny_dir):
    for threads, used in ((1, 1), (3, 3), (None, devices.available_cores())):
        assert load.load_backend(open_model_dir(tiny_dir), threads=threads).model.threads == used


def test_all_backends_that_there_are(native, tiny_dir, monkeypatch):
    weights, hparams = tiny.read_model(tiny_dir), open_model_dir(tiny_dir).hparams
    assert [backend.name for backend in load.all_backends(weights, hparams)] == ["TensorFlow", "the native step"]
    monkeypatch.setattr(build, "load", lambda *_: (_ for _ in ()).throw(build.NoLibraryError("none")))
    assert [backend.name for backend in load.all_backends(weights, hparams)] == ["TensorFlow"]
