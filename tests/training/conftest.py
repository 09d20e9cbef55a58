"""Fixtures: a place to train in, and the command that does."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs import QUICK, TEXT

from gpt2.cli import command as cli
from train import train


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with a text."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path


@pytest.fixture
def run(place, tiny_dir, capsys):
    """run(flag=value, ...) -> (status, stdout, stderr) of the command, which fine-tunes the tiny model"""

    def run(**flags):
        model = {} if "from_scratch" in flags else {"model_name": tiny_dir}
        given = {"dataset": "text.txt", **model, **QUICK, **flags}
        status = cli.main(train, [f"--{name}={value}" for name, value in given.items()])
        return status, *capsys.readouterr()

    return run
