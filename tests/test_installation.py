"""What to type if packages are missing: the checkout's virtual environment comes before `pip install`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2 import installation
from gpt2.bulk import cluster, source
from gpt2.cli import command, serving
from gpt2.engine.native import build
from gpt2.errors import GPT2Error
from gpt2.text import sentencepiece

CHECKOUT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(
    str(path.relative_to(CHECKOUT))
    for path in [*CHECKOUT.glob("*.py"), *CHECKOUT.glob("scripts/*.py"), *CHECKOUT.glob("src/*_samples.py")]
    if path.name != "setup.py"
)
POSIX, WINDOWS = ("bin", "lib/python3.12/site-packages"), ("Scripts", "Lib/site-packages")
ALL_MODULES = ("numpy", "fire", "fastapi", "uvicorn", "prometheus_client", "pyarrow", "ray", "sentencepiece")


def make_environment(path, layout=POSIX, modules=ALL_MODULES):
    scripts, packages = layout
    (path / scripts).mkdir(parents=True)
    (path / scripts / "activate").touch()
    for module in modules:
        (path / packages / module).mkdir(parents=True)
    return path


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """An empty checkout, which is also the working directory, without any virtual environment in use."""
    (tmp_path / "checkout").mkdir()
    monkeypatch.setattr(installation, "CHECKOUT", tmp_path / "checkout")
    monkeypatch.chdir(tmp_path / "checkout")
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.delenv("VENV", raising=False)
    return tmp_path / "checkout"


@pytest.mark.parametrize(
    "folder, layout, expected",
    [
        (".venv", POSIX, ". .venv/bin/activate"),
        (".venv", WINDOWS, r".venv\Scripts\activate"),
        ("my env", POSIX, ". 'my env/bin/activate'"),
        ("my env", WINDOWS, r'"my env\Scripts\activate"'),
        ("../elsewhere/env", POSIX, ". ../elsewhere/env/bin/activate"),
    ],
)
@pytest.mark.parametrize("named_by", ["variable", "record"])
def test_an_existing_environment_is_activated(checkout, monkeypatch, folder, layout, expected, named_by):
    """The Makefile's VENV may name any folder; `make` records it."""
    make_environment(checkout / folder, layout)
    if named_by == "variable":
        monkeypatch.setenv("VENV", folder)
    else:
        (checkout / ".venv-path").write_text(f"{folder}\n")
    found = installation.install_command("-r requirements.txt", "numpy")
    assert found == expected


def test_the_environment_is_found_from_any_working_directory(checkout, monkeypatch):
    make_environment(checkout / ".venv")
    monkeypatch.chdir(checkout.parent)
    assert installation.install_command("x", "numpy") == ". checkout/.venv/bin/activate"
    (checkout.parent / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(checkout.parent / "a" / "b")
    assert installation.install_command("x", "numpy") == f". {checkout}/.venv/bin/activate"
    (checkout.parent / "a" / "b").rmdir()
    assert installation.install_command("x", "numpy") == f". {checkout}/.venv/bin/activate"


def test_an_environment_without_the_packages_is_activated_first(checkout):
    make_environment(checkout / ".venv", modules=["numpy"])
    expected = ". .venv/bin/activate && pip install -r requirements-server.txt"
    assert installation.install_command("-r requirements-server.txt", "numpy", "fastapi") == expected


@pytest.mark.parametrize("damaged", [None, ".venv/bin", ".venv/lib", ".venv/activate"])
def test_without_an_environment_pip_is_named(checkout, monkeypatch, damaged):
    if damaged:
        (checkout / damaged).mkdir(parents=True)
    monkeypatch.setattr(installation.sysconfig, "get_path", lambda name: str(checkout))
    assert installation.install_command("-r requirements.txt", "numpy") == "pip install -r requirements.txt"
    (checkout / "EXTERNALLY-MANAGED").touch()  # as in Debian, whose pip refuses
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert installation.install_command("-r requirements-ray.txt", "ray") == (
        "python3 -m venv .venv && . .venv/bin/activate && pip install -r requirements.txt -r requirements-ray.txt"
    )


def test_inside_the_environment_pip_is_named(checkout, monkeypatch):
    make_environment(checkout / ".venv")
    monkeypatch.setattr(sys, "prefix", str(checkout / ".venv"))
    assert installation.install_command("-r requirements.txt", "numpy") == "pip install -r requirements.txt"


def test_an_active_environment_whose_python_was_not_used(checkout, monkeypatch):
    make_environment(checkout / ".venv")
    monkeypatch.setenv("VIRTUAL_ENV", str(checkout / ".venv"))
    monkeypatch.setattr(sys, "argv", ["train.py", "my text.txt"])
    assert installation.install_command("x", "numpy") == ".venv/bin/python train.py 'my text.txt'"


def test_an_old_python_gets_a_newer_one(checkout, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    for name, body in (("python3.13", "exit 127"), ("python3.11", "exit 0")):  # pyenv's commands may refuse to start
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert installation.explain_old_python().endswith("; type: python3.11 train.py")
    monkeypatch.setenv("PATH", str(checkout))
    assert installation.explain_old_python().endswith("; install Python 3.12")
    make_environment(checkout / ".venv")
    assert installation.explain_old_python().endswith("; type: . .venv/bin/activate")


def missing_package():
    raise ModuleNotFoundError("No module named 'numpy.linalg'", name="numpy.linalg")


def run_without(monkeypatch, place):
    """Make one place of the library report a missing package; return its message."""
    for module in ("ray", "pyarrow", "sentencepiece"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(serving.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(GPT2Error) as error:
        place()
    return str(error.value)


@pytest.mark.parametrize(
    "place",
    [
        cluster.import_ray,
        source.import_parquet,
        sentencepiece.import_sentencepiece,
        lambda: serving.access_limits(None, (), (), 1),
    ],
    ids=["ray", "parquet", "sentencepiece", "server"],
)
def test_every_optional_package(checkout, monkeypatch, place):
    make_environment(checkout / ".venv")
    assert run_without(monkeypatch, place).endswith("; type: . .venv/bin/activate")


def test_the_frame_of_all_commands(checkout, capsys):
    make_environment(checkout / ".venv")
    assert command.guarded(missing_package) == 1
    assert capsys.readouterr().err == "error: the package numpy is missing; type: . .venv/bin/activate\n"


def test_the_compiler(checkout, monkeypatch):
    make_environment(checkout / ".venv")
    monkeypatch.setattr(build, "find_compilers", lambda: iter(()))
    monkeypatch.setattr(build, "_load_compiled", lambda name: None)
    with pytest.raises(build.NoLibraryError, match=r"install one with: \. .venv/bin/activate && pip install ziglang$"):
        build.find()


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_script_on_a_python_without_packages(tmp_path, script):
    make_environment(tmp_path / "env")
    environ = {**os.environ, "VENV": str(tmp_path / "env")}
    environ.pop("VIRTUAL_ENV", None)
    arguments = [sys.executable, "-E", "-S", CHECKOUT / script, *["text.txt"] * ("download" not in script), "124M"]
    result = subprocess.run(arguments, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)
    assert result.stderr.endswith("; type: . env/bin/activate\n") and result.stderr.count("\n") == 1, result.stderr
    assert (result.returncode, result.stdout) == (1, "")
