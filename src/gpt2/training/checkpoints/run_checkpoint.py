"""Saving a run's weights with all that belongs to them, and reading back what its optimiser remembered."""

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
from gpt2.training.checkpoints.run_folder import (
    BEST_FOLDER,
    COUNTER_FILE,
    MODEL_NAME,
    TRAINING_NAME,
    RunProgress,
    training_prefix,
    write_model_files,
)
from gpt2.training.checkpoints.tensorflow_checkpoint import save as save_checkpoint


def save(folder: Path, weights: Weights, state: Mapping[str, tf.Tensor], progress: RunProgress, keep: int) -> None:
    """Saves all of a run, as one: until the last file is in place, the checkpoint before is in use.

    keep: how many of the newest models stay. Raises GPT2Error if that does not work, with the folder as it was.
    """
    step = progress.step
    texts = {f"{TRAINING_NAME.format(step)}.json": json.dumps(dataclasses.asdict(progress)), COUNTER_FILE: f"{step}\n"}
    beside = {TRAINING_NAME.format(step): state} if state else {}
    save_checkpoint(folder, weights, MODEL_NAME.format(step), beside, texts)
    for number in _numbers(folder, "model")[:-keep]:
        if number != step:
            _remove(folder, MODEL_NAME.format(number))
    for number in _numbers(folder, "training"):
        if number != step:
            _remove(folder, TRAINING_NAME.format(number))


def save_best(folder: Path, weights: Weights, frame: Mapping[str, bytes], step: int) -> None:
    """Saves the weights after so many updates as the model directory `best`, in place of the one before."""
    best = folder / BEST_FOLDER
    write_model_files(best, frame)
    save_checkpoint(best, weights, MODEL_NAME.format(step))
    for number in _numbers(best, "model"):
        if number != step:
            _remove(best, MODEL_NAME.format(number))


def read_optimizer_state(prefix: Path, shapes: Mapping[str, tf.TensorShape]) -> dict[str, tf.Tensor] | None:
    """What the optimiser remembered when the weights `<folder>/model-N` were saved; None if that is not there.

    Raises GPT2Error if it is there and does not fit.
    """
    training = training_prefix(prefix)
    if not index_file(training).is_file():
        return None
    try:
        checkpoint = Checkpoint(training)
        if {name: tuple(shape) for name, shape in shapes.items()} != checkpoint.shapes:
            raise GPT2Error(
                f"{training} holds the optimiser of other variables; remove {training.name}.* to start anew"
            )
        return {name: tf.constant(checkpoint.weight(name).array()) for name in shapes}
    except DamagedFileError as error:
        raise GPT2Error(f"{error.problem}; remove {training.name}.* to go on with the weights alone") from error


def _numbers(folder: Path, kind: str) -> list[int]:
    """The steps of which there is a checkpoint of this kind, in order."""
    matches = (re.fullmatch(rf"{kind}-(\d+)\.(index|json)", path.name) for path in folder.iterdir())
    return sorted({int(match[1]) for match in matches if match})


def _remove(folder: Path, name: str) -> None:
    """Removes a checkpoint's files, the index first: without it, the others are no checkpoint."""
    for path in sorted(folder.glob(f"{name}.*"), key=lambda path: path != index_file(folder / name)):
        path.unlink(missing_ok=True)
