"""Checkpoints of a run: the weights saved with the optimizer's state and the run's progress."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

from gpt2.errors import DamagedFileError, GPT2Error
from gpt2.formats.openai.checkpoint import Checkpoint
from gpt2.formats.openai.checkpoint_files import index_file
from gpt2.model import Weights
from gpt2.training.checkpoints import tensorflow_checkpoint
from gpt2.training.checkpoints.run_folder import (
    BEST_FOLDER,
    COUNTER_FILE,
    MODEL_NAME,
    TRAINING_NAME,
    RunProgress,
    training_prefix,
    write_model_files,
)


def save(folder: Path, weights: Weights, state: Mapping[str, tf.Tensor], progress: RunProgress, keep: int) -> None:
    """Save the weights, the optimizer's state and the progress as one checkpoint, then delete old checkpoints.

    Until the last file is in place, the previous checkpoint stays in use.

    Args:
        folder: The run's folder.
        weights: Nested weights.
        state: The optimizer's state, by the names of its tensors in the checkpoint.
        progress: The run's progress.
        keep: Number of newest models to retain; 0 retains all.

    Raises:
        GPT2Error: The checkpoint cannot be written; the folder is then unchanged.
    """
    step = progress.step
    texts = {
        f"{TRAINING_NAME.format(step)}.json": json.dumps(dataclasses.asdict(progress)),
        COUNTER_FILE: f"{step}\n",
    }
    other_tensors = {TRAINING_NAME.format(step): state} if state else {}
    tensorflow_checkpoint.save(folder, weights, MODEL_NAME.format(step), other_tensors, texts)
    _delete_checkpoints(folder, "model", [old for old in _list_steps(folder, "model")[:-keep] if old != step])
    _delete_checkpoints(folder, "training", [old for old in _list_steps(folder, "training") if old != step])


def save_best(folder: Path, weights: Weights, model_files: Mapping[str, bytes], step: int) -> None:
    """Save the weights after `step` updates as the model directory `best`, in place of the previous one."""
    best = folder / BEST_FOLDER
    write_model_files(best, model_files)
    tensorflow_checkpoint.save(best, weights, MODEL_NAME.format(step))
    _delete_checkpoints(best, "model", [old for old in _list_steps(best, "model") if old != step])


def read_optimizer_state(prefix: Path, shapes: Mapping[str, tf.TensorShape]) -> dict[str, tf.Tensor] | None:
    """Return the optimizer's state that was saved with the weights `<folder>/model-N`.

    Args:
        prefix: The weights' prefix, `<folder>/model-N`.
        shapes: The shapes of the expected tensors, by their names in the checkpoint.

    Returns:
        The tensors by name, or None if no state was saved.

    Raises:
        GPT2Error: The state is damaged or belongs to other variables.
    """
    training = training_prefix(prefix)
    if not index_file(training).is_file():
        return None
    try:
        checkpoint = Checkpoint(training)
        if {name: tuple(shape) for name, shape in shapes.items()} != checkpoint.shapes:
            raise GPT2Error(
                f"{training} holds the optimizer state of other variables; remove {training.name}.* to start with a"
                " new optimizer"
            )
        return {name: tf.constant(checkpoint.weight(name).array()) for name in shapes}
    except DamagedFileError as error:
        raise GPT2Error(f"{error.problem}; remove {training.name}.* to resume from the weights alone") from error


def _list_steps(folder: Path, kind: str) -> list[int]:
    """Return the steps with a checkpoint of this kind, `model` or `training`, in ascending order."""
    matches = (re.fullmatch(rf"{kind}-(\d+)\.(index|json)", path.name) for path in folder.iterdir())
    return sorted({int(match[1]) for match in matches if match})


def _delete_checkpoints(folder: Path, kind: str, steps: list[int]) -> None:
    """Delete checkpoints.

    The index is deleted first, because the other files are not a checkpoint without it.
    """
    for step in steps:
        index = index_file(folder / f"{kind}-{step}")
        for path in sorted(folder.glob(f"{kind}-{step}.*"), key=lambda path: path != index):
            path.unlink(missing_ok=True)
