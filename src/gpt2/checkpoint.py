"""Tensors <-> the files of a checkpoint in OpenAI's layout.

TensorFlow 1's name-based format is read and written through the same two ops that its `Saver` used, without a graph:
the weights are in memory once. OpenAI's old tools read what is written here, and the other way round.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from gpt2 import model_dir
from gpt2.errors import GPT2Error
from gpt2.hparams import HParams
from gpt2.model import Weights


def load(prefix: Path, hparams: HParams) -> Weights:
    """Reads the weights of `<prefix>.index` and `<prefix>.data-*` into nested dictionaries of float32 tensors.

    Keys are the parts of a variable's name below `model/`. Raises GPT2Error, naming file and variable, if the files
    are damaged or do not hold exactly the variables of these hparams.
    """
    try:
        found = tf.train.load_checkpoint(str(prefix))
        _check(found.get_variable_to_shape_map(), found.get_variable_to_dtype_map(), hparams, prefix)
        names = list(hparams.variable_shapes())
        return nest(dict(zip(names, restore(prefix, names))))
    except (tf.errors.OpError, ValueError) as error:
        raise GPT2Error(f"{prefix} is damaged: {_first_line(error)}; delete it and fetch it again") from error


def save(directory: Path, weights: Weights, name: str = model_dir.CHECKPOINT_NAME) -> None:
    """Writes `<name>.index` and `<name>.data-00000-of-00001` and makes them the directory's current checkpoint.

    The files get their names only when they are whole, and the `checkpoint` file names them last: whatever happens in
    between leaves the previous checkpoint in use. Raises GPT2Error if the directory cannot be written.
    """
    named = dict(flatten(weights))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=directory) as temporary:
            tf.raw_ops.SaveV2(
                prefix=str(Path(temporary, name)),
                tensor_names=list(named),
                shape_and_slices=[""] * len(named),
                tensors=list(named.values()),
            )
            for path in sorted(Path(temporary).iterdir()):  # the data before the index
                os.replace(path, directory / path.name)
            state = Path(temporary, model_dir.STATE_FILE)
            state.write_text(model_dir.state_text(name), encoding="utf-8")
            os.replace(state, directory / model_dir.STATE_FILE)
    except (OSError, tf.errors.OpError) as error:
        raise GPT2Error(f"the checkpoint could not be written to {directory}: {_first_line(error)}") from error


def flatten(weights: Weights, prefix: str = "model") -> Iterator[tuple[str, tf.Tensor]]:
    """Nested weights -> (name in the checkpoint, tensor as it is there); the opposite of `nest`."""
    for key, value in weights.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}/{key}")
        else:
            yield f"{prefix}/{key}", tf.reshape(value, [1, *value.shape]) if key == "w" else value


def nest(variables: Mapping[str, tf.Tensor]) -> Weights:
    """Tensors by their names in a checkpoint -> nested weights; the kernels' leading 1 is left to the files."""
    weights: dict[str, Any] = {}
    for name, tensor in variables.items():
        *parents, leaf = name.removeprefix("model/").split("/")
        inner = weights
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[leaf] = tf.reshape(tensor, tensor.shape[1:]) if len(tensor.shape) == 3 else tensor
    return weights


def restore(prefix: Path, names: Sequence[str]) -> list[tf.Tensor]:
    """Reads float32 variables by their names, straight into the tensors that are returned."""
    return tf.raw_ops.RestoreV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        dtypes=[tf.float32] * len(names),
    )


def _check(shapes: dict[str, list[int]], dtypes: dict[str, tf.DType], hparams: HParams, prefix: Path) -> None:
    wanted = hparams.variable_shapes()
    missing = [name for name in wanted if name not in shapes]
    if missing:
        raise GPT2Error(f"{prefix} lacks {len(missing)} of {len(wanted)} variables of {hparams}, first {missing[0]}")
    for name, shape in wanted.items():
        if tuple(shapes[name]) != shape:
            raise GPT2Error(f"{prefix}: {name} has the shape {shapes[name]}, but {hparams} needs {list(shape)}")
        if dtypes[name] != tf.float32:
            raise GPT2Error(f"{prefix}: {name} is {dtypes[name].name}, but OpenAI's layout holds float32")
    layers = {name.split("/")[1] for name in shapes if name.startswith("model/h")}
    if len(layers) > hparams.n_layer:
        raise GPT2Error(f"{prefix} holds {len(layers)} layers, but its hparams.json says n_layer {hparams.n_layer}")


def _first_line(error: Exception) -> str:
    return str(getattr(error, "message", error)).strip().split("\n")[0]
