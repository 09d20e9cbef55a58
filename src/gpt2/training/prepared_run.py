"""A run that is ready to train."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gpt2.data import windows
from gpt2.training.logs.report import TrainingReport
from gpt2.training.run_progress import RunProgress
from gpt2.training.settings.settings import TrainingSettings
from gpt2.training.starting_point import StartingPoint

if TYPE_CHECKING:
    from gpt2.training.trainer import Trainer


class PreparedRun(NamedTuple):
    """Everything that one machine needs to train."""

    settings: TrainingSettings
    start: StartingPoint
    progress: RunProgress  # changes with every update
    last_step: int | None  # number of the last update; None if the run has no end
    split: windows.Split  # ids to train on and to validate on
    trainer: Trainer
    report: TrainingReport
