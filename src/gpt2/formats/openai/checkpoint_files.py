"""The files of a checkpoint in TensorFlow's name-based format: their names, and checks that they are complete.

`checkpoint` names the current checkpoint, `<prefix>.index` lists its variables, and `<prefix>.data-0000N-of-0000M`
hold their bytes. This module reads only `checkpoint`.
"""

from __future__ import annotations

import glob
import re
from pathlib import Path

from gpt2 import files
from gpt2.errors import DamagedFileError, GPT2Error
from gpt2.hparams import HPARAMS_FILE, HParams

STATE_FILE = "checkpoint"
CHECKPOINT_NAME = "model.ckpt"
TABLE_MAGIC = bytes.fromhex("57fb808b247547db")  # the last bytes of every LevelDB table
FLOAT32_BYTES = 4
MAX_SUGGESTIONS = 3  # older checkpoints that an error message lists


def current_checkpoint(directory: Path) -> Path:
    """Return the prefix of the current checkpoint's files, as the `checkpoint` file names it.

    If the named path does not exist because the folder was moved or copied, the last part of the path is looked up in
    `directory`.

    Raises:
        GPT2Error: The file cannot be read or does not name a checkpoint.
    """
    state = directory / STATE_FILE
    match = re.search(r'^model_checkpoint_path:\s*"([^\0-\x1f]+)"', files.read_text(state), re.MULTILINE)
    if not match:
        raise DamagedFileError(state, f"it should hold a line {state_text(CHECKPOINT_NAME).splitlines()[0]}")
    prefix = directory / match.group(1)
    return prefix if files.is_file(index_file(prefix)) else directory / prefix.name


def index_file(prefix: Path) -> Path:
    """Return the path of the file that lists a checkpoint's variables."""
    return Path(f"{prefix}.index")


def data_file(prefix: Path, shard: int = 0, shards: int = 1) -> Path:
    """Return the path of a data file, number `shard` from 0 of `shards` files."""
    return Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}")


def state_text(name: str) -> str:
    """Return the content of a `checkpoint` file that makes `name` the current checkpoint."""
    return f'model_checkpoint_path: "{name}"\nall_model_checkpoint_paths: "{name}"\n'


def check_files(prefix: Path, hparams: HParams, advice: str) -> None:
    """Check by the names and sizes of its files that a model's checkpoint is complete.

    Args:
        prefix: The path of the checkpoint's files without their suffixes.
        hparams: The model's hyperparameters.
        advice: The remedy if the training run has no older checkpoint, which ends the error message.

    Raises:
        GPT2Error: A file is missing or cut off. The message names the file.
    """
    index = index_file(prefix)
    pattern = glob.escape(f"{prefix.name}.data-") + f"{'[0-9]' * 5}-of-{'[0-9]' * 5}"
    with files.reporting_read_errors(prefix.parent):
        shards = [path for path in sorted(prefix.parent.glob(pattern)) if files.is_file(path)]
    remedy = suggest_older_checkpoints(prefix) or advice
    if not files.is_file(index):
        raise GPT2Error(f"{index} is missing; {remedy}")
    if not shards:
        raise GPT2Error(f"{data_file(prefix)} is missing; {remedy}")
    n_shards = int(shards[0].name[-5:])
    if len(shards) != n_shards:
        raise GPT2Error(f"{prefix.parent} holds {len(shards)} of the {n_shards} files {prefix.name}.data-*; {remedy}")
    if not is_index_complete(index):
        raise GPT2Error(f"{index} is damaged; {remedy}")
    with files.reporting_read_errors(prefix.parent):
        size = sum(path.stat().st_size for path in shards)
    min_size = FLOAT32_BYTES * hparams.n_params
    if size < min_size:
        raise GPT2Error(
            f"{shards[-1]} is cut off or belongs to another model: it has {size} bytes, but"
            f" {prefix.parent / HPARAMS_FILE} needs at least {min_size}; {remedy}"
        )


def suggest_older_checkpoints(prefix: Path) -> str:
    """Return a hint on older checkpoints of the same training run, or "" if there are none."""
    kind, _, number = prefix.name.rpartition("-")
    matches = (re.fullmatch(rf"{re.escape(kind)}-(\d+)\.index", path.name) for path in prefix.parent.iterdir())
    steps = sorted((int(match[1]) for match in matches if match), reverse=True)
    names = [f"{kind}-{step}" for step in steps if number.isdecimal() and step < int(number)]
    if not names:
        return ""
    return (
        f"older checkpoints exist, {', '.join(names[:MAX_SUGGESTIONS])}: resume training with --restore_from"
        f" {prefix.with_name(names[0])}, or name {names[0]} in {prefix.with_name(STATE_FILE)}"
    )


def is_index_complete(index: Path) -> bool:
    """Return whether an `.index` file ends with the magic number of a LevelDB table."""
    with files.reporting_read_errors(index), index.open("rb") as file:
        file.seek(max(0, index.stat().st_size - len(TABLE_MAGIC)))
        return file.read() == TABLE_MAGIC
