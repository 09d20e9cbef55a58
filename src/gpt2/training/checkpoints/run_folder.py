"""A run's folder: a model directory that also holds the state that a resumed run needs.

hparams.json encoder.json vocab.bpe     the model's files (or sp.model), so that every command can load the folder
checkpoint model-N.*                    the weights after N updates, in OpenAI's layout
counter                                 N, for the old tools
training-N.*                            the optimizer's state; only the newest is retained
training-N.json                         the run's progress: see `RunProgress`
settings.json                           the run's settings: see `run_settings`
best/                                   the model with the lowest validation loss, unless that is the initial model
progress.jsonl loss.png events.out.*    the log: see `training_log`
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import re
import reprlib
import shutil
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

from gpt2.errors import DamagedFileError, GPT2Error
from gpt2.files import atomic_write, read_json
from gpt2.formats import vocabularies
from gpt2.formats.openai.checkpoint_files import STATE_FILE, state_text
from gpt2.hparams import HPARAMS_FILE, HParams
from gpt2.text.vocabulary import Vocabulary
from gpt2.training.checkpoints.run_lock import LOCK_FILE
from gpt2.training.run_progress import RunProgress

COUNTER_FILE = "counter"
HISTORY_FILE = "progress.jsonl"
MODEL_NAME = "model-{}"
TRAINING_NAME = "training-{}"
BEST_FOLDER = "best"
DAMAGED_PROGRESS_ADVICE = "remove it to resume from the weights alone"


def has_checkpoint(folder: Path) -> bool:
    """Return whether a run has saved a checkpoint in the folder."""
    return (folder / STATE_FILE).is_file()


def read_progress(prefix: Path) -> RunProgress | None:
    """Return the progress that was saved with the weights `<folder>/model-N`.

    For older models of a run only the step, the seed and the vocabulary are known.

    Args:
        prefix: The weights' prefix, `<folder>/model-N`.

    Returns:
        The progress, or None if an old tool wrote the weights.

    Raises:
        DamagedFileError: The file is damaged.
        UnreadableFileError: The file cannot be read.
    """
    step = _step_of(prefix)
    if step is None:
        return None
    exact_path = training_prefix(prefix).with_suffix(".json")
    paths = [exact_path] if exact_path.is_file() else sorted(prefix.parent.glob(TRAINING_NAME.format("*.json")))
    if not paths:
        return None
    saved = _read_progress_file(paths[0])
    return saved if paths[0] == exact_path else RunProgress(step, saved.seed, vocabulary=saved.vocabulary)


def _read_progress_file(path: Path) -> RunProgress:
    try:
        progress = RunProgress(**read_json(path))
        for name, value in vars(progress).items():
            if not _has_type_of(value, getattr(RunProgress, name)):
                raise DamagedFileError(path, f"{name} cannot be {reprlib.repr(value)}")
    except (DamagedFileError, TypeError) as error:
        raise DamagedFileError(path, getattr(error, "reason", str(error)), DAMAGED_PROGRESS_ADVICE) from error
    return progress


def _has_type_of(value: object, default: object) -> bool:
    """Return whether the value has the type of a field with this default; a float field also accepts an int."""
    if isinstance(default, (int, str)):
        return type(value) is type(default)
    return isinstance(value, (int, float)) or value is default


def read_step(prefix: Path) -> int:
    """Return the number of updates of weights that an old tool wrote.

    The number comes from the weights' file name, otherwise from the counter file; it is 0 if neither has a number.
    """
    with contextlib.suppress(OSError, ValueError):
        return _step_of(prefix) or int((prefix.parent / COUNTER_FILE).read_text(encoding="utf-8"))
    return 0


def model_files(vocabulary: Vocabulary, hparams: HParams) -> dict[str, bytes]:
    """Return the contents of a model directory's files except its weights, by file name."""
    return {HPARAMS_FILE: json.dumps(hparams.as_dict()).encode("utf-8"), **vocabulary.files()}


def write_model_files(folder: Path, model_files: Mapping[str, bytes]) -> None:
    """Create the folder if it does not exist and write the files of `model_files` into it.

    Raises:
        GPT2Error: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GPT2Error(f"the run's folder {folder} cannot be written: {error.strerror}") from error
    for name, content in model_files.items():
        with atomic_write(folder / name) as file:
            file.write(content)


def move_aside(folder: Path, reason: str = "this run starts from step 0") -> Path:
    """Rename the folder of a run that a new run of this name would overwrite, and warn about it.

    The lock file stays with the name.

    Args:
        folder: The run's folder.
        reason: Description of the new run, for the warning.

    Returns:
        The new path of the old run.
    """
    first_name = f"{folder.name}-until-{time.strftime('%Y%m%d-%H%M%S')}"
    names = itertools.chain([first_name], (f"{first_name}-{number}" for number in itertools.count(2)))
    old_run = next(path for path in map(folder.with_name, names) if not os.path.lexists(path))
    os.replace(folder, old_run)
    if (old_run / LOCK_FILE).is_file():
        folder.mkdir()
        os.replace(old_run / LOCK_FILE, folder / LOCK_FILE)
    warnings.warn(f"the previous run in {folder} is now {old_run}; {reason}", stacklevel=2)
    return old_run


def start_from(old_run: Path, folder: Path, progress: RunProgress) -> None:
    """Start a run from an older model of the run that was moved to `old_run`.

    The model's weights, its vocabulary and the history are copied; the progress is written.
    """
    model_name = MODEL_NAME.format(progress.step)
    other_files = (HPARAMS_FILE, *vocabularies.FILES, HISTORY_FILE)
    for path in [*old_run.glob(f"{model_name}.*"), *(old_run / name for name in other_files)]:
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
    texts = {
        f"{TRAINING_NAME.format(progress.step)}.json": json.dumps(dataclasses.asdict(progress)),
        STATE_FILE: state_text(model_name),
    }
    for name, text in texts.items():
        with atomic_write(folder / name) as file:
            file.write(text.encode("utf-8"))


def training_prefix(prefix: Path) -> Path:
    """Return the prefix of the optimizer's state that belongs to the weights `<folder>/model-N`."""
    return prefix.with_name(TRAINING_NAME.format(_step_of(prefix)))


def _step_of(prefix: Path) -> int | None:
    match = re.fullmatch(MODEL_NAME.format(r"(\d+)"), prefix.name)
    return int(match[1]) if match else None
