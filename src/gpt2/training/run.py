"""A training run from its first question to its last checkpoint."""

from __future__ import annotations

import dataclasses
import gc
import secrets
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpt2 import tensorflow_startup
from gpt2.data import dataset, windows
from gpt2.errors import GPT2Error
from gpt2.formats.openai.checkpoint_files import current_checkpoint
from gpt2.formats.weights import nest
from gpt2.training import distribution, estimate, starting_point
from gpt2.training.checkpoints import run_folder
from gpt2.training.checkpoints.run_folder import RunProgress
from gpt2.training.checkpoints.run_lock import RunLock
from gpt2.training.logs.report import TrainingReport
from gpt2.training.settings import run_settings
from gpt2.training.settings.settings import FRESH, TrainingSettings
from gpt2.training.starting_point import StartingPoint

if TYPE_CHECKING:
    from gpt2.model import Weights
    from gpt2.training.trainer import Trainer

Saved = Callable[[Path], None]
# What machines that train together may have of their own: threads, and paths.
OWN = ("threads", "dataset", "val_dataset", "model_name", "models_dir", "vocabulary", "checkpoint_dir", "sample_dir")


def train(settings: TrainingSettings, saved: Saved | None = None, report: TrainingReport | None = None) -> Path:
    """Trains as the settings say and returns the run's folder, which is a model directory.

    saved: called with the folder after each checkpoint. report: told what goes on, on the first of several machines.
    Ctrl-C, SIGTERM and SIGHUP save, then raise Interrupted, Terminated or HungUp; before the first update there is
    nothing to save, and they do what they always do. BrokenPipeError is raised after the same if the report is closed.
    Raises GPT2Error for what is missing, damaged or does not fit, for a folder that another run is in, for a loss that
    is not a number and when another machine is gone; the last checkpoint is then as it was.
    """
    try:
        with distribution.reporting_lost_workers(settings.run_folder):
            report = report or TrainingReport()
            devices = _start_tensorflow(settings, report) if distribution.worker_count() > 1 else None
            if not distribution.is_chief():
                return _train(settings, saved, TrainingReport(), devices, None)
            with RunLock(settings.run_folder) as lock:
                return _train(settings, saved, report, devices, lock)
    finally:
        gc.collect()  # a compiled function and its owner hold each other, and with them the weights and the optimiser


def _train(
    settings: TrainingSettings,
    saved: Saved | None,
    report: TrainingReport,
    devices: DeviceSetup | None,
    lock: RunLock | None,
) -> Path:
    with tempfile.TemporaryDirectory() as scratch:
        start = _of_the_run(settings, starting_point.find_starting_point(settings, Path(scratch)))
        return _train_from(start, settings, saved, report, devices, lock)


def _train_from(
    start: StartingPoint,
    settings: TrainingSettings,
    saved: Saved | None,
    report: TrainingReport,
    devices: DeviceSetup | None,
    lock: RunLock | None,
) -> Path:
    """devices: this machine's if it has met others; one alone answers all questions before it starts TensorFlow.

    What can be refused is refused before anything is written or moved.
    """
    if distribution.is_chief():
        estimate.check_resources(start.hparams, settings)
    progress = _progress(settings, start)
    if devices:
        progress.step, progress.seed = distribution.broadcast_from_chief(
            devices.strategy, [progress.step, progress.seed]
        )
    last = settings.last_step(progress.step)
    if last is not None and progress.step >= last:
        report.notify(f"{settings.run_folder} has made {progress.step} updates already; give steps for so many more")
        return settings.run_folder
    split = _data(settings, start, report)
    if devices:
        _check_same_job(settings, start, split, devices)
    devices = devices or _start_tensorflow(settings, report)
    trainer = _trainer(settings, start, progress, devices, report)
    _make_room(settings, start, progress)
    if distribution.is_chief():
        if start.resumes and (said := run_settings.describe_changes(settings, progress.seed)):
            report.notify(said)
        run_settings.write_settings(settings, last, progress.seed, start.resumes)
    report.notify(f"{settings.run_name} on {devices.where}, {start.hparams.n_params:,} weights, seed {progress.seed}")
    from gpt2.training.loop import Loop  # imports TensorFlow

    Loop(settings, start, progress, trainer, split, last, saved, report, lock).run()
    if distribution.worker_count() > 1:
        distribution.broadcast_from_chief(devices.strategy, [0])  # none ends well before the chief has saved
    return settings.run_folder


def _of_the_run(settings: TrainingSettings, start: StartingPoint) -> StartingPoint:
    """From a checkpoint of the run itself, the run goes on; what it has made since is moved aside with it."""
    folder, named = settings.run_folder, settings.restore_from != FRESH and start.moves_aside
    if not named or start.weights is None or start.weights.parent.resolve() != folder.resolve():
        return start
    return start._replace(resumes=True, moves_aside=start.weights.name != current_checkpoint(folder).name)


class DeviceSetup(NamedTuple):
    where: str  # what TensorFlow computes on
    strategy: Any


def _start_tensorflow(settings: TrainingSettings, report: TrainingReport) -> DeviceSetup:
    """Starts TensorFlow; if there are other machines, waits for them."""
    count, strategies = distribution.worker_count(), []
    if count > 1:
        report.notify(f"worker {distribution.worker_index() + 1} of {count} waits for the others")
    with distribution.interruptible_wait():
        where = tensorflow_startup.start_tensorflow(
            settings.threads, lambda: strategies.append(distribution.create_strategy(settings.multi_gpu))
        )
    return DeviceSetup(where, strategies[0])


def _check_same_job(
    settings: TrainingSettings, start: StartingPoint, split: windows.Split, devices: DeviceSetup
) -> None:
    """Raises GPT2Error if this machine would not train the chief's model on the chief's data in the chief's way."""
    flags = {name: value for name, value in dataclasses.asdict(settings).items() if name not in OWN}
    said = repr((flags, start.hparams, start.encoder.fingerprint, len(split.train)))
    some = split.train[:: 1 + len(split.train) // 65536]
    own = zlib.crc32(np.asarray(some).tobytes(), zlib.crc32(said.encode("utf-8")))
    if distribution.broadcast_from_chief(devices.strategy, [own]) != [own]:
        raise GPT2Error("the first worker has other flags, another model or other data than this one")


def _progress(settings: TrainingSettings, start: StartingPoint) -> RunProgress:
    """Where the run stands. Raises GPT2Error if it was made with another vocabulary."""
    progress = RunProgress(seed=secrets.randbits(31), vocabulary=start.encoder.fingerprint)
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


def _data(settings: TrainingSettings, start: StartingPoint, report: TrainingReport) -> windows.Split:
    """The training set and what is held out of it, or the other set that is for validation."""
    report.write_line("Loading dataset...")

    def load(path: str) -> windows.Ids:
        return dataset.load(path, start.encoder, settings.encoding, settings.csv)

    window = start.hparams.n_ctx + 1
    split = windows.Split(load(settings.dataset), np.zeros(0, np.uint16))
    if settings.val_every and settings.val_dataset:
        split = split._replace(validation=load(settings.val_dataset))
    elif settings.val_every:
        split = windows.hold_out(split.train, settings.val_split)
    windows.check_length(split.train, window, settings.dataset)
    if settings.val_every:
        held_out = f"the part of {settings.dataset} that val_split holds out"
        windows.check_length(split.validation, window, settings.val_dataset or held_out)
    report.write_line(f"dataset has {len(split.train)} tokens")
    return split


def _trainer(
    settings: TrainingSettings,
    start: StartingPoint,
    progress: RunProgress,
    devices: DeviceSetup,
    report: TrainingReport,
) -> Trainer:
    """The weights, read or new, and the optimiser as it was. Imports TensorFlow."""
    from gpt2.training import trainer

    weights = _weights(start, progress.seed, report)
    state = None
    if start.resumes and start.weights is not None and distribution.is_chief():
        from gpt2.training.checkpoints import run_checkpoint

        same = progress.optimizer == settings.optimizer
        shapes = trainer.slot_shapes(weights, settings)
        state = run_checkpoint.read_optimizer_state(start.weights, shapes) if same else None
        if state is None and shapes:
            report.notify(f"the optimiser {settings.optimizer} starts anew: {start.weights} came without its memory")
    progress.optimizer = settings.optimizer
    return trainer.Trainer(weights, start.hparams, settings, devices.strategy, progress.step, state)


def _weights(start: StartingPoint, seed: int, report: TrainingReport) -> Weights:
    """Those that the run starts from; the other machines only need their shapes, and begin with the chief's."""
    import tensorflow as tf

    from gpt2.engine.tensorflow import as_tensors

    if not distribution.is_chief():
        return nest((name, tf.zeros(shape)) for name, shape in start.hparams.weight_shapes().items())
    if start.weights is None:
        return nest(
            (name, tf.constant(value)) for name, value in starting_point.initial_weights(start.hparams, seed).items()
        )
    report.write_line(f"Loading checkpoint {start.weights}")
    return as_tensors(start.read_weights(start.weights, start.hparams))


def _make_room(settings: TrainingSettings, start: StartingPoint, progress: RunProgress) -> None:
    """Moves the run aside that this one would overwrite; the weights, which may lie in it, have been read."""
    if not start.moves_aside or not distribution.is_chief():
        return
    if start.resumes:
        aside = run_folder.move_aside(settings.run_folder, f"this one goes on from {progress.step} updates")
        run_folder.start_from(aside, settings.run_folder, progress)
    else:
        run_folder.move_aside(settings.run_folder)
