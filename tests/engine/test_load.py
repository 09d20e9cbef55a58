"""The choice of a backend for a model."""

import importlib.util

import pytest
import tiny

from gpt2 import devices, tensorflow_startup
from gpt2.engine import load
from gpt2.engine.native import build
from gpt2.errors import GPT2Error
from gpt2.formats.model_dir import open_model_dir


@pytest.fixture
def tensorflow_starts(monkeypatch, tmp_path):
    """Return the list of thread counts that TensorFlow is started with, on a machine with a driver for a GPU."""
    thread_counts = []
    monkeypatch.setattr(devices, "NVIDIA_DRIVER_PATHS", (str(tmp_path),))
    monkeypatch.setattr(
        tensorflow_startup, "start_tensorflow", lambda threads=None, **_: thread_counts.append(threads) or "a GPU"
    )
    return thread_counts


def test_with_a_driver_tensorflow_looks_for_gpus(native, tensorflow_starts, monkeypatch, tiny_dir):
    monkeypatch.setattr(tensorflow_startup, "visible_devices", lambda: ["CPU:0", "GPU:0"])
    backend = load.load_backend(open_model_dir(tiny_dir), threads=2)
    assert (backend.device, backend.name) == ("a GPU", "TensorFlow: it computes on CPUs only")
    assert tensorflow_starts == [2, 2]


def test_with_a_driver_but_no_gpu_the_native_backend_is_used(native, tensorflow_starts, monkeypatch, tiny_dir):
    monkeypatch.setattr(tensorflow_startup, "visible_devices", lambda: ["CPU:0"])
    backend = load.load_backend(open_model_dir(tiny_dir))
    assert (backend.device, backend.name) == ("CPU", "the native step")
    assert tensorflow_starts == [None]


def test_without_a_driver_tensorflow_is_not_started(native, tensorflow_starts, monkeypatch, tiny_dir):
    monkeypatch.setattr(devices, "NVIDIA_DRIVER_PATHS", ())
    monkeypatch.setattr(devices, "AMD_DRIVER_PATHS", ())
    assert load.load_backend(open_model_dir(tiny_dir)).name == "the native step"
    assert tensorflow_starts == []


def test_without_tensorflow_a_driver_is_ignored(native, monkeypatch, tiny_dir):
    monkeypatch.setattr(devices, "NVIDIA_DRIVER_PATHS", (str(tiny_dir),))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert load.load_backend(open_model_dir(tiny_dir)).name == "the native step"


def test_with_neither_a_compiler_nor_tensorflow_both_are_named(monkeypatch, tiny_dir):
    def no_library(*_):
        raise build.NoLibraryError("there is no C++ compiler; install one with: pip install ziglang")

    def no_tensorflow(*_, **__):
        raise ModuleNotFoundError("no module", name="tensorflow")

    monkeypatch.setattr(build, "load", no_library)
    monkeypatch.setattr(tensorflow_startup, "start_tensorflow", no_tensorflow)
    with pytest.raises(
        GPT2Error, match="TensorFlow is not installed, and the native step is not available: .*pip install ziglang"
    ):
        load.load_backend(open_model_dir(tiny_dir))


def test_default_number_of_threads_is_all_cores(native, tiny_dir):
    for threads, expected in ((1, 1), (3, 3), (None, devices.available_cores())):
        assert load.load_backend(open_model_dir(tiny_dir), threads=threads).model.threads == expected


def test_all_available_backends(native, tiny_dir, monkeypatch):
    weights, hparams = tiny.read_model(tiny_dir), open_model_dir(tiny_dir).hparams
    assert [backend.name for backend in load.all_backends(weights, hparams)] == ["TensorFlow", "the native step"]
    monkeypatch.setattr(build, "load", lambda *_: (_ for _ in ()).throw(build.NoLibraryError("none")))
    assert [backend.name for backend in load.all_backends(weights, hparams)] == ["TensorFlow"]
