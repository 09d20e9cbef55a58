"""The library without TensorFlow: `pip install --no-deps .` and a few small packages."""

import importlib
import importlib.metadata
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

import gpt_2_simple
from gpt2 import tensorflow_startup
from gpt2.openai import tf1

ROOT = Path(__file__).resolve().parents[1]
REQUIRED_PACKAGES = ("numpy", "regex", "fire", "requests", "tqdm", "google-crc32c")
PROGRAM = """
import sys
from gpt2.generate import generate, load
from gpt2.request import Request, Sampling
for precision in ("float32", "int8"):
    model = load("shakespeare", precision=precision)
    [text] = generate(model, [Request("ROMEO:", length=40, sampling=Sampling(temperature=0))])
    print(model.backend.name, len(text) > 40)
import gpt_2_simple, lm.inference, lm.command, lm.data
print(gpt_2_simple.is_gpt2_downloaded(model_name="shakespeare"))
print("tensorflow" in sys.modules)
"""
MISSING_PACKAGES = ("wrapt", "tokenizers", "matplotlib", "gguf")  # of requirements.txt, besides TensorFlow


def with_dependencies(names: Iterable[str]) -> Iterable[importlib.metadata.Distribution]:
    """Return the installed distributions of these names and of their dependencies."""
    distributions = {}
    pending = list(names)
    while pending:
        name = pending.pop()
        try:
            distributions[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:  # needed on another system or an older Python
            continue
        required = [line for line in distributions[name].requires or [] if "extra ==" not in line]
        pending += {re.match(r"[\w.-]+", line)[0] for line in required} - set(distributions)
    return distributions.values()


@pytest.fixture
def python(tmp_path):
    """Return a Python with only this library and the packages that it needs to generate text."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    for distribution in with_dependencies(REQUIRED_PACKAGES):
        for top in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            (site / top).symlink_to(distribution.locate_file(top))
    checkout = tmp_path / "checkout"  # a copy, because an installation writes into it
    shutil.copytree(ROOT / "src", checkout / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copytree(ROOT / "models/shakespeare", checkout / "models/shakespeare")
    for path in [*ROOT.glob("requirements*.txt"), *map(ROOT.joinpath, ("setup.py", "pyproject.toml", "MANIFEST.in"))]:
        shutil.copy(path, checkout)
    for name in ("README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    executable = tmp_path / "venv/bin/python"
    pip = [sys.executable, "-m", "pip", "--python", executable, "install", "-q", "--no-deps"]
    subprocess.run([*pip, checkout], check=True)
    return executable


def run_python(python: Path, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run this Python with these arguments and additional environment variables."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [python, *arguments],
        env=inherited | environment,
        cwd=python.parent,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def without_packages(monkeypatch):
    """Make the imports of packages fail that this installation does not have."""
    monkeypatch.setattr(tensorflow_startup, "is_tensorflow_installed", lambda: False)
    for name in MISSING_PACKAGES:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize("module", ["gpt_2_simple", "gpt_2_simple.gpt_2", "gpt2.openai.tf1", "lm.inference", "lm.data"])
def test_drop_ins_are_imported(without_packages, module):
    path = importlib.import_module(module).__file__
    runpy.run_path(path, run_name=module)


def test_openai_s_encoder_is_imported(without_packages):
    assert runpy.run_path(str(ROOT / "src/encoder.py"))["get_encoder"]


def test_tensorflow_1_s_names_need_no_package_without_tensorflow(without_packages, monkeypatch):
    tf1.install_v1_names()
    assert importlib.reload(gpt_2_simple).generate
    monkeypatch.setattr(tensorflow_startup, "is_tensorflow_installed", lambda: True)
    with pytest.raises(ModuleNotFoundError, match="wrapt"):
        tf1.install_v1_names()


@pytest.mark.slow
def test_it_generates_text(native, python):
    result = run_python(python, "-c", PROGRAM)
    assert (result.returncode, result.stdout) == (0, "the native step True\n" * 2 + "True\nFalse\n"), result.stderr
    command = [ROOT / "src/interactive_conditional_samples.py", "--model_name", "shakespeare", "--prompt", "ROMEO:"]
    result = run_python(python, *command, "--length", "20")
    assert result.returncode == 0 and len(result.stdout) > 100, result.stderr
    result = run_python(python, ROOT / "scripts/doctor.py", "--models_dir", python.parent)
    assert "TensorFlow is not installed: training and GPUs need it\n" in result.stdout
    assert result.returncode == 0 and "self-test on random weights: the largest error" in result.stdout, result.stderr


@pytest.mark.slow
def test_commands_that_need_tensorflow_name_it(python):
    command = [ROOT / "src/interactive_conditional_samples.py", "--model_name", "shakespeare", "--prompt", "ROMEO:"]
    result = run_python(python, *command, GPT2_NATIVE="0")
    assert result.returncode == 1
    assert result.stderr == "error: TensorFlow is not installed, and the native step is not available: GPT2_NATIVE=0\n"
    result = run_python(python, ROOT / "train.py", "--dataset", ROOT / "LICENSE", "--model_name", "shakespeare")
    assert result.returncode == 1 and result.stderr.endswith(
        "error: the package tensorflow is missing; type: pip install -r requirements.txt\n"
    )
