"""Downloading the released models."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from gpt2 import files
from gpt2.encoder import ENCODER_FILE, MERGES_FILE
from gpt2.errors import GPT2Error, UsageError
from gpt2.formats import model_dir, openai, transfer
from gpt2.formats.model_dir import CHECKPOINT_NAME, STATE_FILE, data_file, index_file
from gpt2.hparams import HPARAMS_FILE, HParams, load_hparams

# Where OpenAI published the models, in 2020 and in 2019.
BASE_URLS = ("https://openaipublic.blob.core.windows.net/gpt-2", "https://storage.googleapis.com/gpt-2")

PREFIX = Path(CHECKPOINT_NAME)
DATA_FILE, INDEX_FILE = data_file(PREFIX).name, index_file(PREFIX).name
GRAPH_FILE = f"{CHECKPOINT_NAME}.meta"
FILES = (STATE_FILE, ENCODER_FILE, HPARAMS_FILE, DATA_FILE, INDEX_FILE, GRAPH_FILE, MERGES_FILE)
# The two vocabulary files are the same for every size.
SHA256 = {
    ENCODER_FILE: "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    MERGES_FILE: "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
SIZE_OF_OTHER_FILES = 8 << 20  # bytes; a little more than all files but the weights have


def target_folder(models_dir: str = model_dir.DEFAULT_MODELS_DIR) -> Path:
    """Where models are put: by default the working directory's `models` if there is one, else the checkout's."""
    folders = model_dir.search_path(models_dir)
    return next((folder for folder in folders if folder.is_dir()), folders[-1])


def download_model(
    model_name: str, folder: Path, base_urls: Sequence[str] = BASE_URLS, report: Callable[..., object] = files.unheard
) -> Path:
    """Brings the files of a released model to `folder/model_name`, which it returns; what is complete is left alone.

    Each file is looked for at each base URL in turn, under both names of the model. report: told which file is fetched,
    how many bytes of it are there, and of how many.

    Raises UsageError for a name that is none, GPT2Error if a file cannot be had, is not what it should be, or would not
    fit on the disk.
    """
    if not model_dir.is_released(model_name):
        raise UsageError(f"there is no model called {model_name!r}; there are {model_dir.released_names()}")
    directory = folder / model_name
    directory.mkdir(parents=True, exist_ok=True)
    hparams = next(model_dir.RELEASED[n] for n in model_dir.same_model(model_name) if n in model_dir.RELEASED)
    needed = [name for name in FILES if not (directory / name).is_file() or problem(directory / name, name, hparams)]
    _check_room(directory, needed, hparams)
    for name in needed:
        try:
            _fetch_file(directory / name, model_name, hparams, base_urls, partial(report, name))
        except GPT2Error:
            if name != GRAPH_FILE:  # only programs for TensorFlow 1 look for it
                raise
    return directory


def _fetch_file(
    path: Path, model_name: str, hparams: HParams, base_urls: Sequence[str], report: files.ByteCount
) -> None:
    failures = []
    for base_url in base_urls:
        for name in model_dir.same_model(model_name):
            url = f"{base_url.rstrip('/').removesuffix('/models')}/models/{name}/{path.name}"
            try:
                return transfer.fetch(url, path, lambda part: problem(part, path.name, hparams), report)
            except transfer.Unavailable as error:
                failures.append(f"{url}: {error}")
                if not isinstance(error, transfer.NotFound):
                    break  # the model's other name would not help
    raise GPT2Error(f"{path.name} of {model_name} could not be downloaded: {'; '.join(failures)}")


def problem(path: Path, name: str, hparams: HParams) -> str:
    """What is wrong with a downloaded file of the model with these hparams; nothing if it is right."""
    if name in SHA256 and transfer.digest(path, "sha256").hex() != SHA256[name]:
        return "its SHA-256 is not that of GPT-2's vocabulary"
    if name == DATA_FILE:
        return transfer.wrong_size(path, 4 * hparams.n_params)
    if name == INDEX_FILE:
        try:
            openai.check_model(openai.read_index(path)[1], hparams, path)
        except GPT2Error as error:
            return f"it is not the index of this model: {error}"
    if name == STATE_FILE and f'"{CHECKPOINT_NAME}"'.encode() not in path.read_bytes():
        return f"it does not name {CHECKPOINT_NAME}"
    if name == HPARAMS_FILE:
        try:
            return "" if load_hparams(path) == hparams else "its numbers are those of another model"
        except GPT2Error:
            return "it is not a file of hparams"
    return ""


def _check_room(directory: Path, needed: Sequence[str], hparams: HParams) -> None:
    if DATA_FILE not in needed:
        return
    part = files.part_of(directory / DATA_FILE)
    size = 4 * hparams.n_params + SIZE_OF_OTHER_FILES - (part.stat().st_size if part.exists() else 0)
    free = shutil.disk_usage(directory).free
    if free < size:
        raise GPT2Error(f"{directory} needs {size / 1e6:,.0f} MB more, but its disk has only {free / 1e6:,.0f} MB free")
