"""Download of the models that OpenAI released."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from gpt2 import files
from gpt2.errors import DamagedFileError, GPT2Error, UnreadableFileError, UsageError, suggest
from gpt2.formats import model_dir, transfer
from gpt2.formats.openai import checkpoint, checkpoint_index
from gpt2.formats.openai.checkpoint_files import CHECKPOINT_NAME, FLOAT32_BYTES, STATE_FILE, data_file, index_file
from gpt2.hparams import HPARAMS_FILE, HParams, load_hparams
from gpt2.text.bpe_files import ENCODER_FILE, MERGES_FILE

# OpenAI's two servers; the older one, from 2019, is last.
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
OTHER_FILES_BYTES = 8 << 20  # an upper bound for all files except the weights


def target_folder(models_dir: str = model_dir.DEFAULT_MODELS_DIR) -> Path:
    """Return the folder for downloaded models.

    If `models_dir` has its default value, the folder is `models` in the working directory. If that does not exist, it
    is the checkout's `models`.

    Args:
        models_dir: The folder to search, as in `model_dir.search_path`.

    Raises:
        UsageError: `models_dir` cannot be a path.
    """
    folders = model_dir.search_path(models_dir)
    return next((folder for folder in folders if files.is_folder(folder)), folders[-1])


def download_model(
    model_name: str,
    folder: Path,
    base_urls: Sequence[str] = BASE_URLS,
    report: Callable[..., object] = files.no_callback,
    verifying: Callable[[str], object] = files.no_callback,
) -> Path:
    """Download the files of a released model to `folder/model_name`, except files that are already correct.

    Each file is requested from each base URL in turn, under both names of the model. Downloaded and existing files are
    checked (see `find_problem`). A downloaded file gets its final name only after it passed. After a failed download,
    the correct files and the partial file stay in the folder.

    Args:
        model_name: The name of a released model, old or new.
        folder: The parent of the model's folder.
        base_urls: Servers to try, in order.
        report: Progress callback: called with (file name, done, total); done and total are in bytes.
        verifying: Called with the name of each file whose checks start, downloaded or existing.

    Returns:
        The model's folder.

    Raises:
        UsageError: There is no released model of this name.
        GPT2Error: A file could not be downloaded, failed its check, or does not fit on the disk.
    """
    if not model_dir.is_released(model_name):
        known = f"{model_dir.describe_released_models()}{suggest(model_name, model_dir.released_names())}"
        raise UsageError(f"there is no model called {model_name!r}; use one of {known}")
    directory = folder / model_name
    released = model_dir.RELEASED_MODELS
    hparams = next(released[name] for name in model_dir.list_aliases(model_name) if name in released)
    with files.creating_folder(directory):
        _check_disk_space(directory, hparams)
        for name in FILES:
            path = directory / name
            if files.is_file(path):
                verifying(name)
                if not find_problem(path, name, hparams):
                    continue
            _fetch_file(path, model_name, hparams, base_urls, partial(report, name), partial(verifying, name))
    return directory


def _fetch_file(
    path: Path,
    model_name: str,
    hparams: HParams,
    base_urls: Sequence[str],
    report: files.ByteProgress,
    verifying: Callable[[], object],
) -> None:
    failures = []
    for base_url in base_urls:
        for name in model_dir.list_aliases(model_name):
            url = f"{base_url.rstrip('/').removesuffix('/models')}/models/{name}/{path.name}"
            try:
                transfer.fetch(url, path, lambda part: find_problem(part, path.name, hparams), report, verifying)
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
    that these sizes need, and every weight with its checksum in the index. The index must be in the same folder. The
    `.meta` file is not checked, since it contains no checksums.

    Args:
        path: The path of the file, possibly with a temporary name.
        name: The file's final name.
        hparams: The model's hyperparameters.

    Returns:
        A description of the problem, or "" if there is none.

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
        return "its SHA-256 differs from the SHA-256 of GPT-2's vocabulary"
    if name == DATA_FILE:
        if mismatch := transfer.find_size_mismatch(path, FLOAT32_BYTES * hparams.n_params):
            return mismatch
        checkpoint.check_data_file(path.with_name(INDEX_FILE), path)
    if name == INDEX_FILE:
        checkpoint.check_variables(checkpoint_index.read_index(path)[1], hparams, path)
    if name == STATE_FILE and f'"{CHECKPOINT_NAME}"' not in files.read_text(path):
        return f"it does not name {CHECKPOINT_NAME}"
    if name == HPARAMS_FILE and load_hparams(path) != hparams:
        return "its sizes belong to another model"
    return ""


def _check_disk_space(directory: Path, hparams: HParams) -> None:
    data = directory / DATA_FILE
    needed_bytes = FLOAT32_BYTES * hparams.n_params
    with files.reporting_read_errors(directory):
        if files.is_file(data) and data.stat().st_size == needed_bytes:
            return
        part = files.partial_path(data)
        downloaded_bytes = part.stat().st_size if files.is_file(part) else 0
        needed_bytes += OTHER_FILES_BYTES - downloaded_bytes
        free_bytes = shutil.disk_usage(directory).free
    if free_bytes < needed_bytes:
        raise GPT2Error(
            f"{directory} needs {needed_bytes / 1e6:,.0f} MB more, but its disk has only"
            f" {free_bytes / 1e6:,.0f} MB free; delete other files or choose another folder"
        )
