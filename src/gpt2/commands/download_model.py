"""The command download_model.py, which downloads a released model into the models folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gpt2.cli.command import print_error_line
from gpt2.cli.values import parse_urls
from gpt2.errors import UsageError
from gpt2.flags import Flag, ModelsDir
from gpt2.formats.model_dir import DEFAULT_MODELS_DIR, describe_released_models


@dataclass(frozen=True)
class DownloadFlags:
    """The flags of download_model.py."""

    model_name: Annotated[str, Flag(expects="a name", help=f"the model to download: {describe_released_models()}")] = ""
    models_dir: ModelsDir = DEFAULT_MODELS_DIR
    base_url: Annotated[
        tuple[str, ...] | None,
        Flag(
            parse=parse_urls,
            expects="URLs",
            help="base URL to use instead of OpenAI's servers; several, separated by commas, are tried in turn",
        ),
    ] = None


def download_model(flags: DownloadFlags) -> None:
    """Download a released model, or its missing files.

    An interrupted download resumes where it ended. The size of each file, the SHA-256 of the vocabulary
    and the checksum of each weight are checked. Complete and correct files are not downloaded again.
    """
    if not flags.model_name:
        raise UsageError(
            "You must enter the model name as a parameter, e.g.: download_model.py 124M"
            f" (the models are {describe_released_models()})"
        )
    from gpt2.cli.progress_bars import FETCHING, bars  # imports packages that --help does not need
    from gpt2.formats import download

    folder = download.target_folder(flags.models_dir)
    urls = flags.base_url or download.BASE_URLS
    with bars(FETCHING) as report:
        directory = download.download_model(flags.model_name, folder, urls, report, report.verifying)
    print_error_line(f"{flags.model_name} is complete in {directory}")
