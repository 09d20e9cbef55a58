#!/usr/bin/env python3
"""Command: downloads a released model into the models folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))  # it runs before anything is installed

from gpt2.cli import command
from gpt2.errors import UsageError
from gpt2.formats.model_dir import DEFAULT_MODELS_DIR, describe_released_models


def download_model(model_name="", models_dir=DEFAULT_MODELS_DIR, base_url=None):
    """Download a released model, or what is missing of it.

    An interrupted download goes on where it ended. Sizes are checked, the vocabulary by its known SHA-256 and every
    weight by its checksum in the model's own index; what is there and right is not fetched again.
    """
    if not model_name:
        raise UsageError(
            "You must enter the model name as a parameter, e.g.: download_model.py 124M"
            f" (the models are {describe_released_models()})"
        )
    from gpt2.cli.progress_bars import FETCHING, bars  # needs packages, which --help does not
    from gpt2.formats import download

    folder = download.target_folder(models_dir)
    with bars(FETCHING) as report:
        directory = download.download_model(model_name, folder, base_url or download.BASE_URLS, report)
    command.print_error_line(f"{model_name} is complete in {directory}")


if __name__ == "__main__":
    sys.exit(command.main(download_model))
