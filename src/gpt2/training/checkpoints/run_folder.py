"""A run's folder: a model directory that grows, and all that a resumed run needs to be the run that would have been.

hparams.json encoder.json vocab.bpe     the model's, so that every command reads the folder as it is; or its sp.model
checkpoint model-N.*                    the weights after N updates, in OpenAI's layout
counter                                 N, for the old tools
training-N.*                            what the optimiser remembers; the newest only
training-N.json                         the rest: see `Progress`
settings.json                           what the run was asked to do: see `run_settings`
best/                                   the model directory of the lowest validation loss, if it is below the first
progress.jsonl loss.png events.out.*    what there is to look at
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
from gpt2.training.logs.history import HISTORY_FILE

COUNTER_FILE = "counter"
MODEL_NAME, TRAINING_NAME = "model-{}", "training-{}"
BEST_FOLDER = "best"


WITHOUT = "remove it to go on with the weights alone"


@dataclasses.dataclass
class RunProgress:
    """Where a run stands, beside its weights and its optimiser."""

    step: int = 0  # updates so far
    seed: int = 0  # with the step number, all random numbers, and with them the place in the data
    optimizer: str = ""
    vocabulary: str = ""  # its fingerprint
    loss_sum: float = 0.0  # the smoothed loss is loss_sum / loss_weight
    loss_weight: float = 0.0
    seconds: float = 0.0
    best_loss: float | None = None  # of validation
    best_step: int = 0  # 0 is the model that the run began with, which is not in `best`
    worse: int = 0  # validations since the best one

    @property
    def smoothed(self) -> float:
        return self.loss_sum / self.loss_weight if self.loss_weight else float("nan")

    def add(self, loss: float) -> None:
        """The old tools' average: each loss weighs 0.99 of the next one."""
        self.loss_sum, self.loss_weight = self.loss_sum * 0.99 + loss, self.loss_weight * 0.99 + 1


def has_checkpoint(folder: Path) -> bool:
    return (folder / STATE_FILE).is_file()


def read_progress(prefix: Path) -> RunProgress | None:
    """What was saved with the weights `<folder>/model-N`; None if an old tool wrote them.

    Of an older model of the run its step and what never changes are known. Raises Damaged, and Unreadable for what
    cannot be read.
    """
    step = _step(prefix)
    if step is None:
        return None
    own = training_prefix(prefix).with_suffix(".json")
    for path in [own] if own.is_file() else sorted(prefix.parent.glob(TRAINING_NAME.format("*.json"))):
        try:
            saved = RunProgress(**read_json(path))
            if wrong := [name for name, value in vars(saved).items() if not _fits(value, getattr(RunProgress, name))]:
                raise DamagedFileError(path, f"{wrong[0]} cannot be {reprlib.repr(getattr(saved, wrong[0]))}")
        except (DamagedFileError, TypeError) as error:
            raise DamagedFileError(path, getattr(error, "reason", str(error)), WITHOUT) from error
        return saved if path == own else RunProgress(step, saved.seed, vocabulary=saved.vocabulary)
    return None


def _fits(value: object, default: object) -> bool:
    """Whether a value may stand for what is by default `default`."""
    if isinstance(default, (int, str)):
        return type(value) is type(default)
    return isinstance(value, (int, float)) or value is default


def read_step(prefix: Path) -> int:
    """The number of updates of weights that an old tool wrote: in their name, else in the counter file."""
    with contextlib.suppress(OSError, ValueError):
        return _step(prefix) or int((prefix.parent / COUNTER_FILE).read_text(encoding="utf-8"))
    return 0


def model_files(vocabulary: Vocabulary, hparams: HParams) -> dict[str, bytes]:
    """What a model directory holds beside its weights, by the names of the files."""
    return {HPARAMS_FILE: json.dumps(hparams.as_dict()).encode("utf-8"), **vocabulary.files()}


def write_model_files(folder: Path, model_files: Mapping[str, bytes]) -> None:
    """Makes the folder a model directory but for its weights. Raises GPT2Error if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GPT2Error(f"the run's folder {folder} cannot be written: {error.strerror}") from error
    for name, content in model_files.items():
        with atomic_write(folder / name) as file:
            file.write(content)


def move_aside(run: Path, then: str = "this one starts anew") -> Path:
    """Renames a run that another one of its name would overwrite, and warns of it; its lock stays with the name.

    then: what comes next.
    """
    named = f"{run.name}-until-{time.strftime('%Y%m%d-%H%M%S')}"
    names = itertools.chain([named], (f"{named}-{number}" for number in itertools.count(2)))
    aside = next(path for path in map(run.with_name, names) if not os.path.lexists(path))
    os.replace(run, aside)
    if (aside / LOCK_FILE).is_file():
        run.mkdir()
        os.replace(aside / LOCK_FILE, run / LOCK_FILE)
    warnings.warn(f"the run that was in {run} is now {aside}; {then}", stacklevel=2)
    return aside


def start_from(aside: Path, folder: Path, progress: RunProgress) -> None:
    """Begins a run with an older model of the one that was moved aside, its vocabulary and its records."""
    name = MODEL_NAME.format(progress.step)
    others = (HPARAMS_FILE, *vocabularies.FILES, HISTORY_FILE)
    for path in [*aside.glob(f"{name}.*"), *(aside / file for file in others)]:
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
    texts = {f"{TRAINING_NAME.format(progress.step)}.json": json.dumps(dataclasses.asdict(progress))}
    for file, text in (texts | {STATE_FILE: state_text(name)}).items():
        with atomic_write(folder / file) as written:
            written.write(text.encode("utf-8"))


def training_prefix(prefix: Path) -> Path:
    return prefix.with_name(TRAINING_NAME.format(_step(prefix)))


def _step(prefix: Path) -> int | None:
    match = re.fullmatch(MODEL_NAME.format(r"(\d+)"), prefix.name)
    return int(match[1]) if match else None
