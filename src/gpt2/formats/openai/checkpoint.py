"""Reader of checkpoints in OpenAI's layout, TensorFlow's name-based format, with NumPy alone.

`<prefix>.index` lists the variables (`checkpoint_index.py`), and `<prefix>.data-0000N-of-0000M` hold their bytes.
The index is checked before memory is allocated, and each checksum is compared while the bytes are read.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import google_crc32c
import numpy as np

from gpt2 import files
from gpt2.errors import GPT2Error
from gpt2.formats.openai.checkpoint_files import FLOAT32_BYTES, data_file, index_file
from gpt2.formats.openai.checkpoint_index import FLOAT32, IndexEntry, damaged_error, read_index
from gpt2.formats.openai.leveldb_table import mask_crc
from gpt2.formats.stored_tensor import read_into
from gpt2.formats.weights import PREFIX, Layout, Weight, Weights
from gpt2.hparams import HParams

PIECE_BYTES = 1 << 25  # size of a piece of a variable that is read at once


class Checkpoint:
    """The variables of a checkpoint; their bytes are read on request.

    Attributes:
        prefix: The path of the checkpoint's files without their suffixes.
        shards: The number of data files.
        entries: The index entry of each variable by its name.
        data_files: The paths of the data files that have been used, by their numbers.
    """

    def __init__(self, prefix: Path) -> None:
        """Read the index.

        Args:
            prefix: The path of the checkpoint's files without their suffixes.

        Raises:
            GPT2Error: The index cannot be read or is damaged. The message names the index.
        """
        self.prefix = prefix
        self.shards, self.entries = read_index(index_file(prefix))
        self.data_files: dict[int, Path] = {}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each variable by its name."""
        return {name: entry.shape for name, entry in self.entries.items()}

    def check_sizes(self) -> None:
        """Check that the data files exist and have the size that the index needs.

        Raises:
            GPT2Error: A file is missing or too short. The message names the file.
        """
        for shard in range(self.shards):
            path = data_file(self.prefix, shard, self.shards)
            needed_bytes = max((e.offset + e.size for e in self.entries.values() if e.shard == shard), default=0)
            with files.reporting_read_errors(path):
                if path.stat().st_size < needed_bytes:
                    raise damaged_error(path, f"it is shorter than the {needed_bytes} bytes that the index needs")

    def weight(self, name: str) -> Weight:
        """Return a float32 variable with the shape in the index and no layout."""
        entry = self.entries[name]
        path = self._data_file(entry.shard)
        checksum = f"{entry.dtype} crc32c {entry.crc:x}"
        return Weight(entry.shape, None, lambda: self._pieces(name), checksum, path, name, checksum)

    def _data_file(self, shard: int) -> Path:
        """Return the path of a data file, built once, because building it for each variable would slow loading down."""
        if shard not in self.data_files:
            self.data_files[shard] = data_file(self.prefix, shard, self.shards)
        return self.data_files[shard]

    def _pieces(self, name: str) -> Iterator[np.ndarray]:
        entry = self.entries[name]
        if entry.dtype != FLOAT32:
            raise GPT2Error(f"{self.prefix}: {name} is {entry.dtype}, but OpenAI's layout holds {FLOAT32}")
        return read_pieces(self._data_file(entry.shard), name, entry)


def read_pieces(path: Path, name: str, entry: IndexEntry) -> Iterator[np.ndarray]:
    """Yield the rows of a float32 variable in order, in pieces of about PIECE_BYTES.

    Args:
        path: The data file.
        name: The variable's name, for messages.
        entry: The variable's index entry.

    Yields:
        Arrays [n, columns], where columns is the variable's last dimension.

    Raises:
        UnreadableFileError: The file cannot be read.
        DamagedFileError: The file is too short, or the checksum differs. The checksum is compared after the last piece.
    """
    columns = entry.shape[-1] if entry.shape else 1
    rows = math.prod(entry.shape[:-1])
    piece_rows = max(1, PIECE_BYTES // (FLOAT32_BYTES * max(1, columns)))
    crc = 0
    with files.reporting_read_errors(path), path.open("rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size < entry.offset + entry.size:
            raise damaged_error(path, f"it ends before the end of {name}")
        file.seek(entry.offset)
        for start in range(0, max(1, rows), piece_rows):
            piece = np.empty((min(piece_rows, rows - start), columns), "<f4")
            if read_into(file, piece) < piece.nbytes:
                raise damaged_error(path, f"it became shorter while {name} was read")
            crc = google_crc32c.extend(crc, piece)
            yield piece
    if mask_crc(crc) != entry.crc:
        raise damaged_error(path, f"the checksum of {name} does not match")


def check_data_file(index: Path, data: Path) -> None:
    """Compare every checksum in the index with the data of a checkpoint with a single data file.

    Args:
        index: The path of the index.
        data: The path of the data file.

    Raises:
        UnreadableFileError: A file cannot be read.
        DamagedFileError: The data is damaged. The message names the first variable that differs.
    """
    for name, entry in read_index(index)[1].items():
        for _ in read_pieces(data, name, entry):
            pass


def read_weights(prefix: Path, hparams: HParams) -> Weights:
    """Return the weights of a model by their names; numbers are read on request.

    Args:
        prefix: The path of the checkpoint's files without their suffixes.
        hparams: The model's hyperparameters.

    Raises:
        GPT2Error: The index is damaged or does not hold this model's variables. The message names file and variable.
    """
    checkpoint = Checkpoint(prefix)
    check_variables(checkpoint.entries, hparams, prefix)
    weights = {}
    for name in variable_shapes(hparams):
        weight = checkpoint.weight(name)._replace(layout=layout(name))
        weights[name] = weight._replace(shape=weight.shape[-2:]) if weight.layout else weight
    return weights


def variable_shapes(hparams: HParams) -> dict[str, tuple[int, ...]]:
    """Return the shape of each variable of a checkpoint by its name, as OpenAI's code creates them."""
    return {name: file_shape(name, shape) for name, shape in hparams.weight_shapes().items()}


def layout(name: str) -> Layout | None:
    """Return the layout of a variable in OpenAI's code: [I, O] for matrices, [O, I] for wte and lm_head."""
    return {"w": Layout.IN_OUT, "wte": Layout.OUT_IN, "lm_head": Layout.OUT_IN}.get(name.rpartition("/")[2])


def file_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a weight's shape in a checkpoint, which stores matrices [I, O] as [1, I, O]: convolutions of width 1."""
    return (1, *shape) if layout(name) is Layout.IN_OUT else tuple(shape)


def check_variables(entries: Mapping[str, IndexEntry], hparams: HParams, prefix: Path) -> None:
    """Check that a checkpoint has the variables of a model, with the right shapes and types.

    Args:
        entries: The index entry of each variable by its name.
        data_files: The paths of the data files that have been used, by their numbers.
        hparams: The model's hyperparameters.
        prefix: The path of the checkpoint, for messages.

    Raises:
        GPT2Error: A variable is missing or has another shape or type. The message names the variable.
    """
    layers = {name.split("/")[1] for name in entries if name.startswith(f"{PREFIX}h")}
    if len(layers) != hparams.n_layer:
        raise GPT2Error(f"{prefix} holds {len(layers)} layers, but its hparams.json has n_layer {hparams.n_layer}")
    expected = variable_shapes(hparams)
    missing = [name for name in expected if name not in entries]
    if missing:
        raise GPT2Error(
            f"{prefix} lacks {len(missing)} of {len(expected)} variables of {hparams}; the first is {missing[0]}"
        )
    for name, shape in expected.items():
        entry = entries[name]
        if entry.shape != shape:
            raise GPT2Error(f"{prefix}: {name} has the shape {list(entry.shape)}, but {hparams} needs {list(shape)}")
        if entry.dtype != FLOAT32:
            raise GPT2Error(f"{prefix}: {name} is {entry.dtype}, but OpenAI's layout holds {FLOAT32}")
