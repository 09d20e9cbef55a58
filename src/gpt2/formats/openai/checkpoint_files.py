"""The files of a checkpoint in TensorFlow's name-based format: what they are called, which is current, which are there.

`checkpoint` names the current one, `<prefix>.index` says which variables it has, `<prefix>.data-0000N-of-0000M` are
their bytes. Nothing is read here but the first of them.
"""

from __future__ import annotations

import glob
import re
from pathlib import Path

from gpt2 import files
from gpt2.errors import DamagedFileError, GPT2Error
from gpt2.hparams import HPARAMS_FILE, HParams

STATE_FILE, CHECKPOINT_NAME = "checkpoint", "model.ckpt"


def current_checkpoint(directory: Path) -> Path:
    """The prefix of the weights' files that the `checkpoint` file names.

    A path that is no longer true, because the folder was moved or copied, is looked for by its last part. Raises
    GPT2Error if the file cannot be read or names nothing.
    """
    state = directory / STATE_FILE
    match = re.search(r'^model_checkpoint_path:\s*"([^\0-\x1f]+)"', files.read_text(state), re.MULTILINE)
    if not match:
        raise DamagedFileError(state, f"it should hold a line {state_text(CHECKPOINT_NAME).splitlines()[0]}")
    named = directory / match.group(1)
    return named if files.is_file(index_file(named)) else directory / named.name


def index_file(prefix: Path) -> Path:
    """Where it is said which variables a checkpoint has."""
    return Path(f"{prefix}.index")


def data_file(prefix: Path, shard: int = 0, shards: int = 1) -> Path:
    """Where their bytes are."""
    return Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}")


def state_text(name: str) -> str:
    """What a `checkpoint` file says when `name` is the current checkpoint."""
    return f'model_checkpoint_path: "{name}"\nall_model_checkpoint_paths: "{name}"\n'


def check_files(prefix: Path, hparams: HParams, advice: str) -> None:
    """Raises GPT2Error, naming what is missing or cut off, unless the files of a model's checkpoint are there.

    advice: what to do where no older checkpoint of the same run is there.
    """
    index = index_file(prefix)
    pattern = glob.escape(f"{prefix.name}.data-") + f"{'[0-9]' * 5}-of-{'[0-9]' * 5}"
    with files.reporting_read_errors(prefix.parent):
        shards = [shard for shard in sorted(prefix.parent.glob(pattern)) if files.is_file(shard)]
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
        size, least = sum(shard.stat().st_size for shard in shards), 4 * hparams.n_params
    if size < least:
        raise GPT2Error(
            f"{shards[-1]} is cut off or of another model: {size} bytes, but {prefix.parent / HPARAMS_FILE} needs at"
            f" least {least}; {remedy}"
        )


def suggest_older_checkpoints(prefix: Path) -> str:
    """What to type to use an older checkpoint of the same training run; empty if there is none."""
    kind, _, number = prefix.name.rpartition("-")
    matches = (re.fullmatch(rf"{re.escape(kind)}-(\d+)\.index", path.name) for path in prefix.parent.iterdir())
    steps = sorted((int(match[1]) for match in matches if match), reverse=True)
    names = [f"{kind}-{step}" for step in steps if number.isdecimal() and step < int(number)]
    if not names:
        return ""
    return (
        f"older ones are there, {', '.join(names[:3])}: train on with --restore_from {prefix.with_name(names[0])}, or"
        f" name {names[0]} in {prefix.with_name(STATE_FILE)}"
    )


def is_index_complete(index: Path) -> bool:
    """Whether an `.index` file ends as the tables of TensorFlow's checkpoints do (LevelDB's magic number)."""
    with files.reporting_read_errors(index), index.open("rb") as file:
        file.seek(max(0, index.stat().st_size - 8))
        return file.read() == bytes.fromhex("57fb808b247547db")
