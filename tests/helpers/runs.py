"""Helpers for training runs of the tiny model: starting and interrupting them, and reading their folders."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from gpt2.formats.weights import flatten
from gpt2.training import trainer

COMMAND = Path(__file__).resolve().parents[2] / "train.py"
TEXT = "the cat sat on the mat and the dog sat on the log\n" * 40
QUICK = {"seed": 1, "learning_rate": 0.01, "sample_every": 0, "batch_size": 2}


def records(name: str = "run1") -> list[dict[str, Any]]:
    """Return the history of a run."""
    return [json.loads(line) for line in Path(f"checkpoint/{name}/progress.jsonl").read_text().splitlines()]


def losses(name: str = "run1") -> dict[int, float]:
    """Return the losses of a run by step."""
    return {record["step"]: record["loss"] for record in records(name) if "loss" in record}


def weights(name: str = "run1") -> dict[str, Any]:
    """Return the current weights of a run by name."""
    return dict(flatten(tiny.read_model(Path("checkpoint", name))))


def assert_same_weights(weights: dict[str, Any], expected: dict[str, Any], tolerance: float = 1e-6) -> None:
    """Check that all expected weights have the same values."""
    for name, value in expected.items():
        np.testing.assert_allclose(weights[name], value, rtol=0, atol=tolerance, err_msg=name)


def after_update(step: int, action: Callable[[], object], command: Callable[[], Any]) -> Any:
    """Run the command and call `action` during update `step`. Return the command's result."""
    update = trainer.Trainer.update

    def update_and_act(self: trainer.Trainer, *arguments: Any) -> Any:
        result = update(self, *arguments)
        if self.step == step:
            action()
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Trainer, "update", update_and_act)
        return command()


def interrupt_after(step: int, command: Callable[[], Any], number: int = signal.SIGINT) -> Any:
    """Run the command and send this process a signal during update `step`. Return the command's result."""
    return after_update(step, lambda: os.kill(os.getpid(), number), command)
