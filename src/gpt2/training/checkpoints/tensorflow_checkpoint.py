"""Writes checkpoints in OpenAI's layout, through the op that TensorFlow 1's `Saver` used.

OpenAI's old tools read what is written here. `formats/openai/checkpoint.py` reads it, and theirs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tensorflow as tf

from gpt2 import files
from gpt2.errors import GPT2Error
from gpt2.formats.openai import checkpoint, checkpoint_files
from gpt2.formats.weights import flatten

Tensors = Mapping[str, tf.Tensor]


def save(
    directory: Path,
    weights: Mapping[str, Any],
    name: str = checkpoint_files.CHECKPOINT_NAME,
    beside: Mapping[str, Tensors] = MappingProxyType({}),
    texts: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Writes `<name>.index` and `<name>.data-00000-of-00001` and makes them the directory's current checkpoint.

    weights: nested, arrays or tensors. beside, texts: tensors and text that belong to it, by the names of their files.
    The files get their names only when all are whole, and the `checkpoint` file names the weights last: whatever
    happens in between leaves the previous checkpoint in use. Raises GPT2Error if the directory cannot be written.
    """
    try:
        with files.atomic_write_many(directory, checkpoint_files.STATE_FILE) as folder:
            for prefix, tensors in {**beside, name: dict(in_file_shapes(weights))}.items():
                _write(folder / prefix, tensors)
            for file, text in {**texts, checkpoint_files.STATE_FILE: checkpoint_files.state_text(name)}.items():
                (folder / file).write_text(text, encoding="utf-8")
    except (OSError, tf.errors.OpError) as error:
        reason = _first_line(error).rsplit("; ", 1)[-1]  # before it stands a temporary file's name
        raise GPT2Error(
            f"the checkpoint could not be written to {directory}: {reason}; what was saved before is still in use"
        ) from error


def in_file_shapes(weights: Mapping[str, Any]) -> Iterator[tuple[str, tf.Tensor]]:
    """Nested weights -> (name in the checkpoint, tensor of the shape that it has there)."""
    for name, tensor in flatten(weights):
        yield name, tf.reshape(tensor, checkpoint.file_shape(name, tensor.shape))


def _write(prefix: Path, tensors: Tensors) -> None:
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )


def _first_line(error: Exception) -> str:
    """What TensorFlow says, without the names of its nodes and operations."""
    line = str(getattr(error, "message", error)).strip().split("\n")[0]
    return re.sub(r"\{\{.*?\}\} *| *\[Op:.*", "", line)
