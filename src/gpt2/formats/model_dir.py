"""Model directories: names and aliases, where models are looked for, their files, what to type when one is missing.

A model directory is what OpenAI published and what training writes: `hparams.json encoder.json vocab.bpe checkpoint`
and the weights that `checkpoint` names. Nothing here needs TensorFlow, so that a wrong name is answered at once.
"""

from __future__ import annotations

import glob
import os
import re
import shlex
import sysconfig
from pathlib import Path
from typing import NamedTuple

from gpt2 import files
from gpt2.encoder import ENCODER_FILE, MERGES_FILE, Encoder, load_encoder
from gpt2.errors import Damaged, GPT2Error, UsageError
from gpt2.hparams import HPARAMS_FILE, HParams, load_hparams

DEFAULT_MODEL = "124M"
DEFAULT_MODELS_DIR = "models"
STATE_FILE, CHECKPOINT_NAME = "checkpoint", "model.ckpt"

RELEASED = {
    "124M": HParams(n_vocab=50257, n_embd=768, n_head=12, n_layer=12),
    "355M": HParams(n_vocab=50257, n_embd=1024, n_head=16, n_layer=24),
    "774M": HParams(n_vocab=50257, n_embd=1280, n_head=20, n_layer=36),
    "1558M": HParams(n_vocab=50257, n_embd=1600, n_head=25, n_layer=48),
}
# The first tutorials counted the parameters of the two small models wrongly.
OLD_NAMES = {"124M": "117M", "355M": "345M"}
# By which files other tools' models are known.
FOREIGN = {"transformer-lm": ("params.json", "sp.model"), "Hugging Face's transformers": ("config.json",)}
# Where `pip install .` puts the model that is in the repository; setup.py names it too.
INSTALLED_MODELS = Path(sysconfig.get_path("data"), "share", "gpt-2-tensorflow", "models")
_ABOVE = Path(__file__).resolve().parents[2]
CHECKOUT = _ABOVE.parent if _ABOVE.name == "src" else _ABOVE  # some tutorials move all of src/ beside models/


class ModelDir(NamedTuple):
    """A model directory whose files are there."""

    path: Path
    hparams: HParams
    weights: Path  # prefix of the weights' files


def same_model(name: str) -> list[str]:
    """The names of the model that `name` means, itself first.

    >>> same_model("345M")
    ['345M', '355M']
    """
    pairs = [pair for pair in OLD_NAMES.items() if name in pair]
    return [name, *(other for pair in pairs for other in pair if other != name)]


def is_released(model_name: str) -> bool:
    return any(name in RELEASED for name in same_model(model_name))


def released_names() -> str:
    return ", ".join(f"{name} (or {OLD_NAMES[name]})" if name in OLD_NAMES else name for name in RELEASED)


def search_path(models_dir: str = DEFAULT_MODELS_DIR) -> list[Path]:
    """Folders in which models are looked for: `models_dir`; if that is the default, the checkout's and what an
    installation brought too. Raises UsageError for what is no path."""
    if "\0" in models_dir:
        raise UsageError(f"models_dir must be the path of a folder, not {models_dir!r}")
    folder = files.expanded(models_dir)
    folders = [folder]
    if models_dir == DEFAULT_MODELS_DIR:
        folders += [CHECKOUT / folder, *(path for path in [INSTALLED_MODELS] if path.is_dir())]
    real = [os.path.realpath(folder) for folder in folders]  # of links that lead in a circle, Path.resolve would raise
    return [folder for i, folder in enumerate(folders) if real[i] not in real[:i]]


def models_at_hand(models_dir: str = DEFAULT_MODELS_DIR) -> list[Path]:
    """The model directories in the search path."""
    found = []
    for folder in search_path(models_dir):
        with files.reading(folder):
            found += [path.parent for path in sorted(folder.glob(f"*/{HPARAMS_FILE}"))]
    return found


def find_model(model_name: str = DEFAULT_MODEL, models_dir: str = DEFAULT_MODELS_DIR) -> ModelDir:
    """Finds a model by its name, by its other name, or by the path of its directory.

    Raises GPT2Error: where it was looked for and what to type, or what is wrong with its files.
    """
    there = _folders(model_name, models_dir)
    if not there:
        raise GPT2Error(_not_found(model_name, models_dir))
    begun = there[0]  # a download that was interrupted does not hide the same model under its other name
    return open_model_dir(next((path for path in there if files.is_file(path / HPARAMS_FILE)), begun))


def _folders(model_name: str, models_dir: str) -> list[Path]:
    """The folders that the name may mean and that are there."""
    by_name = [folder / name for folder in search_path(models_dir) for name in same_model(model_name)]
    candidates = [*by_name, files.expanded(model_name)]
    return [path for path in candidates if model_name and files.is_folder(path)]


def _not_found(model_name: str, models_dir: str) -> str:
    looked = " and ".join(str(folder) for folder in search_path(models_dir))
    at_hand = [path.name for path in models_at_hand(models_dir)]
    use = f", or use one that is there: --model_name {' or '.join(at_hand[:5])}" if at_hand else ""
    if is_released(model_name):
        target = "" if models_dir == DEFAULT_MODELS_DIR else f" --models_dir {shlex.quote(models_dir)}"
        return f"model {model_name} is not in {looked}; download it: {download_command(model_name)}{target}{use}"
    return (
        f"model {model_name!r} is neither in {looked} nor the path of a folder;"
        f" download one of {released_names()}: {download_command(DEFAULT_MODEL)}{use}"
    )


def download_command(model_name: str) -> str:
    return f"python3 download_model.py {model_name}"


def open_model_dir(path: Path) -> ModelDir:
    """Checks that all files of a model directory are there and of a plausible size; reads its hparams.

    Raises GPT2Error naming what is missing, cut off or unreadable.
    """
    missing = [name for name in (HPARAMS_FILE, ENCODER_FILE, MERGES_FILE, STATE_FILE) if not files.is_file(path / name)]
    if missing == [HPARAMS_FILE, ENCODER_FILE, MERGES_FILE]:
        raise GPT2Error(
            f"{path} holds weights only, as the old train.py wrote them: copy {', '.join(missing)}"
            f" of the model that was trained, such as {DEFAULT_MODELS_DIR}/{DEFAULT_MODEL}, into it"
        )
    for tool, names in FOREIGN.items():
        if missing and all(files.is_file(path / name) for name in names):
            raise GPT2Error(
                f"{path} is a model of {tool} ({', '.join(names)}), which cannot be read here; what can is OpenAI's"
                f" layout: {', '.join((HPARAMS_FILE, ENCODER_FILE, MERGES_FILE, STATE_FILE))} and the weights it names"
            )
    if missing:
        raise GPT2Error(f"{path} lacks {', '.join(missing)}; {_fetch_again(path)}")
    hparams = load_hparams(path / HPARAMS_FILE)
    prefix = current_checkpoint(path)
    _check_files(prefix, hparams)
    return ModelDir(path, hparams, prefix)


def load_vocabulary(directory: ModelDir) -> Encoder:
    """The model's encoder; raises GPT2Error if its files are damaged or belong to another model."""
    encoder = load_encoder(directory.path)
    if encoder.n_vocab != directory.hparams.n_vocab:
        raise GPT2Error(
            f"{directory.path}: the vocabulary has {encoder.n_vocab} ids, but hparams.json says n_vocab"
            f" {directory.hparams.n_vocab}; they belong to different models"
        )
    return encoder


def find_vocabulary(model_name: str = DEFAULT_MODEL, models_dir: str = DEFAULT_MODELS_DIR) -> Encoder:
    """The encoder of a model, or of a folder that holds a vocabulary alone; raises GPT2Error as `find_model` does."""
    for path in _folders(model_name, models_dir):
        if files.is_file(path / ENCODER_FILE) and files.is_file(path / MERGES_FILE):
            return load_encoder(path)
    return load_vocabulary(find_model(model_name, models_dir))


def current_checkpoint(directory: Path) -> Path:
    """The prefix of the weights' files that the `checkpoint` file names.

    A path that is no longer true, because the folder was moved or copied, is looked for by its last part. Raises
    GPT2Error if the file cannot be read or names nothing.
    """
    state = directory / STATE_FILE
    match = re.search(r'^model_checkpoint_path:\s*"([^\0-\x1f]+)"', files.read_text(state), re.MULTILINE)
    if not match:
        raise Damaged(state, f"it should hold a line {state_text(CHECKPOINT_NAME).splitlines()[0]}")
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


def _check_files(prefix: Path, hparams: HParams) -> None:
    index = index_file(prefix)
    pattern = glob.escape(f"{prefix.name}.data-") + f"{'[0-9]' * 5}-of-{'[0-9]' * 5}"
    with files.reading(prefix.parent):
        shards = [shard for shard in sorted(prefix.parent.glob(pattern)) if files.is_file(shard)]
    remedy = older_ones(prefix) or _fetch_again(prefix.parent)
    if not files.is_file(index):
        raise GPT2Error(f"{index} is missing; {remedy}")
    if not shards:
        raise GPT2Error(f"{data_file(prefix)} is missing; {remedy}")
    n_shards = int(shards[0].name[-5:])
    if len(shards) != n_shards:
        raise GPT2Error(f"{prefix.parent} holds {len(shards)} of the {n_shards} files {prefix.name}.data-*; {remedy}")
    if not index_is_whole(index):
        raise GPT2Error(f"{index} is damaged; {remedy}")
    with files.reading(prefix.parent):
        size, least = sum(shard.stat().st_size for shard in shards), 4 * hparams.n_params
    if size < least:
        raise GPT2Error(
            f"{shards[-1]} is cut off or of another model: {size} bytes, but {prefix.parent / HPARAMS_FILE} needs at"
            f" least {least}; {remedy}"
        )


def older_ones(prefix: Path) -> str:
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


def index_is_whole(index: Path) -> bool:
    """Whether an `.index` file ends as the tables of TensorFlow's checkpoints do (LevelDB's magic number)."""
    with files.reading(index), index.open("rb") as file:
        file.seek(max(0, index.stat().st_size - 8))
        return file.read() == bytes.fromhex("57fb808b247547db")


def _fetch_again(path: Path) -> str:
    if is_released(path.name):
        return f"fetch it again: {download_command(path.name)}"
    return "fetch or copy it again"
