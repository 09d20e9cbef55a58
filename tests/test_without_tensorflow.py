"""The library where TensorFlow is not installed: `pip install --no-deps .` beside a few small packages."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("numpy", "regex", "fire", "requests", "tqdm", "google-crc32c")
PROGRAM = """
import sys
from gpt2.generate import generate, load
from gpt2.request import Request, Sampling
for precision in ("float32", "int8"):
    model = load("shakespeare", precision=precision)
    [text] = generate(model, [Request("ROMEO:", length=40, sampling=Sampling(temperature=0))])
    print(model.backend.name, len(text) > 40)
print("tensorflow" in sys.modules)
"""


def with_dependencies(names):
    """The distributions of these names, and of what they need, as far as they are installed."""
    found, coming = {}, list(names)
    while coming:
        name = coming.pop()
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:  # of another system or an older Python
            continue
        required = [line for line in found[name].requires or [] if "extra ==" not in line]
        coming += {re.match(r"[\w.-]+", line)[0] for line in required} - set(found)
    return found.values()


@pytest.fixture
def python(tmp_path):
    """A Python that sees this library, installed, and the packages that it needs to write, and nothing else."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    for distribution in with_dependencies(NEEDED):
        for top in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            (site / top).symlink_to(distribution.locate_file(top))
    checkout = tmp_path / "checkout"  # which an installation writes into
    shutil.copytree(ROOT / "src", checkout / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copytree(ROOT / "models/shakespeare", checkout / "models/shakespeare")
    for path in [*ROOT.glob("requirements*.txt"), *map(ROOT.joinpath, ("setup.py", "pyproject.toml", "MANIFEST.in"))]:
        shutil.copy(path, checkout)
    for name in ("README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    found = tmp_path / "venv/bin/python"
    pip = [sys.executable, "-m", "pip", "--python", found, "install", "-q", "--no-deps"]
    subprocess.run([*pip, checkout], check=True)
    return found


def ran(python, *arguments, **environment):
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [python, *arguments],
        env=kept | environment,
        cwd=python.parent,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_it_writes(native, python):
    result = ran(python, "-c", PROGRAM)
    assert (result.returncode, result.stdout) == (0, "the native step True\n" * 2 + "False\n"), result.stderr
    command = [ROOT / "src/interactive_conditional_samples.py", "--model_name", "shakespeare", "--prompt", "ROMEO:"]
    result = ran(python, *command, "--length", "20")
    assert result.returncode == 0 and len(result.stdout) > 100, result.stderr
    result = ran(python, ROOT / "scripts/doctor.py", "--models_dir", python.parent)
    assert "TensorFlow is not installed: nothing here trains or uses a GPU\n" in result.stdout
    assert result.returncode == 0 and "self-test on random weights: the largest error" in result.stdout, result.stderr


@pytest.mark.slow
def test_what_needs_tensorflow_says_so(python):
    command = [ROOT / "src/interactive_conditional_samples.py", "--model_name", "shakespeare", "--prompt", "ROMEO:"]
    result = ran(python, *command, GPT2_NATIVE="0")
    assert result.returncode == 1
    assert result.stderr == "error: TensorFlow is not installed. Not the native step: GPT2_NATIVE=0\n"
    result = ran(python, ROOT / "train.py", "--dataset", ROOT / "LICENSE", "--model_name", "shakespeare")
    assert result.returncode == 1 and result.stderr.endswith(
        "error: the package tensorflow is missing; type: pip install -r requirements.txt\n"
    )
