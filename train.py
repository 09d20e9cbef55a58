#!/usr/bin/env python3
"""Command: trains a model on your own text, from a pretrained one or from scratch."""

import inspect
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))  # it runs before anything is installed

from gpt2.cli import command
from gpt2.cli.training_flags import FLAGS
from gpt2.training.settings.settings import TrainingSettings


def train(**given):
    """Fine-tune GPT-2 on your custom dataset.

    The run's folder, checkpoint/run1, is a model directory that every command reads: --model_name checkpoint/run1.
    The same command goes on where the last one ended, and so does --run_name alone: flags that are left out are then
    the run's own. Ctrl-C saves and ends.
    """
    from gpt2.cli.training_report import TerminalReport  # needs packages, which --help does not
    from gpt2.training import run
    from gpt2.training.settings import run_settings

    settings = run_settings.combine_settings(given)
    run.train(settings, report=TerminalReport(settings.print_every))


train.__signature__ = inspect.signature(TrainingSettings)  # the flags and their defaults

if __name__ == "__main__":
    sys.exit(command.main(train, flags=FLAGS))
