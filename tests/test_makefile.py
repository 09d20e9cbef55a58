"""`make` with scripts in place of Pythons: advice on a wrong PYTHON, and the steps that it names."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gpt2 import installation

CHECKOUT = Path(__file__).resolve().parents[1]
MAKE = shutil.which("make")
TOOLS = ("cp", "mkdir", "rm", "sh", "touch")
FAKE_PYTHON = """#!/bin/sh
case "$*" in
*version_info*) echo {version} ;;
*"import ensurepip, venv"*) exit {ensurepip} ;;
*"-m venv"*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
*"pip install"*) echo "pip: $*" >>pip.log; echo "$PIP_ERROR" >&2; exit {pip} ;;
*fastapi*) exit 1 ;;
esac
"""
pytestmark = pytest.mark.skipif(not MAKE, reason="make is not installed")


@pytest.fixture
def make(tmp_path):
    """Return make(arguments), which runs in a checkout where only the tools and the added Pythons are on the PATH."""
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt", "pyproject.toml", "setup.py"):
        shutil.copy(CHECKOUT / name, tmp_path)
    (tmp_path / "scripts").mkdir()
    shutil.copy(CHECKOUT / "scripts/check_python.sh", tmp_path / "scripts")
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))

    def make(*arguments, **environ):
        command = [MAKE, *arguments]
        environ = {"PATH": str(tmp_path / "bin"), **environ}
        return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)

    return make


def add_python(folder, name, version, ensurepip=0, pip=0):
    path = folder / "bin" / name
    path.write_text(FAKE_PYTHON.format(version=version, ensurepip=ensurepip, pip=pip))
    path.chmod(0o755)


def add_refusing_python(folder, name):
    """Add a command as pyenv's for a version that is installed but not selected."""
    (folder / "bin" / name).write_text("#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
    (folder / "bin" / name).chmod(0o755)


def error_of(result):
    assert result.returncode == 2, result.stdout
    [error] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return error


@pytest.mark.parametrize(
    "arguments, target",
    [
        ([], "demo"),
        (["demo"], "demo"),
        (["serve"], "serve"),
        (["test"], "test"),
        (["lint", "format"], "lint format"),
        (["test-slow"], "test-slow"),
        (["test-docker"], "test-docker"),
    ],
)
@pytest.mark.parametrize(
    "python, problem",
    [
        ("nosuch", "nosuch is not a working Python interpreter"),
        ("python3.13", "python3.13 is not a working Python interpreter"),
        ("python3.9", "TensorFlow needs Python 3.10 to 3.13, and python3.9 is Python 3.9"),
        ("python3.14", "TensorFlow needs Python 3.10 to 3.13, and python3.14 is Python 3.14"),
        ("python3.12", "python3.12 cannot create virtual environments"),
    ],
)
def test_a_wrong_python(make, tmp_path, arguments, target, python, problem):
    """The advice repeats the target, with the newest Python that works."""
    add_refusing_python(tmp_path, "python3.13")
    for name, version, ensurepip in (("3.9", "3.9", 0), ("3.10", "3.10", 0), ("3.12", "3.12", 1), ("3.14", "3.14", 0)):
        add_python(tmp_path, f"python{name}", version, ensurepip)
    expected = f"error: {problem}; type: make {target} PYTHON=python3.10"
    assert error_of(make(*arguments, f"PYTHON={python}")) == expected
    assert not (tmp_path / ".venv").exists()


def test_the_default_python_and_other_variables(make, tmp_path):
    add_python(tmp_path, "python3", "3.14")
    add_python(tmp_path, "python3.11", "3.11")
    expected = "type: make serve PYTHON=python3.11 VENV=env TENSORFLOW=2.16.1"
    assert expected in error_of(make("serve", "VENV=env", "TENSORFLOW=2.16.1"))
    assert error_of(make(PYTHON="nosuch")).endswith("type: make demo PYTHON=python3.11")


@pytest.mark.parametrize(
    "tool, advice",
    [
        ("apt-get", "apt install python3 python3-venv"),
        ("dnf", "dnf install python3.12"),
        ("brew", "brew install python@3.12"),
        (None, "install Python 3.12 from https://www.python.org/downloads/"),
    ],
)
def test_without_any_working_python(make, tmp_path, tool, advice):
    add_python(tmp_path, "python3", "3.9")
    add_refusing_python(tmp_path, "python3.12")
    if tool:
        add_refusing_python(tmp_path, tool)
    assert error_of(make("demo")).endswith(f"; type: {advice}" if tool else f"; {advice}")


def test_debians_package_for_virtual_environments(make, tmp_path):
    add_python(tmp_path, "python3", "3.11", ensurepip=1)
    add_refusing_python(tmp_path, "apt-get")
    assert error_of(make("test")).endswith("; type: apt install python3.11-venv")


@pytest.mark.parametrize("venv", [".venv", "env"])
def test_each_step_says_what_it_installs(make, tmp_path, venv):
    add_python(tmp_path, "python3", "3.12")
    result = make("serve", f"VENV={venv}")
    assert result.returncode == 0, result.stderr
    creating, installing, server, serving = result.stdout.splitlines()
    assert creating == f"Creating {venv} with Python 3.12 (seconds)"
    for line, file in ((installing, "requirements.txt"), (server, "requirements-server.txt")):
        assert file in line and re.search(r"\(\d+ MB to download.*; (minutes|seconds)\)$", line)
    assert serving.startswith(f"{venv}/bin/python scripts/serve.py")
    assert (tmp_path / "pip.log").read_text().count("pip install") == 3
    record = tmp_path / installation.ENVIRONMENT_RECORD
    assert (record.read_text() if record.exists() else ".venv\n") == f"{venv}\n"
    assert len(make("serve", f"VENV={venv}").stdout.splitlines()) == 2, "nothing is installed again except the server's"


def test_the_errors_of_pip_are_shown(make, tmp_path):
    add_python(tmp_path, "python3", "3.12", pip=1)
    result = make("demo", PIP_ERROR="ERROR: no matching distribution")
    assert result.returncode == 2 and "ERROR: no matching distribution" in result.stderr
    assert "generate_unconditional" not in result.stdout


def test_the_supported_versions_agree():
    script = (CHECKOUT / "scripts/check_python.sh").read_text()
    assert f'VERSIONS="{" ".join(installation.SUPPORTED)}"' in script
