"""The old package gpt-2-simple next to this library: imports of this library and commands warn in one line."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gpt2
from gpt2 import child_processes, package_conflict

SOURCES = Path(__file__).parents[1] / "src"
WARNING = re.compile("the old package gpt-2-simple is also installed, in .*: type pip uninstall gpt-2-simple, then ")


@pytest.fixture
def site_packages(tmp_path):
    """Return a folder with the old package's files."""
    old_file = tmp_path / package_conflict.OLD_PACKAGE_FILE
    old_file.parent.mkdir(parents=True)
    old_file.touch()
    (tmp_path / "gpt_2_simple/__init__.py").write_text("print('the old package')")
    return tmp_path


def python(*arguments, first):
    """Run Python with two folders on its path; return stdout and the lines on stderr."""
    folders = (first, SOURCES)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    result = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout, result.stderr.splitlines()


@pytest.mark.parametrize("position", [0, -1])  # the folder comes before this library, or after it
def test_an_import_warns_wherever_the_old_package_is(site_packages, monkeypatch, position):
    assert not package_conflict.describe_conflict()
    folders = list(sys.path)
    folders.insert(0 if position == 0 else len(folders), str(site_packages))
    monkeypatch.setattr(sys, "path", folders)
    with pytest.warns(UserWarning, match=WARNING):
        importlib.reload(gpt2)
    monkeypatch.chdir(site_packages)
    monkeypatch.setattr(sys, "path", [""])
    assert str(site_packages) in package_conflict.describe_conflict()


@pytest.mark.parametrize(
    "arguments",
    [
        ("-c", "import gpt2"),
        ("-c", "import lm, gpt2.request, gpt2.sample"),
        ("-c", "import gpt_2_simple, gpt2"),
        ("-m", "lm.command"),
        (str(SOURCES.parent / "scripts/score.py"), "--help"),
        (str(SOURCES.parent / "scripts/doctor.py"), "--help"),
    ],
)
def test_programs_and_commands_warn_once_in_one_line(site_packages, arguments):
    out, err = python(*arguments, first=site_packages)
    assert len(err) == 1 and WARNING.search(err[0]), err
    assert out == "the old package\n" or "gpt_2_simple" not in arguments[1]


def test_worker_processes_do_not_repeat_the_warning(site_packages):
    command = child_processes.CHILD_PROGRAM.replace("run_child()", "print(run_child.__name__)")
    arguments = [*package_conflict.WITHOUT_WARNING, "-c", command, str(site_packages), *sys.path]
    assert python(*arguments, first=site_packages) == ("run_child\n", [])
