"""Writing checkpoints in OpenAI's layout, with the operation that TensorFlow 1's `Saver` used.

OpenAI's old tools can read these checkpoints. `formats/openai/checkpoint.py` reads both these and theirs.
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
    other_tensors: Mapping[str, Tensors] = MappingProxyType({}),
    texts: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write `<name>.index` and `<name>.data-00000-of-00001` and make them the directory's current checkpoint.

    All files are completed before any of them gets its name, and the `checkpoint` file, which names the weights, is
    moved last. If the process dies in between, the previous checkpoint stays in use.

    Args:
        directory: The model directory.
        weights: Nested weights, as arrays or tensors.
        name: Prefix of the weights' files.
        other_tensors: Tensors saved together with the weights: {file prefix: {name: tensor}}.
        texts: Text files saved together with the weights: {file name: text}.

    Raises:
        GPT2Error: The directory cannot be written.
    """
    try:
        with files.atomic_write_many(directory, checkpoint_files.STATE_FILE) as folder:
            for prefix, tensors in {**other_tensors, name: dict(to_file_shapes(weights))}.items():
                _write_tensors(folder / prefix, tensors)
            for file, text in {**texts, checkpoint_files.STATE_FILE: checkpoint_files.state_text(name)}.items():
                (folder / file).write_text(text, encoding="utf-8")
    except (OSError, tf.errors.OpError) as error:
        reason = _first_line(error).rsplit("; ", 1)[-1]  # the text before it names a temporary file
        raise GPT2Error(
            f"the checkpoint could not be written to {directory}: {reason}; the previous checkpoint is still in use"
        ) from error


def to_file_shapes(weights: Mapping[str, Any]) -> Iterator[tuple[str, tf.Tensor]]:
    """Yield each nested weight as (name, tensor), with the checkpoint file's name and shape."""
    for name, tensor in flatten(weights):
        yield name, tf.reshape(tensor, checkpoint.file_shape(name, tensor.shape))


def _write_tensors(prefix: Path, tensors: Tensors) -> None:
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )


def _first_line(error: Exception) -> str:
    """Return the first line of TensorFlow's message without the names of nodes and operations."""
    line = str(getattr(error, "message", error)).strip().split("\n")[0]
    return re.sub(r"\{\{.*?\}\} *| *\[Op:.*", "", line)
