"""A training run, from its settings to its last checkpoint."""

from __future__ import annotations

import dataclasses
import gc
import secrets
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpt2 import tensorflow_startup
from gpt2.data import dataset, windows
from gpt2.errors import GPT2Error
from gpt2.formats.weights import nest
from gpt2.interrupt import Interrupted
from gpt2.training import distribution, estimate, initialization, run_result
from gpt2.training.checkpoints import run_folder
from gpt2.training.checkpoints.run_lock import RunLock
from gpt2.training.logs.report import TrainingReport
from gpt2.training.prepared_run import PreparedRun
from gpt2.training.run_progress import RunProgress
from gpt2.training.settings import run_settings
from gpt2.training.settings.rules import RULES
from gpt2.training.settings.settings import TrainingSettings
from gpt2.training.starting_point import StartingPoint, find_starting_point

if TYPE_CHECKING:
    from gpt2.model import Weights
    from gpt2.training.run_writer import SaveCallback
    from gpt2.training.trainer import Trainer

MAX_CHECKED_TOKENS = 65536  # of the data set, when workers compare theirs


class DeviceSetup(NamedTuple):
    """The devices on which TensorFlow was started."""

    description: str
    strategy: Any  # a tf.distribute.Strategy


def train(
    settings: TrainingSettings, on_save: SaveCallback | None = None, report: TrainingReport | None = None
) -> Path:
    """Train a model.

    Ctrl-C, SIGTERM and SIGHUP save the run before they end it. Before the first update there is nothing to save, and
    the signals have their usual effect.

    Args:
        settings: The run's settings.
        on_save: Called with the run's folder after each checkpoint.
        report: Shows the run's progress, on the first of several machines.

    Returns:
        The run's folder, which is a model directory.

    Raises:
        Interrupted: Ctrl-C was pressed, and the run is saved. For SIGTERM it is Terminated, for SIGHUP HungUp.
        BrokenPipeError: The report's reader is gone, and the run is saved.
        GPT2Error: A file is missing or damaged, the settings contradict the files, another run uses the folder, a loss
            is not finite, or another machine is lost. The last checkpoint is then unchanged.
    """
    try:
        with distribution.reporting_lost_workers(settings.run_folder):
            report = report or TrainingReport()
            # Several machines must connect first; a single one reports all errors before it starts TensorFlow.
            devices = _start_tensorflow(settings, report) if distribution.worker_count() > 1 else None
            if not distribution.is_chief():
                _train(settings, on_save, TrainingReport(), devices, lock=None)
            else:
                with RunLock(settings.run_folder) as lock:
                    _train(settings, on_save, report, devices, lock)
            return settings.run_folder
    finally:
        gc.collect()  # compiled functions and the trainer refer to each other, and thereby hold the weights in memory


def _train(
    settings: TrainingSettings,
    on_save: SaveCallback | None,
    report: TrainingReport,
    devices: DeviceSetup | None,
    lock: RunLock | None,
) -> None:
    """Open the run, load its data, build the trainer and run the loop.

    All errors that can be known in advance are raised before anything is written or moved.
    """
    for path in settings.datasets:
        dataset.check(path, settings.encoding, settings.csv_format)
    with tempfile.TemporaryDirectory() as scratch:
        start = find_starting_point(settings, Path(scratch))
        if distribution.is_chief():
            estimate.check_resources(start.hparams, settings)
        progress = _load_progress(settings, start, devices)
        last_step = settings.last_step(progress.step)
        if last_step is not None and progress.step >= last_step:
            report.show_result(run_result.describe(settings, progress, last_step, has_trained=False))
            return
        split = _load_data(settings, start, report)
        if devices:
            _check_same_job(settings, start, split, devices)
        devices = devices or _start_tensorflow(settings, report)
        trainer = _build_trainer(settings, start, progress, devices, report)
        run = PreparedRun(settings, start, progress, last_step, split, trainer, report)
        if distribution.is_chief():
            _replace_old_run(run)
            _record_settings(run)
        report.notify(
            f"{settings.run_name} on {devices.description}, {start.hparams.n_params:,} weights, seed {progress.seed}"
        )
        from gpt2.training.loop import TrainingLoop  # imports TensorFlow

        try:
            TrainingLoop(run, lock, on_save).train()
        except Interrupted:
            report.show_result(run_result.describe(settings, progress, last_step))
            raise
        report.show_result(run_result.describe(settings, progress, last_step))
        if distribution.worker_count() > 1:
            distribution.broadcast_from_chief(devices.strategy, [0])  # no machine ends before the chief has saved


def _start_tensorflow(settings: TrainingSettings, report: TrainingReport) -> DeviceSetup:
    """Start TensorFlow; if there are other machines, wait for them."""
    count = distribution.worker_count()
    strategies: list[Any] = []
    if count > 1:
        report.notify(f"worker {distribution.worker_index() + 1} of {count} waits for the others")
    with distribution.interruptible_wait():
        description = tensorflow_startup.start_tensorflow(
            settings.threads,
            lambda: strategies.append(distribution.create_strategy(settings.multi_gpu)),
            notify=report.notify,
        )
    return DeviceSetup(description, strategies[0])


def _load_progress(settings: TrainingSettings, start: StartingPoint, devices: DeviceSetup | None) -> RunProgress:
    """Return the progress of the resumed run or of a new one; all machines get the chief's step and seed.

    Raises:
        GPT2Error: The run was trained with another vocabulary.
    """
    progress = RunProgress(seed=secrets.randbits(31), vocabulary=start.encoder.fingerprint)
    if start.resumes and start.weights_path is not None:
        saved = run_folder.read_progress(start.weights_path)
        if saved is None:
            progress.step = run_folder.read_step(start.weights_path)
        elif saved.vocabulary != start.encoder.fingerprint:
            raise GPT2Error(
                f"{settings.run_folder} was trained with another vocabulary than the one in {start.vocabulary_path};"
                " restore the original vocabulary"
            )
        else:
            progress = saved
    if settings.seed is not None:
        progress.seed = settings.seed
    if devices:
        progress.step, progress.seed = distribution.broadcast_from_chief(
            devices.strategy, [progress.step, progress.seed]
        )
    return progress


def _load_data(settings: TrainingSettings, start: StartingPoint, report: TrainingReport) -> windows.Split:
    """Return the ids to train on and to validate on; the latter are empty if the run does not validate."""

    def load(path: str) -> windows.Ids:
        return dataset.load(path, start.encoder, settings.encoding, settings.csv_format)

    report.write_line("Loading dataset...")
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


def _check_same_job(
    settings: TrainingSettings, start: StartingPoint, split: windows.Split, devices: DeviceSetup
) -> None:
    """Raise GPT2Error if this machine's settings, model or data differ from the chief's."""
    values = dataclasses.asdict(settings)
    shared_settings = {name: value for name, value in values.items() if not RULES[name].per_machine}
    description = repr((shared_settings, start.hparams, start.encoder.fingerprint, len(split.train)))
    tokens = np.asarray(split.train[:: 1 + len(split.train) // MAX_CHECKED_TOKENS])
    checksum = zlib.crc32(tokens.tobytes(), zlib.crc32(description.encode("utf-8")))
    if distribution.broadcast_from_chief(devices.strategy, [checksum]) != [checksum]:
        raise GPT2Error(
            "the first worker has other flags, another model or other data than this one; start all workers with the"
            " same flags, model and data"
        )


def _build_trainer(
    settings: TrainingSettings,
    start: StartingPoint,
    progress: RunProgress,
    devices: DeviceSetup,
    report: TrainingReport,
) -> Trainer:
    """Return a trainer with the run's weights and the saved optimizer state."""
    from gpt2.training import trainer  # imports TensorFlow

    weights = _load_weights(start, progress.seed, report)
    state = None
    if start.resumes and start.weights_path is not None and distribution.is_chief():
        from gpt2.training.checkpoints import run_checkpoint

        shapes = trainer.state_shapes(weights, settings)
        if progress.optimizer == settings.optimizer:
            state = run_checkpoint.read_optimizer_state(start.weights_path, shapes)
        if state is None and shapes:
            report.notify(
                f"the optimizer {settings.optimizer} starts without a state: {start.weights_path} has none for it"
            )
    progress.optimizer = settings.optimizer
    return trainer.Trainer(weights, start.hparams, settings, devices.strategy, progress.step, state)


def _load_weights(start: StartingPoint, seed: int, report: TrainingReport) -> Weights:
    """Return the nested weights that the run starts from.

    Machines other than the chief get zeros, because only the shapes matter there: the trainer uses the chief's weights.
    """
    import tensorflow as tf

    from gpt2.engine.tensorflow import as_tensors

    if not distribution.is_chief():
        return nest((name, tf.zeros(shape)) for name, shape in start.hparams.weight_shapes().items())
    if start.weights_path is None:
        weights = initialization.initial_weights(start.hparams, seed)
        return nest((name, tf.constant(value)) for name, value in weights.items())
    report.write_line(f"Loading checkpoint {start.weights_path}")
    return as_tensors(start.read_weights(start.weights_path, start.hparams))


def _replace_old_run(run: PreparedRun) -> None:
    """Move aside the run that this run would overwrite. Its weights have been read already."""
    folder = run.settings.run_folder
    if not run.start.replaces_run:
        return
    if run.start.resumes:
        old_run = run_folder.move_aside(folder, f"this run resumes after {run.progress.step} updates")
        run_folder.start_from(old_run, folder, run.progress)
    else:
        run_folder.move_aside(folder)


def _record_settings(run: PreparedRun) -> None:
    """Report the settings that a resumed run changes, and store the new ones."""
    seed = run.progress.seed
    if run.start.resumes and (changes := run_settings.describe_changes(run.settings, seed)):
        run.report.notify(changes)
    run_settings.write_settings(run.settings, run.last_step, seed, run.start.resumes)
