"""Training runs of the tiny model: how they are started, and what is looked at in their folders."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from gpt2.formats.weights import flatten
from gpt2.training import trainer

COMMAND = Path(__file__).resolve().parents[1] / "train.py"
TEXT = "the cat sat on the mat and the dog sat on the log\n" * 40
QUICK = {"seed": 1, "learning_rate": 0.01, "sample_every": 0, "batch_size": 2}


def records(name="run1"):
    return [json.loads(line) for line in Path(f"checkpoint/{name}/progress.jsonl").read_text().splitlines()]


def losses(name="run1"):
    return {record["step"]: record["loss"] for record in records(name) if "loss" in record}


def weights(name="run1") -> dict[str, Any]:
    return dict(flatten(tiny.read_model(Path("checkpoint", name))))


def assert_same_weights(found, expected, tolerance=1e-6):
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance, err_msg=name)


def after_update(step, do, command):
    """Runs the command and calls `do` during that update."""
    update = trainer.Trainer.update

    def updated(self, *arguments):
        result = update(self, *arguments)
        if self.step == step:
            do()
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Trainer, "update", updated)
        return command()


def interrupt_after(step, command, number=signal.SIGINT):
    """Runs the command and sends its own process a signal during that update."""
    return after_update(step, lambda: os.kill(os.getpid(), number), command)
