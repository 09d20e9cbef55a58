"""Where a run starts from: its own folder, a pretrained model, another checkpoint, or nothing.

All questions that need no TensorFlow are answered first.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gpt2.data import train_bpe
from gpt2.errors import GPT2Error, UsageError
from gpt2.files import expand_path
from gpt2.formats.model_dir import find_model, find_vocabulary, load_vocabulary, open_model_dir
from gpt2.formats.openai import checkpoint, directory
from gpt2.formats.openai.checkpoint_files import STATE_FILE, current_checkpoint, index_file
from gpt2.formats.weights import Weights
from gpt2.hparams import HPARAMS_FILE, HParams
from gpt2.text.vocabulary import Vocabulary
from gpt2.training import distribution
from gpt2.training.checkpoints import run_folder
from gpt2.training.settings.settings import FRESH, LATEST, TrainingSettings


class StartingPoint(NamedTuple):
    hparams: HParams
    encoder: Vocabulary
    vocabulary: Path  # where the vocabulary's files are
    weights: Path | None  # prefix of the weights' files, or what else holds them; None makes new ones
    resumes: bool  # whether the run in the folder goes on
    moves_aside: bool  # whether there is one in the folder that does not
    read_weights: Callable[[Path, HParams], Weights] = checkpoint.read_weights


def find_starting_point(settings: TrainingSettings, scratch: Path) -> StartingPoint:
    """scratch: an empty folder, for a vocabulary that is made. Nothing else is written, and nothing moved.

    Raises GPT2Error for what is not there or does not fit together, UsageError for flags that contradict it.
    """
    folder = settings.run_folder
    begun = run_folder.has_checkpoint(folder)
    if settings.restore_from == LATEST and begun:
        return _resumed(settings, folder)
    if settings.from_scratch:
        if settings.restore_from not in (LATEST, FRESH):
            raise UsageError("give from_scratch or the checkpoint in restore_from, not both")
        return _new(settings, begun, scratch)
    if settings.restore_from in (LATEST, FRESH):
        base = find_model(settings.model_name, settings.models_dir)
        return StartingPoint(
            base.hparams, load_vocabulary(base), base.path, base.weights_path, False, begun, base.read_weights
        )
    return _restored(settings, begun)


def _resumed(settings: TrainingSettings, folder: Path) -> StartingPoint:
    if not (folder / HPARAMS_FILE).is_file():  # weights only, as nshepperd's train.py left them
        base = find_model(settings.model_name, settings.models_dir)
        return StartingPoint(base.hparams, load_vocabulary(base), base.path, current_checkpoint(folder), True, False)
    found = open_model_dir(folder)
    if settings.from_scratch:
        asked = settings.new_hparams(found.hparams.n_vocab)
        if asked != found.hparams:
            raise UsageError(
                f"the run in {folder} has {found.hparams}, not {asked}; give its sizes or another run_name"
            )
    return StartingPoint(found.hparams, load_vocabulary(found), folder, found.weights_path, True, False)


def _new(settings: TrainingSettings, begun: bool, scratch: Path) -> StartingPoint:
    """A model of the settings' sizes, with the vocabulary that is named or one made from the data set."""
    if settings.vocabulary is not None:
        where = expand_path(settings.vocabulary)
        encoder = find_vocabulary(settings.vocabulary, settings.models_dir)
    elif distribution.worker_count() > 1:
        raise UsageError(
            "several workers that train a new model need its vocabulary: make it with scripts/train_tokenizer.py and"
            " give its folder as vocabulary"
        )
    else:
        where = scratch
        encoder = train_bpe.train(settings.dataset, where, settings.n_vocab, settings.encoding, settings.csv)
    return StartingPoint(settings.new_hparams(encoder.n_vocab), encoder, where, None, False, begun)


def _restored(settings: TrainingSettings, begun: bool) -> StartingPoint:
    """From a folder, or from one of the checkpoints in it: `run/model-500`, with or without `.index`."""
    path = expand_path(re.sub(r"\.(index|data-\d+-of-\d+|meta)$", "", settings.restore_from))
    prefix = path if index_file(path).is_file() else None
    if prefix is None and not (path / STATE_FILE).is_file():
        raise GPT2Error(
            f"restore_from must be {LATEST}, {FRESH}, a folder with a checkpoint or the path of one, such as"
            f" checkpoint/run1/model-1000; there is none at {settings.restore_from}"
        )
    folder = path.parent if prefix else path
    prefix = prefix or current_checkpoint(folder)
    if (folder / HPARAMS_FILE).is_file():
        base = directory.open_checkpoint(folder, prefix)
    else:
        base = find_model(settings.model_name, settings.models_dir)
    return StartingPoint(base.hparams, load_vocabulary(base), base.path, prefix, False, begun)


def initial_weights(hparams: HParams, seed: int) -> dict[str, np.ndarray]:
    """Random weights by their names, as OpenAI's code draws them.

    What is added to the residual is smaller by the root of how often that happens: Radford et al. 2019, section 2.3.
    """
    rng = np.random.default_rng(seed)
    values = {}
    for name, shape in hparams.weight_shapes().items():
        if name.endswith("/g"):
            values[name] = np.ones(shape, np.float32)
        elif name.endswith("/b"):
            values[name] = np.zeros(shape, np.float32)
        else:
            deviation = 0.01 if name.endswith("wpe") else 0.02
            if name.endswith("c_proj/w"):
                deviation /= np.sqrt(2 * hparams.n_layer)
            values[name] = (deviation * rng.standard_normal(shape)).astype(np.float32)
    return values
