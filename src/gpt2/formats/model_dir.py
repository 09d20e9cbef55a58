"""Search for models: names and aliases, the search path, the format, and error messages for missing models.

This module does not import TensorFlow, so the error for a wrong name appears immediately.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from gpt2 import files
from gpt2.errors import GPT2Error, UsageError, suggest
from gpt2.formats import vocabularies
from gpt2.formats.directory import ModelDir, ModelFormat
from gpt2.formats.openai import directory as openai_directory
from gpt2.hparams import HParams
from gpt2.installation import CHECKOUT
from gpt2.text.vocabulary import Vocabulary

DEFAULT_MODEL = "124M"
DEFAULT_MODELS_DIR = "models"

RELEASED_MODELS = {
    "124M": HParams(n_vocab=50257, n_embd=768, n_head=12, n_layer=12),
    "355M": HParams(n_vocab=50257, n_embd=1024, n_head=16, n_layer=24),
    "774M": HParams(n_vocab=50257, n_embd=1280, n_head=20, n_layer=36),
    "1558M": HParams(n_vocab=50257, n_embd=1600, n_head=25, n_layer=48),
}
# OpenAI's first release miscounted the parameters of the two small models; many tutorials use the old names.
OLD_NAMES = {"124M": "117M", "355M": "345M"}
# `pip install .` puts the bundled model here; setup.py repeats this path.
INSTALLED_MODELS = Path(sysconfig.get_path("data"), "share", "gpt-2-tensorflow", "models")
MAX_SUGGESTIONS = 5  # existing models that the error for a missing model lists


def list_aliases(name: str) -> list[str]:
    """Return all names of a model, with `name` first.

    >>> list_aliases("345M")
    ['345M', '355M']
    """
    pairs = [pair for pair in OLD_NAMES.items() if name in pair]
    return [name, *(alias for pair in pairs for alias in pair if alias != name)]


def is_released(model_name: str) -> bool:
    """Return whether OpenAI released a model of this name, old or new."""
    return any(name in RELEASED_MODELS for name in list_aliases(model_name))


def released_names() -> list[str]:
    """Return all names of the released models, old ones included."""
    return [alias for name in RELEASED_MODELS for alias in list_aliases(name)]


def describe_released_models() -> str:
    """Return a list of the released models for a message, with old names in parentheses."""
    return ", ".join(f"{name} (or {OLD_NAMES[name]})" if name in OLD_NAMES else name for name in RELEASED_MODELS)


def search_path(models_dir: str = DEFAULT_MODELS_DIR) -> list[Path]:
    """Return the folders to search for models, in order and without duplicates.

    Args:
        models_dir: The folder to search. The default also covers the checkout and the installed models.

    Raises:
        UsageError: `models_dir` cannot be a path.
    """
    if "\0" in models_dir:
        raise UsageError(f"models_dir must be the path of a folder, not {models_dir!r}")
    folder = files.expand_path(models_dir)
    folders = [folder]
    if models_dir == DEFAULT_MODELS_DIR:
        folders += [CHECKOUT / folder, *(path for path in [INSTALLED_MODELS] if path.is_dir())]
    real_paths = [os.path.realpath(folder) for folder in folders]  # Path.resolve raises if links form a loop
    return [folder for i, folder in enumerate(folders) if real_paths[i] not in real_paths[:i]]


def list_models(models_dir: str = DEFAULT_MODELS_DIR) -> list[Path]:
    """Return the paths of all models in the search path, complete or not."""
    models = []
    for folder in search_path(models_dir):
        with files.reporting_read_errors(folder):
            models += [path for path in sorted(folder.glob("*")) if is_model(path)]
    return models


def find_model(model_name: str = DEFAULT_MODEL, models_dir: str = DEFAULT_MODELS_DIR) -> ModelDir:
    """Find and open a model.

    Args:
        model_name: The model's name, its alias, or the path of its folder or file.
        models_dir: The folder to search, as in `search_path`.

    Raises:
        GPT2Error: There is no such model, or its files are incomplete or damaged. The message names the searched
            folders and a command that helps.
    """
    paths = _existing_paths(model_name, models_dir)
    if not paths:
        raise GPT2Error(_not_found_message(model_name, models_dir))
    # The folder of an interrupted download must not hide the complete model under its other name.
    return open_model_dir(next((path for path in paths if is_model(path)), paths[0]))


def is_model(path: Path) -> bool:
    """Return whether `path` is a model of any format, complete or not."""
    return _find_format(path) is not None


def _find_format(path: Path) -> ModelFormat | None:
    """Return the module that reads the model, or None if no format recognizes it."""
    if openai_directory.is_model(path):
        return openai_directory
    # Imported late: these modules import NumPy and more, which OpenAI's layout does not need.
    from gpt2.formats.gguf import model as gguf_model
    from gpt2.formats.huggingface import directory as huggingface_directory
    from gpt2.formats.transformer_lm import directory as transformer_lm_directory

    formats: tuple[ModelFormat, ...] = (huggingface_directory, transformer_lm_directory, gguf_model)
    return next((model_format for model_format in formats if model_format.is_model(path)), None)


def _existing_paths(model_name: str, models_dir: str) -> list[Path]:
    """Return the existing folders and files that the name may refer to, best match first."""
    by_name = [folder / name for folder in search_path(models_dir) for name in list_aliases(model_name)]
    candidates = [*by_name, files.expand_path(model_name)]
    return [path for path in candidates if model_name and (files.is_folder(path) or files.is_file(path))]


def _not_found_message(model_name: str, models_dir: str) -> str:
    searched = " and ".join(str(folder) for folder in search_path(models_dir))
    names = [path.name for path in list_models(models_dir)]
    available = names[:MAX_SUGGESTIONS]
    alternative = f", or use an available model: --model_name {' or '.join(available)}" if available else ""
    if is_released(model_name):
        target = "" if models_dir == DEFAULT_MODELS_DIR else f" --models_dir {shlex.quote(models_dir)}"
        command = f"{download_command(model_name)}{target}"
        return f"model {model_name} is not in {searched}; download it: {command}{alternative}"
    return (
        f"model {model_name!r} is neither in {searched} nor the path of a folder;"
        f" download one of {describe_released_models()}: {download_command(DEFAULT_MODEL)}{alternative}"
        f"{suggest_path(model_name, [*names, *released_names()])}"
    )


def suggest_path(typed: str, names: Iterable[str] = ()) -> str:
    """Return the end of a message that suggests one of the names, or a file next to the typed path, or ""."""
    path = files.expand_path(typed)
    siblings: list[str] = []
    with contextlib.suppress(OSError, ValueError):
        siblings = sorted(str(Path(typed).parent / name) for name in os.listdir(path.parent) if path.name)
    return suggest(typed, names) or suggest(typed, siblings)


def download_command(model_name: str) -> str:
    """Return the command line that downloads a released model."""
    return f"python3 download_model.py {model_name}"


def open_model_dir(path: Path) -> ModelDir:
    """Open the model in a folder or in a single file, after checking that its files have plausible sizes.

    Raises:
        GPT2Error: A file is missing, cut off or unreadable. The message names it.
    """
    model_format = _find_format(path)
    if model_format is None and files.is_file(path):
        raise GPT2Error(f"{path} is a file but not a model; give the path of a model's folder")
    return (model_format or openai_directory).open_model(path, _fetch_again(path))


def load_vocabulary(directory: ModelDir) -> Vocabulary:
    """Return the vocabulary of an opened model.

    Raises:
        GPT2Error: The vocabulary's files are damaged or belong to another model.
    """
    vocabulary = directory.read_vocabulary()
    if vocabulary.n_vocab != directory.hparams.n_vocab:
        raise GPT2Error(
            f"{directory.path}: the vocabulary has {vocabulary.n_vocab} ids, but hparams.json has n_vocab"
            f" {directory.hparams.n_vocab}; they belong to different models"
        )
    return vocabulary


def find_vocabulary(model_name: str = DEFAULT_MODEL, models_dir: str = DEFAULT_MODELS_DIR) -> Vocabulary:
    """Return the vocabulary of a model, or of a folder that holds only a vocabulary.

    Raises:
        GPT2Error: As in `find_model`.
    """
    for path in _existing_paths(model_name, models_dir):
        if vocabularies.has_vocabulary(path):
            return vocabularies.load(path)
    return load_vocabulary(find_model(model_name, models_dir))


def _fetch_again(path: Path) -> str:
    if is_released(path.name):
        return f"fetch it again: {download_command(path.name)}"
    return "fetch or copy it again"
