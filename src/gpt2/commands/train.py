"""The command train.py, which trains a model on your own text, from a pretrained one or from scratch."""

from __future__ import annotations

from typing import Any

from gpt2.cli.declarations import takes_flags_of
from gpt2.training.settings.settings import TrainingSettings


@takes_flags_of(TrainingSettings)
def train(**typed: Any) -> None:
    """Fine-tune GPT-2 on your custom dataset.

    The run's folder, checkpoint/run1, is a model directory that every command reads: --model_name checkpoint/run1.
    The same command resumes the run, and so does --run_name alone: omitted flags then have the values of the run.
    Ctrl-C saves and ends.
    """
    from gpt2.cli.training_report import TerminalReport  # imports packages that --help does not need
    from gpt2.training import run
    from gpt2.training.settings import run_settings

    settings = run_settings.combine_settings(typed)
    run.train(settings, report=TerminalReport(settings.print_every, is_train_command=True))
