"""What a call of a run leaves, and the settings with which a later call continues it."""

from __future__ import annotations

import dataclasses
from typing import Any

from gpt2.errors import GPT2Error
from gpt2.training import distribution
from gpt2.training.checkpoints import run_folder
from gpt2.training.logs.history import CURVE_FILE
from gpt2.training.logs.report import BestModel, RunResult
from gpt2.training.run_progress import RunProgress
from gpt2.training.settings import run_settings
from gpt2.training.settings.rules import RULES
from gpt2.training.settings.settings import LATEST, TrainingSettings

DEFAULT_STEPS = 1000  # suggested number of further updates
LOCATION_SETTINGS = ("run_name", "checkpoint_dir")
END_SETTINGS = ("steps", "stop_after")


def describe(
    settings: TrainingSettings, progress: RunProgress, last_step: int | None, has_trained: bool = True
) -> RunResult:
    """Return the result of a call.

    Args:
        settings: The settings of the call.
        progress: The run's progress at the end of the call.
        last_step: Number of the run's last update; None if it has no end.
        has_trained: Whether the call made updates.
    """
    folder = settings.run_folder
    curve = folder / CURVE_FILE
    best_folder = folder / run_folder.BEST_FOLDER
    best = None
    if progress.best_loss is not None and progress.best_step and run_folder.has_checkpoint(best_folder):
        best = BestModel(best_folder, progress.best_step, progress.best_loss)
    continuing = _continuing_settings(settings, has_trained)
    if last_step is not None and progress.step >= last_step:
        continuing["steps"] = settings.steps or settings.stop_after or DEFAULT_STEPS
    return RunResult(folder, progress.step, has_trained, curve if curve.is_file() else None, best, continuing)


def _continuing_settings(settings: TrainingSettings, has_trained: bool) -> dict[str, Any]:
    """Return the settings of a call that continues the run: its location, and the differences to its own settings."""
    values = dataclasses.asdict(settings)
    location = {"run_name": settings.run_name}
    if settings.checkpoint_dir != TrainingSettings.checkpoint_dir:
        location["checkpoint_dir"] = settings.checkpoint_dir
    resumes = has_trained or (settings.restore_from == LATEST and run_folder.has_checkpoint(settings.run_folder))
    others = {field.name: field.default for field in dataclasses.fields(TrainingSettings)}
    if resumes and distribution.worker_count() == 1:
        try:
            others = dataclasses.asdict(run_settings.combine_settings(location))
        except GPT2Error:
            resumes = False  # the run of an old tool has no settings
    changes = {
        name: value
        for name, value in values.items()
        if value != others[name] and name not in (*LOCATION_SETTINGS, *END_SETTINGS)
    }
    if resumes:
        changes = {name: value for name, value in changes.items() if not RULES[name].per_call}
    return {**location, **changes}
