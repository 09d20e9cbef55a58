"""Whether a run fits: memory and disk, estimated before it starts. No TensorFlow."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

from gpt2 import machine
from gpt2.errors import GPT2Error
from gpt2.hparams import HParams
from gpt2.training.settings import ADAFACTOR, ADAM, ADAMW, HEAD_ROWS, SGD, Settings

TENSORFLOW = 600e6  # bytes, of a process that has done nothing yet
SLOTS = {ADAM: 2, ADAMW: 2, SGD: 0, ADAFACTOR: 0}  # numbers that are kept for each weight
# Fitted to the peaks of a 124M-size model: activations of a block that wait for the backward pass, bytes.
PER_EMBEDDING, PER_SCORE = 120, 9
PER_LOGIT = 8


def memory(hparams: HParams, settings: Settings) -> float:
    """Bytes that training takes at its peak, roughly."""
    tokens = settings.batch_size * hparams.n_ctx
    copies = 2 + SLOTS[settings.optimizer] + (settings.accumulate_gradients > 1)  # weights, gradients, their sum
    block = tokens * (PER_EMBEDDING * hparams.n_embd + PER_SCORE * hparams.n_head * hparams.n_ctx)
    if settings.memory_saving_gradients:
        activations = block + 4 * tokens * hparams.n_embd * hparams.n_layer
    else:
        activations = block * hparams.n_layer
    head = min(tokens, HEAD_ROWS) * hparams.n_vocab * PER_LOGIT
    return TENSORFLOW + 4 * hparams.n_params * copies + activations + head


def checkpoint_size(hparams: HParams, settings: Settings) -> float:
    """Bytes of one checkpoint with what the optimiser remembers."""
    return 4 * hparams.n_params * (1 + SLOTS[settings.optimizer])


def check(hparams: HParams, settings: Settings) -> None:
    """Warns if the memory will hardly do; raises GPT2Error if the disk cannot take two checkpoints, old and new."""
    needed, available = memory(hparams, settings), machine.available_memory()
    if needed > available:
        warnings.warn(
            f"training will need about {_gb(needed)} of memory and {_gb(available)} are free; what saves most:"
            " memory_saving_gradients, a smaller batch_size, optimizer adafactor",
            stacklevel=2,
        )
    folder = _existing(settings.run_folder)
    size, free = 2 * checkpoint_size(hparams, settings), shutil.disk_usage(folder).free
    if free < size:
        raise GPT2Error(
            f"two checkpoints need {_gb(size)} and {folder.resolve()} has {_gb(free)} free; make room, give another"
            " checkpoint_dir, or optimizer adafactor, which keeps less"
        )
    most = size + 4 * hparams.n_params * (settings.keep - 1)
    if settings.keep and free < most:
        warnings.warn(
            f"{settings.keep} checkpoints and a best one may come to {_gb(most)}, and {_gb(free)} are free on the disk;"
            " a smaller keep takes less",
            stacklevel=2,
        )


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there already."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
