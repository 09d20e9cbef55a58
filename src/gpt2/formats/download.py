"""Downloads the models that OpenAI released."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from gpt2 import files
from gpt2.encoder import ENCODER_FILE, MERGES_FILE
from gpt2.errors import DamagedFileError, GPT2Error, UnreadableFileError, UsageError
from gpt2.formats import model_dir, transfer
from gpt2.formats.openai import checkpoint, checkpoint_index
from gpt2.formats.openai.checkpoint_files import CHECKPOINT_NAME, FLOAT32_BYTES, STATE_FILE, data_file, index_file
from gpt2.hparams import HPARAMS_FILE, HParams, load_hparams

# OpenAI's two servers; the older one, of 2019, is last.
BASE_URLS = ("https://openaipublic.blob.core.windows.net/gpt-2", "https://storage.googleapis.com/gpt-2")

PREFIX = Path(CHECKPOINT_NAME)
DATA_FILE = data_file(PREFIX).name
INDEX_FILE = index_file(PREFIX).name
GRAPH_FILE = f"{CHECKPOINT_NAME}.meta"
# The index comes before the data, because it holds the checksums of the data.
FILES = (STATE_FILE, ENCODER_FILE, HPARAMS_FILE, INDEX_FILE, DATA_FILE, GRAPH_FILE, MERGES_FILE)
# The two vocabulary files are the same for every model size.
SHA256 = {
    ENCODER_FILE: "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    MERGES_FILE: "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
OTHER_FILES_BYTES = 8 << 20  # a little more than all files except the weights take


def target_folder(models_dir: str = model_dir.DEFAULT_MODELS_DIR) -> Path:
    """Return the folder for downloaded models.

    By default that is `models` in the working directory if it exists, otherwise the checkout's `models`.
    """
    folders = model_dir.search_path(models_dir)
    return next((folder for folder in folders if files.is_folder(folder)), folders[-1])


def download_model(
    model_name: str,
    folder: Path,
    base_urls: Sequence[str] = BASE_URLS,
    report: Callable[..., object] = files.no_callback,
) -> Path:
    """Download the files of a released model to `folder/model_name`; files that are already correct are kept.

    Each file is requested from each base URL in turn, under both names of the model. It is checked (see
    `find_problem`) before it gets its final name, and again if it exists already. A failed download keeps the
    correct files and the partial one.

    Args:
        model_name: The name of a released model, old or new.
        folder: The folder that gets the model's folder.
        base_urls: Servers to try, in order.
        report: Progress callback: called with (file name, done, total) where done and total are bytes.

    Returns:
        The model's folder.

    Raises:
        UsageError: There is no released model of this name.
        GPT2Error: A file could not be downloaded, failed its check, or does not fit on the disk.
    """
    if not model_dir.is_released(model_name):
        raise UsageError(f"there is no model called {model_name!r}; there are {model_dir.describe_released_models()}")
    directory = folder / model_name
    released = model_dir.RELEASED_MODELS
    hparams = next(released[name] for name in model_dir.list_aliases(model_name) if name in released)
    with files.creating_folder(directory):
        _check_disk_space(directory, hparams)
        for name in FILES:
            path = directory / name
            if not files.is_file(path) or find_problem(path, name, hparams):
                _fetch_file(path, model_name, hparams, base_urls, partial(report, name))
    return directory


def _fetch_file(
    path: Path, model_name: str, hparams: HParams, base_urls: Sequence[str], report: files.ByteProgress
) -> None:
    failures = []
    for base_url in base_urls:
        for name in model_dir.list_aliases(model_name):
            url = f"{base_url.rstrip('/').removesuffix('/models')}/models/{name}/{path.name}"
            try:
                transfer.fetch(url, path, lambda part: find_problem(part, path.name, hparams), report)
                return
            except transfer.UnavailableError as error:
                failures.append(f"{url}: {error}")
                if not isinstance(error, transfer.NotFoundError):
                    break  # the server failed, so the model's other name would not help
    if path.name != GRAPH_FILE:  # only programs for TensorFlow 1 use it
        raise GPT2Error(
            f"{path.name} of {model_name} could not be downloaded: {'; '.join(failures)}; try again later, which"
            " resumes the download, or give another base_url"
        )


def find_problem(path: Path, name: str, hparams: HParams) -> str:
    """Check a file of a released model.

    The vocabulary is compared with its known SHA-256, hparams.json with the known sizes, the index with the variables
    that these sizes need, and every weight with its checksum in the index alongside. The `.meta` file contains nothing
    that could be checked.

    Args:
        path: Where the file is, possibly under a temporary name.
        name: The file's final name.
        hparams: The model's hyperparameters.

    Returns:
        What is wrong with the file, or "".

    Raises:
        UnreadableFileError: The file cannot be read.
    """
    try:
        return _find_problem(path, name, hparams)
    except UnreadableFileError:
        raise
    except DamagedFileError as error:
        return error.reason
    except GPT2Error as error:
        return f"it belongs to another model: {error}"


def _find_problem(path: Path, name: str, hparams: HParams) -> str:
    if name in SHA256 and transfer.hash_file(path, "sha256").hex() != SHA256[name]:
        return "its SHA-256 is not that of GPT-2's vocabulary"
    if name == DATA_FILE:
        if mismatch := transfer.find_size_mismatch(path, FLOAT32_BYTES * hparams.n_params):
            return mismatch
        checkpoint.check_data_file(path.with_name(INDEX_FILE), path)
    if name == INDEX_FILE:
        checkpoint.check_variables(checkpoint_index.read_index(path)[1], hparams, path)
    if name == STATE_FILE and f'"{CHECKPOINT_NAME}"' not in files.read_text(path):
        return f"it does not name {CHECKPOINT_NAME}"
    if name == HPARAMS_FILE and load_hparams(path) != hparams:
        return "its sizes are those of another model"
    return ""


def _check_disk_space(directory: Path, hparams: HParams) -> None:
    data = directory / DATA_FILE
    needed = FLOAT32_BYTES * hparams.n_params
    with files.reporting_read_errors(directory):
        if files.is_file(data) and data.stat().st_size == needed:
            return
        part = files.partial_path(data)
        downloaded = part.stat().st_size if files.is_file(part) else 0
        needed += OTHER_FILES_BYTES - downloaded
        free = shutil.disk_usage(directory).free
    if free < needed:
        raise GPT2Error(
            f"{directory} needs {needed / 1e6:,.0f} MB more, but its disk has only {free / 1e6:,.0f} MB free"
        )
