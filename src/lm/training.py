"""transformer-lm's training: its parameters as `gpt2.training.settings.settings.Settings`, over the same runs.

Its steps are our updates, and how far a run has come it counts in tokens.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpt2 import generate, tensorflow_startup
from gpt2.data import token_file
from gpt2.errors import GPT2Error, UsageError
from gpt2.files import expand_path, is_file, is_folder, no_callback
from gpt2.formats import model_dir
from gpt2.formats.openai.checkpoint_files import current_checkpoint
from gpt2.formats.transformer_lm import directory as transformer_lm
from gpt2.hparams import HParams
from gpt2.request import BFLOAT16, FLOAT32, check_number, require_integer
from gpt2.text.vocabulary import Vocabulary
from gpt2.training.checkpoints import run_folder
from gpt2.training.checkpoints.run_lock import RunLock
from gpt2.training.logs import history
from gpt2.training.settings import run_settings
from gpt2.training.settings.settings import TrainingSettings
from lm import scores
from lm.data import IDS, TRAIN, VALID

MARK = ".lm"  # the file by which transformer-lm knows its runs
FIRST = 8  # the shortest beginning of a window that has a loss of its own


@dataclasses.dataclass(frozen=True)
class Options:
    """The parameters of the command `gpt-2`, with their defaults. Raises UsageError for values that cannot be."""

    run_path: str
    dataset_path: str
    sp_model_path: str
    epochs: int = 10
    lr: float = 2.5e-4
    batch_size: int = 2
    g_accum_gradients: int | None = None
    gradient_checkpointing: bool = False
    warmup_steps: int = 0
    n_ctx: int = 1024
    n_ctx_min: int | None = None
    n_embed: int = 768
    n_head: int = 12
    n_layer: int = 12
    n_hidden: int | None = None
    clean: bool = False
    log_every: int = 20
    save_every: int = 10000
    validate_every: int | None = None
    only_validate: bool = False
    max_tokens: int | None = None
    use_amp: bool = False
    sample_sentences: bool = False
    verbose: bool = False
    master_port: str | None = None
    master_addr: str | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "n_ctx", "n_embed", "n_head", "n_layer", "log_every"):
            require_integer(name, getattr(self, name), 1)
        for name in ("g_accum_gradients", "n_hidden", "max_tokens"):
            if getattr(self, name) is not None:
                require_integer(name, getattr(self, name), 1)
        for name in ("warmup_steps", "save_every", "validate_every"):
            require_integer(name, getattr(self, name) or 0)
        check_number("lr", self.lr)
        if self.lr <= 0:
            raise UsageError(f"lr must be above 0, not {self.lr}")
        HParams(1, self.n_ctx, self.width, self.n_head, self.n_layer, n_token_embd=self.n_embed)
        if self.n_ctx_min not in (None, self.n_ctx):
            raise UsageError("n_ctx_min, windows of several lengths, is not offered: leave it out")
        if not self.folder.name:
            raise UsageError(f"run_path must be the name of a folder for the run, not {self.run_path!r}")

    @property
    def folder(self) -> Path:
        return expand_path(self.run_path).absolute()

    @property
    def width(self) -> int:
        """Of the blocks."""
        return self.n_hidden or self.n_embed

    @property
    def validates_every(self) -> int:
        return self.save_every if self.validate_every is None else self.validate_every

    def remarks(self) -> Iterator[str]:
        """What is asked for and done in another way, a line each."""
        if self.use_amp:
            yield f"use_amp: the matrix products are computed in {BFLOAT16}"
        if self.sample_sentences:
            yield "sample_sentences is of no effect: windows begin anywhere in the text"
        if self.verbose:
            yield "verbose is of no effect: the windows are not shown"
        if self.master_port or self.master_addr:
            yield "master_port and master_addr are of no effect: several machines need TF_CONFIG, several GPUs nothing"


class Data:
    """The two files of ids, as `sp-encode` writes them. Raises GPT2Error for what is missing, damaged or of another
    vocabulary."""

    def __init__(self, folder: Path, vocabulary: Vocabulary) -> None:
        self.paths = {split: folder / IDS.format(split) for split in (TRAIN, VALID)}
        if missing := [str(path) for path in self.paths.values() if not is_file(path)]:
            raise GPT2Error(f"{' and '.join(missing)} missing; make them with sp-encode CORPUS SP_MODEL {folder}")
        self.train, self.valid = (token_file.read(path, vocabulary) for path in self.paths.values())


def accumulated(options: Options) -> int:
    """Batches for each update on each device, all of which compute together. Raises UsageError if they cannot share
    them."""
    n_devices = max(
        1,
        sum(name.startswith("GPU") for name in tensorflow_startup.visible_devices())
        if tensorflow_startup.can_use_gpu()
        else 1,
    )
    together = options.g_accum_gradients or n_devices
    if together % n_devices:
        raise UsageError(f"g_accum_gradients must be a multiple of the {n_devices} GPUs, not {together}")
    return together // n_devices


def step_tokens(options: Options) -> int:
    """Of all devices in an update."""
    return options.n_ctx * options.batch_size * (options.g_accum_gradients or 1)


def seen_tokens(options: Options) -> tuple[int, int]:
    """How many tokens the run in the folder has seen, and how many updates it has made; 0 if there is none."""
    if not run_folder.has_checkpoint(options.folder):
        return 0, 0
    done = run_folder.read_step(current_checkpoint(options.folder))
    return history.count_seen_tokens(options.folder, done), done


def settings(options: Options, data: Data) -> TrainingSettings:
    """The run's. Raises UsageError for what is not allowed, GPT2Error for a data set that is too short."""
    if transformer_lm.is_model(options.folder):
        raise GPT2Error(
            f"{options.folder} is a run of transformer-lm's own, whose optimiser is PyTorch's: give another run_path,"
            f" or go on from its weights with train.py --model_name {options.folder}"
        )
    seen, done = seen_tokens(options)
    per_update = step_tokens(options)
    epoch = len(data.train) // per_update
    if not epoch:
        raise GPT2Error(f"{data.paths[TRAIN]} has {len(data.train)} tokens, fewer than the {per_update} of an update")
    wanted = min(options.epochs * epoch * per_update, options.max_tokens or math.inf)
    given: dict[str, Any] = {
        "run_name": options.folder.name,
        "checkpoint_dir": str(options.folder.parent),
        "dataset": str(data.paths[TRAIN]),
        "val_dataset": str(data.paths[VALID]),
        "from_scratch": True,
        "vocabulary": options.sp_model_path,
        "learning_rate": options.lr,
        "batch_size": options.batch_size,
        "accumulate_gradients": accumulated(options),
        "memory_saving_gradients": options.gradient_checkpointing,
        "warmup_steps": options.warmup_steps,
        "print_every": options.log_every,
        "save_every": options.save_every,
        "sample_every": 0,
        "val_every": options.validates_every,
        "val_batch_size": options.batch_size,
        "val_batch_count": max(1, -(-len(data.valid) // (options.n_ctx * options.batch_size))),
        "precision": BFLOAT16 if options.use_amp else FLOAT32,
        "stop_after": done + max(0, math.ceil((wanted - seen) / per_update)),
        "n_ctx": options.n_ctx,
        "n_embd": options.width,
        "n_token_embd": options.n_embed,
        "n_head": options.n_head,
        "n_layer": options.n_layer,
    }
    return run_settings.combine_settings(given)


def params(options: Options, n_vocab: int) -> str:
    """What transformer-lm prints, and keeps as `params.json`."""
    sizes = ("n_ctx", "n_embed", "n_head", "n_layer", "gradient_checkpointing")
    said = {name: getattr(options, name) for name in ("epochs", "lr", "batch_size", "use_amp", "warmup_steps")}
    said["g_accum_gradients"] = options.g_accum_gradients or 1
    hparams = {name: getattr(options, name) for name in sizes}
    said["hparams"] = {**hparams, "n_hidden": options.width, "n_vocab": n_vocab}
    return json.dumps(said, indent=4, sort_keys=True)


def clean(folder: Path) -> None:
    """Removes a run. Raises GPT2Error for a folder that is none, and for one in which a run is going on."""
    if not is_folder(folder):
        return
    if not any(is_file(folder / name) for name in (MARK, run_settings.SETTINGS_FILE)):  # a model has neither
        raise GPT2Error(f"{folder} is no run, and clean would remove all that is in it; remove it yourself")
    with RunLock(folder):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        raise GPT2Error(f"{folder} cannot be removed; remove it yourself")


def losses(folder: Path, data: Data, report: Callable[[int, int | None], object] = no_callback) -> dict[str, float]:
    """The mean loss of a model's next pieces in nats, over windows side by side, and that of the first pieces of each:
    `loss_8`, `loss_16` and so on. report: told how many windows of how many are done."""
    model = generate.load(str(folder))
    n_ctx = model.hparams.n_ctx
    starts = range(0, len(data.valid) - n_ctx, n_ctx)
    if not starts:
        raise GPT2Error(f"{data.paths[VALID]} has {len(data.valid)} tokens, and one window is {n_ctx}")
    sums = np.zeros(n_ctx - 1)
    windows = (np.asarray(data.valid[start : start + n_ctx]) for start in starts)
    for number, found in enumerate(scores.of_texts(model, windows), start=1):
        sums -= found
        report(number, len(starts))
    beginnings = {f"loss_{2**power}": 2**power for power in range(3, n_ctx.bit_length()) if 2**power < n_ctx - 1}
    means = sums / len(starts)
    return {"loss": float(means.mean())} | {name: float(means[:n].mean()) for name, n in beginnings.items()}


def load_vocabulary(path: str) -> Vocabulary:
    """Of a `.model`, or of a folder. Raises GPT2Error."""
    return model_dir.find_vocabulary(path)
