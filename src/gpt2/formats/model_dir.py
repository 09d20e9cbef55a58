"""Models: names and aliases, where they are looked for, in which format they are, what to type when one is missing.

Nothing here needs TensorFlow, so that a wrong name is answered at once.
"""

from __future__ import annotations

import os
import shlex
import sysconfig
from pathlib import Path

from gpt2 import files
from gpt2.errors import GPT2Error, UsageError
from gpt2.formats import vocabularies
from gpt2.formats.directory import ModelDir, ModelFormat
from gpt2.formats.openai import directory as openai_directory
from gpt2.hparams import HParams
from gpt2.text.vocabulary import Vocabulary

DEFAULT_MODEL = "124M"
DEFAULT_MODELS_DIR = "models"

RELEASED_MODELS = {
    "124M": HParams(n_vocab=50257, n_embd=768, n_head=12, n_layer=12),
    "355M": HParams(n_vocab=50257, n_embd=1024, n_head=16, n_layer=24),
    "774M": HParams(n_vocab=50257, n_embd=1280, n_head=20, n_layer=36),
    "1558M": HParams(n_vocab=50257, n_embd=1600, n_head=25, n_layer=48),
}
# The first tutorials counted the parameters of the two small models wrongly.
OLD_NAMES = {"124M": "117M", "355M": "345M"}
# Where `pip install .` puts the model that is in the repository; setup.py names it too.
INSTALLED_MODELS = Path(sysconfig.get_path("data"), "share", "gpt-2-tensorflow", "models")
_ABOVE = Path(__file__).resolve().parents[2]
CHECKOUT = _ABOVE.parent if _ABOVE.name == "src" else _ABOVE  # some tutorials move all of src/ beside models/


def list_aliases(name: str) -> list[str]:
    """The names of the model that `name` means, itself first.

    >>> same_model("345M")
    ['345M', '355M']
    """
    pairs = [pair for pair in OLD_NAMES.items() if name in pair]
    return [name, *(other for pair in pairs for other in pair if other != name)]


def is_released(model_name: str) -> bool:
    return any(name in RELEASED_MODELS for name in list_aliases(model_name))


def describe_released_models() -> str:
    return ", ".join(f"{name} (or {OLD_NAMES[name]})" if name in OLD_NAMES else name for name in RELEASED_MODELS)


def search_path(models_dir: str = DEFAULT_MODELS_DIR) -> list[Path]:
    """Folders in which models are looked for: `models_dir`; if that is the default, the checkout's and what an
    installation brought too. Raises UsageError for what is no path."""
    if "\0" in models_dir:
        raise UsageError(f"models_dir must be the path of a folder, not {models_dir!r}")
    folder = files.expand_path(models_dir)
    folders = [folder]
    if models_dir == DEFAULT_MODELS_DIR:
        folders += [CHECKOUT / folder, *(path for path in [INSTALLED_MODELS] if path.is_dir())]
    real = [os.path.realpath(folder) for folder in folders]  # of links that lead in a circle, Path.resolve would raise
    return [folder for i, folder in enumerate(folders) if real[i] not in real[:i]]


def list_models(models_dir: str = DEFAULT_MODELS_DIR) -> list[Path]:
    """The model directories in the search path."""
    found = []
    for folder in search_path(models_dir):
        with files.reporting_read_errors(folder):
            found += [path for path in sorted(folder.glob("*")) if is_model(path)]
    return found


def find_model(model_name: str = DEFAULT_MODEL, models_dir: str = DEFAULT_MODELS_DIR) -> ModelDir:
    """Finds a model by its name, by its other name, or by the path of its folder or file.

    Raises GPT2Error: where it was looked for and what to type, or what is wrong with its files.
    """
    there = _places(model_name, models_dir)
    if not there:
        raise GPT2Error(_not_found(model_name, models_dir))
    begun = there[0]  # a download that was interrupted does not hide the same model under its other name
    return open_model_dir(next((path for path in there if is_model(path)), begun))


def is_model(path: Path) -> bool:
    """Whether there is a model of any format, be it whole or not."""
    return _format_of(path) is not None


def _format_of(path: Path) -> ModelFormat | None:
    """Return the module that reads this model, or None if no format recognizes it."""
    if openai_directory.is_model(path):
        return openai_directory
    from gpt2.formats.gguf import model as gguf_model  # these need packages
    from gpt2.formats.huggingface import directory as huggingface_directory
    from gpt2.formats.transformer_lm import directory as transformer_lm_directory

    formats: tuple[ModelFormat, ...] = (huggingface_directory, transformer_lm_directory, gguf_model)
    return next((model_format for model_format in formats if model_format.is_model(path)), None)


def _places(model_name: str, models_dir: str) -> list[Path]:
    """The folders and files that the name may mean and that are there."""
    by_name = [folder / name for folder in search_path(models_dir) for name in list_aliases(model_name)]
    candidates = [*by_name, files.expand_path(model_name)]
    return [path for path in candidates if model_name and (files.is_folder(path) or files.is_file(path))]


def _not_found(model_name: str, models_dir: str) -> str:
    looked = " and ".join(str(folder) for folder in search_path(models_dir))
    at_hand = [path.name for path in list_models(models_dir)]
    use = f", or use one that is there: --model_name {' or '.join(at_hand[:5])}" if at_hand else ""
    if is_released(model_name):
        target = "" if models_dir == DEFAULT_MODELS_DIR else f" --models_dir {shlex.quote(models_dir)}"
        return f"model {model_name} is not in {looked}; download it: {download_command(model_name)}{target}{use}"
    return (
        f"model {model_name!r} is neither in {looked} nor the path of a folder;"
        f" download one of {describe_released_models()}: {download_command(DEFAULT_MODEL)}{use}"
    )


def download_command(model_name: str) -> str:
    return f"python3 download_model.py {model_name}"


def open_model_dir(path: Path) -> ModelDir:
    """The model in this folder, or in this file, whose files are there and of a plausible size.

    Raises GPT2Error naming what is missing, cut off or unreadable.
    """
    model_format = _format_of(path)
    if model_format is None and files.is_file(path):
        raise GPT2Error(f"{path} is a file, and no model; give the path of a model's folder")
    return (model_format or openai_directory).open_model(path, _fetch_again(path))


def load_vocabulary(directory: ModelDir) -> Vocabulary:
    """The model's vocabulary; raises GPT2Error if its files are damaged or belong to another model."""
    vocabulary = directory.read_vocabulary()
    if vocabulary.n_vocab != directory.hparams.n_vocab:
        raise GPT2Error(
            f"{directory.path}: the vocabulary has {vocabulary.n_vocab} ids, but hparams.json says n_vocab"
            f" {directory.hparams.n_vocab}; they belong to different models"
        )
    return vocabulary


def find_vocabulary(model_name: str = DEFAULT_MODEL, models_dir: str = DEFAULT_MODELS_DIR) -> Vocabulary:
    """That of a model, or of a folder that holds a vocabulary alone; raises GPT2Error as `find_model` does."""
    for path in _places(model_name, models_dir):
        if vocabularies.has_vocabulary(path):
            return vocabularies.load(path)
    return load_vocabulary(find_model(model_name, models_dir))


def _fetch_again(path: Path) -> str:
    if is_released(path.name):
        return f"fetch it again: {download_command(path.name)}"
    return "fetch or copy it again"
