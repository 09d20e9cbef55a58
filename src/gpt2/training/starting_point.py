"""The starting point of a run: its own folder, a pretrained model, another checkpoint, or random weights.

This module does not import TensorFlow, so that wrong settings are reported before TensorFlow starts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gpt2.data import train_bpe
from gpt2.errors import GPT2Error, UsageError
from gpt2.files import expand_path
from gpt2.formats.model_dir import find_model, find_vocabulary, load_vocabulary, open_model_dir, suggest_path
from gpt2.formats.openai import checkpoint, directory
from gpt2.formats.openai.checkpoint_files import STATE_FILE, current_checkpoint, index_file
from gpt2.formats.weights import Weights
from gpt2.hparams import HPARAMS_FILE, HParams
from gpt2.text.vocabulary import Vocabulary
from gpt2.training import distribution
from gpt2.training.checkpoints import run_folder
from gpt2.training.settings.settings import FRESH, LATEST, TrainingSettings


class StartingPoint(NamedTuple):
    """The model that a run starts from, and its relation to the run's folder."""

    hparams: HParams
    encoder: Vocabulary
    vocabulary_path: Path  # the folder or file that the vocabulary was loaded from
    weights_path: Path | None  # prefix of the weights' files, or one file; None for random weights
    resumes: bool = False  # whether the run in the folder is resumed
    replaces_run: bool = False  # whether the folder's present contents must be moved aside
    read_weights: Callable[[Path, HParams], Weights] = checkpoint.read_weights


def find_starting_point(settings: TrainingSettings, scratch: Path) -> StartingPoint:
    """Find the starting point of a run. Nothing is written outside `scratch`, and nothing is moved.

    Args:
        settings: The run's settings.
        scratch: An empty folder, for a new vocabulary.

    Raises:
        GPT2Error: A file is missing, or files do not belong together.
        UsageError: The settings contradict the files.
    """
    folder = settings.run_folder
    has_run = run_folder.has_checkpoint(folder)
    if settings.restore_from == LATEST and has_run:
        return _resume(settings, folder)
    if settings.from_scratch:
        if settings.restore_from not in (LATEST, FRESH):
            raise UsageError("give from_scratch or the checkpoint in restore_from, not both")
        return _start_new_model(settings, scratch)._replace(replaces_run=has_run)
    if settings.restore_from in (LATEST, FRESH):
        model = find_model(settings.model_name, settings.models_dir)
        return StartingPoint(
            model.hparams,
            load_vocabulary(model),
            model.path,
            model.weights_path,
            replaces_run=has_run,
            read_weights=model.read_weights,
        )
    return _start_from_checkpoint(settings, has_run)


def _resume(settings: TrainingSettings, folder: Path) -> StartingPoint:
    """Return the newest checkpoint of the run in the folder."""
    if not (folder / HPARAMS_FILE).is_file():  # nshepperd's train.py leaves only the weights
        base = find_model(settings.model_name, settings.models_dir)
        vocabulary = load_vocabulary(base)
        return StartingPoint(base.hparams, vocabulary, base.path, current_checkpoint(folder), resumes=True)
    model = open_model_dir(folder)
    if settings.from_scratch:
        requested = settings.new_hparams(model.hparams.n_vocab)
        if requested != model.hparams:
            raise UsageError(
                f"the run in {folder} has {model.hparams}, not {requested}; give its sizes or another run_name"
            )
    return StartingPoint(model.hparams, load_vocabulary(model), folder, model.weights_path, resumes=True)


def _start_new_model(settings: TrainingSettings, scratch: Path) -> StartingPoint:
    """Return a model of the settings' sizes with the given vocabulary, or with one trained on the data set."""
    if settings.vocabulary is not None:
        path = expand_path(settings.vocabulary)
        encoder = find_vocabulary(settings.vocabulary, settings.models_dir)
    elif distribution.worker_count() > 1:
        raise UsageError(
            "several workers cannot train a new vocabulary together: make it with scripts/train_tokenizer.py and give"
            " its folder as vocabulary"
        )
    else:
        path = scratch
        encoder = train_bpe.train(settings.dataset, path, settings.n_vocab, settings.encoding, settings.csv_format)
    return StartingPoint(settings.new_hparams(encoder.n_vocab), encoder, path, weights_path=None)


def _start_from_checkpoint(settings: TrainingSettings, has_run: bool) -> StartingPoint:
    """Return the checkpoint in `restore_from`: a folder, or a prefix such as `run/model-500`, also with `.index`.

    A checkpoint of the run itself resumes the run; if it is not the newest one, the run's folder is moved aside.
    """
    folder, prefix = _find_checkpoint(settings.restore_from)
    if (folder / HPARAMS_FILE).is_file():
        base = directory.open_checkpoint(folder, prefix)
    else:
        base = find_model(settings.model_name, settings.models_dir)
    resumes = has_run and prefix.parent.resolve() == settings.run_folder.resolve()
    is_newest = resumes and prefix.name == current_checkpoint(settings.run_folder).name
    return StartingPoint(
        base.hparams,
        load_vocabulary(base),
        base.path,
        prefix,
        resumes=resumes,
        replaces_run=has_run and not is_newest,
    )


def _find_checkpoint(restore_from: str) -> tuple[Path, Path]:
    """Return the folder and the prefix of the checkpoint that `restore_from` names."""
    path = expand_path(re.sub(r"\.(index|data-\d+-of-\d+|meta)$", "", restore_from))
    if index_file(path).is_file():
        return path.parent, path
    if (path / STATE_FILE).is_file():
        return path, current_checkpoint(path)
    raise GPT2Error(
        f"restore_from must be {LATEST}, {FRESH}, a folder with a checkpoint or the path of a checkpoint, such as"
        f" checkpoint/run1/model-1000; there is no checkpoint at {restore_from}"
        f"{suggest_path(restore_from, (LATEST, FRESH))}"
    )
