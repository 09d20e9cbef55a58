"""Fixtures: a working directory for a run, and the training command."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs import QUICK, TEXT

from gpt2.cli import command as cli
from train import train


@pytest.fixture
def working_dir(tmp_path, monkeypatch):
    """Enter a working directory that contains text.txt."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path


@pytest.fixture
def run(working_dir, tiny_dir, capsys):
    """Return run(flag=value, ...) -> (status, stdout, stderr), which fine-tunes the tiny model with the command."""

    def run(**flags):
        model = {} if "from_scratch" in flags else {"model_name": tiny_dir}
        arguments = {"dataset": "text.txt", **model, **QUICK, **flags}
        status = cli.main(train, [f"--{name}={value}" for name, value in arguments.items()])
        return status, *capsys.readouterr()

    return run
