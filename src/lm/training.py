"""Translation of transformer-lm's training parameters to `gpt2.training.settings.settings.TrainingSettings`.

A step of transformer-lm is an update here. transformer-lm measures the progress of a run in tokens.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gpt2 import generate, tensorflow_startup
from gpt2.data import token_file
from gpt2.errors import GPT2Error, UsageError
from gpt2.files import is_file, is_folder, no_callback
from gpt2.formats.openai.checkpoint_files import current_checkpoint
from gpt2.formats.transformer_lm import directory as transformer_lm
from gpt2.request import BFLOAT16, FLOAT32
from gpt2.text.vocabulary import Vocabulary
from gpt2.training.checkpoints import run_folder
from gpt2.training.checkpoints.run_lock import RunLock
from gpt2.training.logs import history
from gpt2.training.settings import run_settings
from gpt2.training.settings.settings import TrainingSettings
from lm import scores
from lm.data import IDS_FILE, TRAIN, VALID
from lm.options import TransformerLmOptions

RUN_MARKER_FILE = ".lm"  # marks the folder of a run as transformer-lm's


class EncodedCorpus:
    """The training and validation ids of a corpus, in the files that `sp-encode` writes."""

    def __init__(self, folder: Path, vocabulary: Vocabulary) -> None:
        """Open both files.

        Raises:
            GPT2Error: If a file is missing, is damaged or belongs to another vocabulary.
        """
        self.paths = {split: folder / IDS_FILE.format(split) for split in (TRAIN, VALID)}
        if missing := [str(path) for path in self.paths.values() if not is_file(path)]:
            raise GPT2Error(f"missing: {' and '.join(missing)}; create them with sp-encode CORPUS SP_MODEL {folder}")
        self.train, self.valid = (token_file.read(path, vocabulary) for path in self.paths.values())


def batches_per_update(options: TransformerLmOptions) -> int:
    """Return the number of batches that each device computes for one update.

    Raises:
        UsageError: If the batches cannot be shared equally among the GPUs.
    """
    n_devices = 1
    if tensorflow_startup.can_use_gpu():
        n_devices = max(1, sum(name.startswith("GPU") for name in tensorflow_startup.visible_devices()))
    n_batches = options.g_accum_gradients or n_devices
    if n_batches % n_devices:
        raise UsageError(f"g_accum_gradients must be a multiple of the {n_devices} GPUs, not {n_batches}")
    return n_batches // n_devices


def tokens_per_update(options: TransformerLmOptions) -> int:
    """Return the number of tokens that all devices together train on in one update."""
    return options.n_ctx * options.batch_size * (options.g_accum_gradients or 1)


def run_progress(options: TransformerLmOptions) -> tuple[int, int]:
    """Return the run's numbers of tokens and updates so far, or (0, 0) if there is no run."""
    if not run_folder.has_checkpoint(options.folder):
        return 0, 0
    updates = run_folder.read_step(current_checkpoint(options.folder))
    return history.count_seen_tokens(options.folder, updates), updates


def training_settings(options: TransformerLmOptions, corpus: EncodedCorpus) -> TrainingSettings:
    """Translate the parameters to the settings of a run.

    Raises:
        GPT2Error: If the corpus is too short, or if transformer-lm itself trained the run in the folder.
        UsageError: If a value is not allowed.
    """
    if transformer_lm.is_model(options.folder):
        raise GPT2Error(
            f"{options.folder} was trained by transformer-lm itself, with PyTorch's optimizer: give another run_path,"
            f" or train from its weights with train.py --model_name {options.folder}"
        )
    tokens_in_update = tokens_per_update(options)
    epoch_updates = len(corpus.train) // tokens_in_update
    if not epoch_updates:
        raise GPT2Error(
            f"{corpus.paths[TRAIN]} has {len(corpus.train)} tokens, fewer than the {tokens_in_update} of one update"
        )
    values = _setting_values(options, corpus) | {"stop_after": _last_update(options, epoch_updates)}
    return run_settings.combine_settings(values)


def _setting_values(options: TransformerLmOptions, corpus: EncodedCorpus) -> dict[str, Any]:
    """Return the settings that do not depend on the run's progress."""
    return {
        "run_name": options.folder.name,
        "checkpoint_dir": str(options.folder.parent),
        "dataset": str(corpus.paths[TRAIN]),
        "val_dataset": str(corpus.paths[VALID]),
        "from_scratch": True,
        "vocabulary": options.sp_model_path,
        "learning_rate": options.lr,
        "batch_size": options.batch_size,
        "accumulate_gradients": batches_per_update(options),
        "memory_saving_gradients": options.gradient_checkpointing,
        "warmup_steps": options.warmup_steps,
        "print_every": options.log_every,
        "save_every": options.save_every,
        "sample_every": 0,
        "val_every": options.validation_interval,
        "val_batch_size": options.batch_size,
        "val_batch_count": max(1, -(-len(corpus.valid) // (options.n_ctx * options.batch_size))),
        "precision": BFLOAT16 if options.use_amp else FLOAT32,
        "n_ctx": options.n_ctx,
        "n_embd": options.layer_width,
        "n_token_embd": options.n_embed,
        "n_head": options.n_head,
        "n_layer": options.n_layer,
    }


def _last_update(options: TransformerLmOptions, epoch_updates: int) -> int:
    """Return the number of updates after which the run has seen all epochs or `max_tokens` tokens."""
    seen_tokens, updates = run_progress(options)
    tokens_in_update = tokens_per_update(options)
    all_tokens = min(options.epochs * epoch_updates * tokens_in_update, options.max_tokens or math.inf)
    return updates + max(0, math.ceil((all_tokens - seen_tokens) / tokens_in_update))


def continuing_flags(options: TransformerLmOptions) -> dict[str, Any]:
    """Return the flags of a call that trains the run as long again."""
    values = dataclasses.asdict(options)
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    flags = {name: value for name, value in values.items() if value != defaults[name] and name != "clean"}
    more_tokens = {"max_tokens": 2 * options.max_tokens} if options.max_tokens else {}
    return {**flags, "epochs": 2 * options.epochs, **more_tokens}


def params_json(options: TransformerLmOptions, n_vocab: int) -> str:
    """Return the parameters as transformer-lm prints them and stores them in `params.json`."""
    params = {name: getattr(options, name) for name in ("epochs", "lr", "batch_size", "use_amp", "warmup_steps")}
    params["g_accum_gradients"] = options.g_accum_gradients or 1
    sizes = ("n_ctx", "n_embed", "n_head", "n_layer", "gradient_checkpointing")
    hparams = {name: getattr(options, name) for name in sizes}
    params["hparams"] = {**hparams, "n_hidden": options.layer_width, "n_vocab": n_vocab}
    return json.dumps(params, indent=4, sort_keys=True)


def remove_run(folder: Path) -> None:
    """Remove a run's folder if it exists.

    Raises:
        GPT2Error: If the folder does not hold a run, if the run is in progress, or if the folder cannot be removed.
    """
    if not is_folder(folder):
        return
    if not any(
        is_file(folder / name) for name in (RUN_MARKER_FILE, run_settings.SETTINGS_FILE)
    ):  # a model directory has neither file
        raise GPT2Error(f"{folder} is not a run, and clean would remove everything in it; remove it yourself")
    with RunLock(folder):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        raise GPT2Error(f"{folder} cannot be removed; remove it yourself")


def validation_losses(
    folder: Path, corpus: EncodedCorpus, report: Callable[[int, int | None], object] = no_callback
) -> dict[str, float]:
    """Return the mean losses of a run over adjacent windows of the validation ids, in nats per piece.

    Args:
        folder: The run's folder.
        corpus: The ids.
        report: Progress callback, called with (done, total) windows.

    Returns:
        The mean over whole windows as "loss", and the means over the first 8, 16, ... pieces of each window as
        "loss_8", "loss_16", ...

    Raises:
        GPT2Error: If the validation ids do not fill a window, or if the model is missing or damaged.
    """
    model = generate.load(str(folder))
    n_ctx = model.hparams.n_ctx
    starts = range(0, len(corpus.valid) - n_ctx, n_ctx)
    if not starts:
        raise GPT2Error(f"{corpus.paths[VALID]} has {len(corpus.valid)} tokens, too few for a window of {n_ctx}")
    sums = np.zeros(n_ctx - 1)
    windows = (np.asarray(corpus.valid[start : start + n_ctx]) for start in starts)
    for done, log_probs in enumerate(scores.text_log_probs(model, windows), start=1):
        sums -= log_probs
        report(done, len(starts))
    means = sums / len(starts)
    lengths = [2**power for power in range(3, n_ctx.bit_length()) if 2**power < n_ctx - 1]
    return {"loss": float(means.mean())} | {f"loss_{length}": float(means[:length].mean()) for length in lengths}
