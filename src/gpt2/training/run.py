"""A training run from its first question to its last checkpoint."""

from __future__ import annotations

import secrets
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gpt2 import device
from gpt2.cli import complain
from gpt2.errors import GPT2Error
from gpt2.interrupt import Interruption
from gpt2.training import distribution, estimate, origin, run_folder, tokens, windows
from gpt2.training.origin import Origin
from gpt2.training.run_folder import Progress
from gpt2.training.settings import Settings

if TYPE_CHECKING:
    from gpt2.training.trainer import Trainer


def train(settings: Settings) -> Path:
    """Trains as the settings say and returns the run's folder, which is a model directory.

    Ctrl-C and SIGTERM save, then raise KeyboardInterrupt. Raises GPT2Error for what is missing, damaged or does not
    fit, and for a loss that is not a number; the last checkpoint is then as it was.
    """
    start = origin.find(settings)
    if distribution.is_chief():
        estimate.check(start.hparams, settings)
    progress = _progress(settings, start)
    last = settings.last_step(progress.step)
    if last is not None and progress.step >= last:
        complain(f"{settings.run_folder} has made {progress.step} updates already")
        return settings.run_folder
    split = _data(settings, start)
    strategies: list = []
    where = device.start(settings.threads, lambda: strategies.append(distribution.strategy()))
    trainer = _trainer(settings, start, progress, strategies[0])
    start = _make_room(settings, start)
    complain(f"{settings.run_name} on {where}, {start.hparams.n_params:,} weights, seed {progress.seed}")
    from gpt2.training.loop import Loop  # imports TensorFlow

    with Interruption((signal.SIGINT, signal.SIGTERM)) as interruption:
        Loop(settings, start, progress, trainer, split, last).run(interruption)
    interruption.throw()
    return settings.run_folder


def _progress(settings: Settings, start: Origin) -> Progress:
    """Where the run stands. Raises GPT2Error if it was made with another vocabulary."""
    progress = Progress(seed=secrets.randbits(31), vocabulary=start.encoder.fingerprint)
    if start.resumes and start.weights is not None:
        saved = run_folder.read_progress(start.weights)
        if saved is None:
            progress.step = run_folder.read_step(start.weights)
        elif saved.vocabulary != start.encoder.fingerprint:
            raise GPT2Error(
                f"{settings.run_folder} was trained with another vocabulary than the one that is now in"
                f" {start.vocabulary}; put that one back"
            )
        else:
            progress = saved
    if settings.seed is not None:
        progress.seed = settings.seed
    return progress


def _data(settings: Settings, start: Origin) -> windows.Split:
    """The training set and what is held out of it, or the other set that is for validation."""
    print("Loading dataset...", flush=True)

    def load(path: str) -> np.ndarray:
        return tokens.load(path, start.encoder, settings.encoding, settings.csv_header)

    window = start.hparams.n_ctx + 1
    split = windows.Split(load(settings.dataset), np.zeros(0, np.uint16))
    if settings.val_every and settings.val_dataset:
        split = split._replace(validation=load(settings.val_dataset))
    elif settings.val_every:
        split = windows.hold_out(split.train, settings.val_split)
    windows.check(split.train, window, settings.dataset)
    if settings.val_every:
        held_out = f"the part of {settings.dataset} that val_split holds out"
        windows.check(split.validation, window, settings.val_dataset or held_out)
    print(f"dataset has {len(split.train)} tokens", flush=True)
    return split


def _trainer(settings: Settings, start: Origin, progress: Progress, strategy: object) -> Trainer:
    """The weights, read or new, and the optimiser as it was. Imports TensorFlow."""
    import tensorflow as tf

    from gpt2 import checkpoint
    from gpt2.training import run_checkpoint
    from gpt2.training.trainer import Trainer

    if start.weights is None:
        new = origin.new_weights(start.hparams, progress.seed)
        weights = checkpoint.nest({name: tf.constant(value) for name, value in new.items()})
    else:
        print(f"Loading checkpoint {start.weights}", flush=True)
        weights = checkpoint.load(start.weights, start.hparams)
    trainer = Trainer(weights, start.hparams, settings, strategy, progress.step)
    progress.step = trainer.step
    if start.resumes and start.weights is not None:
        same = progress.optimizer == settings.optimizer
        shapes = {name: variable.shape for name, variable in trainer.state.items()}
        state = run_checkpoint.read_state(start.weights, shapes) if same else None
        if state is not None:
            trainer.restore(state)
        elif shapes:
            complain(f"the optimiser {settings.optimizer} starts anew: {start.weights} came without its memory")
    progress.optimizer = settings.optimizer
    return trainer


def _make_room(settings: Settings, start: Origin) -> Origin:
    """Moves the run aside that this one would overwrite; where it lay may be where this one's vocabulary is."""
    if not start.moves_aside or not distribution.is_chief():
        return start
    folder = settings.run_folder.resolve()
    aside = run_folder.move_aside(settings.run_folder)
    where = start.vocabulary.resolve()
    return start._replace(vocabulary=aside / where.relative_to(folder)) if where.is_relative_to(folder) else start
