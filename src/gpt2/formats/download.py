"""Downloading the released models."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from gpt2 import files
from gpt2.encoder import ENCODER_FILE, MERGES_FILE
from gpt2.errors import DamagedFileError, GPT2Error, UnreadableFileError, UsageError
from gpt2.formats import model_dir, transfer
from gpt2.formats.openai import checkpoint
from gpt2.formats.openai.checkpoint_files import CHECKPOINT_NAME, STATE_FILE, data_file, index_file
from gpt2.hparams import HPARAMS_FILE, HParams, load_hparams

# Where OpenAI published the models, in 2020 and in 2019.
BASE_URLS = ("https://openaipublic.blob.core.windows.net/gpt-2", "https://storage.googleapis.com/gpt-2")

PREFIX = Path(CHECKPOINT_NAME)
DATA_FILE, INDEX_FILE = data_file(PREFIX).name, index_file(PREFIX).name
GRAPH_FILE = f"{CHECKPOINT_NAME}.meta"
# The index before the data, which it holds the checksums of.
FILES = (STATE_FILE, ENCODER_FILE, HPARAMS_FILE, INDEX_FILE, DATA_FILE, GRAPH_FILE, MERGES_FILE)
# The two vocabulary files are the same for every size.
SHA256 = {
    ENCODER_FILE: "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    MERGES_FILE: "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
OTHER_FILES_BYTES = 8 << 20  # bytes; a little more than all files but the weights have


def target_folder(models_dir: str = model_dir.DEFAULT_MODELS_DIR) -> Path:
    """Where models are put: by default the working directory's `models` if there is one, else the checkout's."""
    folders = model_dir.search_path(models_dir)
    return next((folder for folder in folders if files.is_folder(folder)), folders[-1])


def download_model(
    model_name: str,
    folder: Path,
    base_urls: Sequence[str] = BASE_URLS,
    report: Callable[..., object] = files.no_callback,
) -> Path:
    """Brings the files of a released model to `folder/model_name`, which it returns; what is right is left alone.

    Each file is looked for at each base URL in turn, under both names of the model. `problem` says how a file is
    checked, before it gets its name, and when it is there already. report: told which file is fetched, how many bytes
    of it are there, and of how many.

    Raises UsageError for a name that is none, GPT2Error if a file cannot be had, is not what it should be, or would not
    fit on the disk. A file that is right is never lost, nor what has come of one.
    """
    if not model_dir.is_released(model_name):
        raise UsageError(f"there is no model called {model_name!r}; there are {model_dir.describe_released_models()}")
    directory = folder / model_name
    hparams = next(
        model_dir.RELEASED_MODELS[n] for n in model_dir.list_aliases(model_name) if n in model_dir.RELEASED_MODELS
    )
    with files.creating_folder(directory):
        _check_room(directory, hparams)
        for name in FILES:
            if files.is_file(directory / name) and not find_problem(directory / name, name, hparams):
                continue
            try:
                _fetch_file(directory / name, model_name, hparams, base_urls, partial(report, name))
            except transfer.UnavailableError as error:
                if name != GRAPH_FILE:  # only programs for TensorFlow 1 look for it
                    raise GPT2Error(
                        f"{name} of {model_name} could not be downloaded: {error}; try again later, which goes on from"
                        " what is there, or give another base_url"
                    ) from error
    return directory


def _fetch_file(
    path: Path, model_name: str, hparams: HParams, base_urls: Sequence[str], report: files.ByteProgress
) -> None:
    failures = []
    for base_url in base_urls:
        for name in model_dir.list_aliases(model_name):
            url = f"{base_url.rstrip('/').removesuffix('/models')}/models/{name}/{path.name}"
            try:
                return transfer.fetch(url, path, lambda part: find_problem(part, path.name, hparams), report)
            except transfer.UnavailableError as error:
                failures.append(f"{url}: {error}")
                if not isinstance(error, transfer.NotFoundError):
                    break  # the model's other name would not help
    raise transfer.UnavailableError("; ".join(failures))


def find_problem(path: Path, name: str, hparams: HParams) -> str:
    """What is wrong with the file `name` of the model with these hparams, which lies at `path`; nothing if it is right.

    The vocabulary is compared with its known SHA-256, hparams.json with the known numbers, the index with the variables
    that they need, and every weight with its checksum in the index beside it. The `.meta` file says nothing of itself
    that could be checked. Raises Unreadable.
    """
    try:
        return _problem(path, name, hparams)
    except UnreadableFileError:
        raise
    except DamagedFileError as error:
        return error.reason
    except GPT2Error as error:
        return f"it is not of this model: {error}"


def _problem(path: Path, name: str, hparams: HParams) -> str:
    if name in SHA256 and transfer.hash_file(path, "sha256").hex() != SHA256[name]:
        return "its SHA-256 is not that of GPT-2's vocabulary"
    if name == DATA_FILE:
        if wrong := transfer.find_size_mismatch(path, 4 * hparams.n_params):
            return wrong
        checkpoint.check_data_file(path.with_name(INDEX_FILE), path)
    if name == INDEX_FILE:
        checkpoint.check_variables(checkpoint.read_index(path)[1], hparams, path)
    if name == STATE_FILE and f'"{CHECKPOINT_NAME}"' not in files.read_text(path):
        return f"it does not name {CHECKPOINT_NAME}"
    if name == HPARAMS_FILE and load_hparams(path) != hparams:
        return "its numbers are those of another model"
    return ""


def _check_room(directory: Path, hparams: HParams) -> None:
    data, size = directory / DATA_FILE, 4 * hparams.n_params
    with files.reporting_read_errors(directory):
        if files.is_file(data) and data.stat().st_size == size:
            return
        part = files.partial_path(data)
        size += OTHER_FILES_BYTES - (part.stat().st_size if files.is_file(part) else 0)
        free = shutil.disk_usage(directory).free
    if free < size:
        raise GPT2Error(f"{directory} needs {size / 1e6:,.0f} MB more, but its disk has only {free / 1e6:,.0f} MB free")
