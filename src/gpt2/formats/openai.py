"""Tensors <-> the files of a checkpoint in OpenAI's layout.

TensorFlow 1's name-based format is read and written through the same two ops that its `Saver` used, without a graph:
the weights are in memory once. OpenAI's old tools read what is written here, and the other way round.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tensorflow as tf

from gpt2.errors import GPT2Error
from gpt2.formats import model_dir
from gpt2.hparams import HParams
from gpt2.model import Narrow, Weights

Tensors = Mapping[str, tf.Tensor]
STORED = ("/w", "/wte")  # how the names end of what a decode step reads whole
READERS = 2  # one tensor is read while another is packed
ROWS_AT_ONCE = 8192  # of a part; whole panels of the native decoder

Store = Callable[[str, Iterable[tf.Tensor]], Any]


def load(prefix: Path, hparams: HParams, store: Store | None = None) -> Weights:
    """Reads the weights of `<prefix>.index` and `<prefix>.data-*` into nested dictionaries of float32 tensors.

    store: what is made of each kernel [I, O] and of wte [V, E] once it is read, and kept in its place. It gets the
    name, and the rows in parts, so that what it computes on the way can be small.

    Keys are the parts of a variable's name below `model/`. Raises GPT2Error, naming file and variable, if the files
    are damaged or do not hold exactly the variables of these hparams.
    """
    try:
        found = tf.train.load_checkpoint(str(prefix))
        _check(found.get_variable_to_shape_map(), found.get_variable_to_dtype_map(), hparams, prefix)
        names = list(hparams.variable_shapes())
        return nest({**_whole(prefix, names, store), **_in_parts(prefix, hparams, store)})
    except (tf.errors.OpError, ValueError) as error:
        raise GPT2Error(f"{prefix} is damaged: {_first_line(error)}; delete it and fetch it again") from error


def _whole(prefix: Path, names: Sequence[str], store: Store | None) -> dict[str, tf.Tensor]:
    names = [name for name in names if store is None or not name.endswith(STORED)]
    return dict(zip(names, restore(prefix, names)))


def _in_parts(prefix: Path, hparams: HParams, store: Store | None) -> dict[str, Any]:
    if store is None:
        return {}
    stored = [(name, shape) for name, shape in hparams.variable_shapes().items() if name.endswith(STORED)]
    with ThreadPoolExecutor(READERS) as readers:
        values = readers.map(lambda item: store(item[0], _parts(prefix, *item)), stored)
        return {name: value for (name, _), value in zip(stored, values)}


def _parts(prefix: Path, name: str, shape: tuple[int, ...]) -> Iterator[tf.Tensor]:
    (whole,) = restore(prefix, [name])
    rows = tf.reshape(whole, shape[-2:])
    for start in range(0, rows.shape[0], ROWS_AT_ONCE):
        yield rows[start : start + ROWS_AT_ONCE] if rows.shape[0] > ROWS_AT_ONCE else rows


def store_all(weights: Weights, store: Store) -> Weights:
    """What `load` does with `store`, for weights that are in memory."""
    return nest({name: store(name, [w]) if name.endswith(STORED) else w for name, w in leaves(weights)})


def save(
    directory: Path,
    weights: Weights,
    name: str = model_dir.CHECKPOINT_NAME,
    beside: Mapping[str, Tensors] = MappingProxyType({}),
    texts: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Writes `<name>.index` and `<name>.data-00000-of-00001` and makes them the directory's current checkpoint.

    beside, texts: tensors and text that belong to it, by the names of their files. The files get their names only when
    all are whole, and the `checkpoint` file names the weights last: whatever happens in between leaves the previous
    checkpoint in use. Raises GPT2Error if the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=model_dir.UNFINISHED, dir=directory) as temporary:
            for prefix, tensors in {**beside, name: dict(flatten(weights))}.items():
                _write(Path(temporary, prefix), tensors)
            for file, text in texts.items():
                Path(temporary, file).write_text(text, encoding="utf-8")
            state = Path(temporary, model_dir.STATE_FILE)
            whole = sorted(Path(temporary).iterdir())
            state.write_text(model_dir.state_text(name), encoding="utf-8")
            for path in [*whole, state]:
                _to_disk(path)
                os.replace(path, directory / path.name)
    except (OSError, tf.errors.OpError) as error:
        reason = _first_line(error).rsplit("; ", 1)[-1]  # before it stands a temporary file's name
        raise GPT2Error(
            f"the checkpoint could not be written to {directory}: {reason}; what was saved before is still in use"
        ) from error


def _write(prefix: Path, tensors: Tensors) -> None:
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )


def _to_disk(path: Path) -> None:
    """Waits until the file is on the disk: a power failure must not leave a name without its content."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def leaves(weights: Weights, prefix: str = "model") -> Iterator[tuple[str, Any]]:
    """Nested weights -> (name in the checkpoint, what is there)."""
    for key, value in weights.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}/{key}")
        else:
            yield f"{prefix}/{key}", value


def flatten(weights: Weights) -> Iterator[tuple[str, tf.Tensor]]:
    """Nested weights -> (name in the checkpoint, tensor as it is there); the opposite of `nest`."""
    for name, tensor in leaves(weights):
        yield name, tf.reshape(tensor, [1, *tensor.shape]) if name.endswith("/w") else tensor


def nest(variables: Mapping[str, tf.Tensor]) -> Weights:
    """Tensors by their names in a checkpoint -> nested weights; the kernels' leading 1 is left to the files."""
    weights: dict[str, Any] = {}
    for name, tensor in variables.items():
        *parents, leaf = name.removeprefix("model/").split("/")
        inner = weights
        for parent in parents:
            inner = inner.setdefault(parent, {})
        from_file = not isinstance(tensor, Narrow) and len(tensor.shape) == 3
        inner[leaf] = tf.reshape(tensor, tensor.shape[1:]) if from_file else tensor
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
    """What TensorFlow says, without the names of its nodes and operations."""
    line = str(getattr(error, "message", error)).strip().split("\n")[0]
    return re.sub(r"\{\{.*?\}\} *| *\[Op:.*", "", line)
