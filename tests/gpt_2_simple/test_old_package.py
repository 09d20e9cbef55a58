"""Tests of an environment into which pip has also installed the old package gpt-2-simple: imports of gpt2 say so."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
UNINSTALL = "type pip uninstall gpt-2-simple, then install this package again"


def install_this(folder):
    """Put this package into a folder; of `gpt2` itself, only the modules that its import runs."""
    (folder / "gpt2").mkdir(parents=True, exist_ok=True)
    for name in ("__init__.py", "installation.py", "package_conflict.py"):
        shutil.copy(CHECKOUT / "src/gpt2" / name, folder / "gpt2")
    shutil.copytree(CHECKOUT / "src/gpt_2_simple", folder / "gpt_2_simple", dirs_exist_ok=True)
    shutil.copy(CHECKOUT / "src/gpt_2_simple.py", folder)


def install_old(folder):
    for name in ("__init__.py", "gpt_2.py", "src/__init__.py", "src/memory_saving_gradients.py"):
        path = folder / "gpt_2_simple" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")


def uninstall_old(folder):
    for name in ("__init__.py", "gpt_2.py"):
        (folder / "gpt_2_simple" / name).unlink()
    shutil.rmtree(folder / "gpt_2_simple" / "src")


@pytest.mark.parametrize(
    "steps, message",
    [
        ([install_this], ""),
        ([install_this, install_old], UNINSTALL),
        ([install_old, install_this], UNINSTALL),
        ([install_this, install_old, uninstall_old], "the old package gpt-2-simple was uninstalled"),
        ([install_this, install_old, uninstall_old, install_this], ""),
    ],
)
def test_import_after_both_were_installed(tmp_path, steps, message):
    for step in steps:
        step(tmp_path)
    check_import([tmp_path], message)


@pytest.mark.parametrize("is_old_first", [True, False])
def test_import_from_a_checkout_with_the_old_package_elsewhere(tmp_path, is_old_first):
    """As after `pip install -e .`, which puts the checkout at the end of the path."""
    install_this(tmp_path / "checkout")
    install_old(tmp_path / "site")
    folders = [tmp_path / "site", tmp_path / "checkout"]
    check_import(folders if is_old_first else folders[::-1], UNINSTALL)


def test_import_with_a_second_copy_and_entries_that_are_no_folders(tmp_path):
    for name in ("checkout", "copy"):
        install_this(tmp_path / name)
    (tmp_path / "archive.zip").write_bytes(b"PK")
    check_import([tmp_path / name for name in ("archive.zip", "none", "copy", "checkout")], "")


def check_import(folders, message):
    """Import gpt2 with these folders on the path: one line is printed, with the message, or nothing."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    command = [sys.executable, "-S", "-c", "import gpt2"]
    result = subprocess.run(command, env=environment, cwd=folders[-1].parent, capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout == ""
    assert len(result.stderr.splitlines()) == bool(message) and message in result.stderr
    assert not message or "pip install --force-reinstall --no-deps ." in result.stderr
