"""What the doctor finds, and what it does about it."""

import shutil
from pathlib import Path

import pytest

from gpt2 import devices, tensorflow_startup
from gpt2.cli import diagnostics
from gpt2.engine.native import build
from gpt2.errors import GPT2Error


def test_findings(tiny_dir):
    lines = list(diagnostics.examine(str(tiny_dir.parent)))
    assert any(line.startswith("packages: tensorflow") for line in lines)
    assert "self-test on tiny: the largest error of a logit is" in lines[-1]


def test_what_writes_text_is_said(native, tmp_path, monkeypatch):
    assert "text is written by the native step, compiled for this machine" in list(diagnostics.examine(str(tmp_path)))
    monkeypatch.setenv(build.SWITCH_VARIABLE, "0")
    build._tried.cache_clear()
    without = list(diagnostics.examine(str(tmp_path)))
    build._tried.cache_clear()
    assert "text is written by TensorFlow; not the native step, which is faster: GPT2_NATIVE=0" in without
    assert not any("the native step, compiled" in line for line in without)


def test_a_compiler_that_has_failed_is_tried_again(tmp_path, monkeypatch):
    compiler = tmp_path / "cxx"
    compiler.write_text("#!/bin/sh\necho >> \"$0.runs\"\necho 'error: too old' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("GPT2_NATIVE_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        without = list(diagnostics.examine(str(tmp_path)))
        assert any("not the native step, which is faster" in line and "error: too old" in line for line in without)
    assert Path(f"{compiler}.runs").read_text() == "\n\n"
    build._tried.cache_clear()


def test_without_a_model_random_weights_are_tested(tmp_path):
    lines = list(diagnostics.examine(str(tmp_path)))
    assert "self-test on random weights" in lines[-1]
    assert any("python3 download_model.py 124M brings one" in line for line in lines)


def test_a_damaged_model_is_shown_and_passed_over(tmp_path, tiny_dir):
    shutil.copytree(tiny_dir, tmp_path / "good")
    shutil.copytree(tiny_dir, tmp_path / "bad")
    (tmp_path / "bad/vocab.bpe").unlink()
    lines = list(diagnostics.examine(str(tmp_path)))
    assert any("bad: not usable" in line and "vocab.bpe" in line for line in lines)
    assert "self-test on good" in lines[-1]


def test_wrong_numbers_are_an_error(tiny_dir, monkeypatch):
    honest = diagnostics.reference.logits
    monkeypatch.setattr(diagnostics.reference, "logits", lambda *args: honest(*args) + 0.001)
    with pytest.raises(GPT2Error, match="The numbers are wrong: try TF_ENABLE_ONEDNN_OPTS=0"):
        list(diagnostics.examine(str(tiny_dir.parent)))


def test_a_gpu_that_tensorflow_cannot_use_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "NVIDIA_DRIVER_PATHS", (str(tmp_path / "nosuch"),))
    assert tensorflow_startup.unusable_gpu_note() == ""
    monkeypatch.setattr(devices, "NVIDIA_DRIVER_PATHS", (str(tmp_path),))
    assert "pip install 'tensorflow[and-cuda]'" in tensorflow_startup.unusable_gpu_note()
