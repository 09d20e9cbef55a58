"""Estimates of the memory and disk space of a run, made before it starts. This module does not import TensorFlow.

The memory estimate is for the moment of an update that needs most memory. Sizes were counted in the traced functions,
and fitted to measured peaks where TensorFlow's allocator adds to them; `benchmarks/training_memory.py` compares both.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import NamedTuple

from gpt2 import devices
from gpt2.errors import GPT2Error
from gpt2.hparams import HParams
from gpt2.request import BFLOAT16, FLOAT32
from gpt2.training.settings.rules import ADAFACTOR, ADAM, ADAMW, SGD
from gpt2.training.settings.settings import TrainingSettings
from gpt2.training.update_slices import LOGIT_ROWS, QUERY_ROWS

TENSORFLOW_BYTES = 670e6  # memory of a process before it trains
OPTIMIZER_SLOTS = {ADAM: 2, ADAMW: 2, SGD: 0, ADAFACTOR: 0}  # float32 numbers for each trained weight
TOKEN_BYTES = 16  # for each token of the batch
MAX_MEMORY_FACTOR = 10  # above this factor, neither swap space nor a GPU helps


class BlockBytes(NamedTuple):
    """Memory of one block for each token."""

    per_embedding: float  # bytes for each number of the embedding, with an mlp of four times the embedding's size
    per_score: float  # bytes for each computed score of each head


class PrecisionBytes(NamedTuple):
    """Memory factors of one precision of the matrix products."""

    activations: BlockBytes  # stored for the backward pass: `block.BlockActivations`
    backward: BlockBytes  # additionally needed during a block's backward pass
    logit_bytes: float  # for each logit: the logit and its gradient, with bfloat16 also a bfloat16 copy
    allocator_overhead: float  # TensorFlow's allocator rarely cuts the memory of activations to size


PRECISION_BYTES = {
    FLOAT32: PrecisionBytes(BlockBytes(40, 5), BlockBytes(64, 12), logit_bytes=12, allocator_overhead=1.2),
    BFLOAT16: PrecisionBytes(BlockBytes(24, 2), BlockBytes(64, 16), logit_bytes=14, allocator_overhead=1.1),
}


def estimate_memory(hparams: HParams, settings: TrainingSettings) -> float:
    """Return the peak memory of training in bytes, within about 5 percent."""
    tokens = settings.batch_size * hparams.n_ctx
    gradients = 4 * _trained_weights(hparams, settings)
    gradient_sums = gradients if settings.accumulate_gradients > 1 else 0
    weights = 4 * hparams.n_params
    optimizer = OPTIMIZER_SLOTS[settings.optimizer] * gradients
    batch = TOKEN_BYTES * tokens * settings.accumulate_gradients
    return TENSORFLOW_BYTES + weights + optimizer + gradient_sums + batch + max(_update_moments(hparams, settings))


def _update_moments(hparams: HParams, settings: TrainingSettings) -> list[float]:
    """Return the bytes in use at each moment of an update that may need the most memory."""
    precision = PRECISION_BYTES[settings.precision]
    tokens = settings.batch_size * hparams.n_ctx
    saves_memory = settings.memory_saving_gradients
    gradients = 4 * _trained_weights(hparams, settings)
    gradient_sums = gradients if settings.accumulate_gradients > 1 else 0
    wte = 4 * hparams.n_vocab * hparams.n_embd
    wte_gradient = 0 if settings.only_train_transformer_layers else wte

    block = _block_memory(hparams, tokens, precision.activations)
    block_backward = _block_memory(hparams, tokens, precision.backward)
    block_inputs = 4 * tokens * hparams.n_embd * hparams.n_layer
    stored = block_inputs if saves_memory else block * hparams.n_layer * precision.allocator_overhead

    logit_row = precision.logit_bytes * hparams.n_vocab
    bfloat16_copies = wte if settings.precision == BFLOAT16 else 0  # of wte and its gradient
    wte_gradient_copies = 1 + 2 * (tokens > LOGIT_ROWS)
    head = min(tokens, LOGIT_ROWS) * logit_row + wte_gradient * wte_gradient_copies + bfloat16_copies
    clipped = gradients if settings.clip_norm else 0
    moments = [
        stored + head,  # the loss and the gradient of the logits
        stored + wte_gradient + block_backward + (block if saves_memory else 0),  # the last block's backward pass
        gradients + block + block_backward,  # the first block's backward pass, after the other blocks
        gradients + max(1.5 * gradient_sums, clipped),  # while gradients are summed or clipped
        gradients + (3 * wte if settings.optimizer == ADAFACTOR else 0),  # while the largest weight is updated
    ]
    if settings.val_every:
        moments.append(settings.val_batch_size * hparams.n_ctx * logit_row)
    return moments


def _block_memory(hparams: HParams, tokens: int, block_bytes: BlockBytes) -> float:
    """Return the bytes of one block for a batch of `tokens`."""
    mean_keys = (hparams.n_ctx + min(hparams.n_ctx, QUERY_ROWS)) / 2  # keys whose scores with a query are computed
    return tokens * (block_bytes.per_embedding * hparams.n_embd + block_bytes.per_score * hparams.n_head * mean_keys)


def _trained_weights(hparams: HParams, settings: TrainingSettings) -> int:
    """Return the number of trained weights."""
    outside_blocks = (hparams.n_vocab + hparams.n_ctx + 2) * hparams.n_embd
    return hparams.n_params - (outside_blocks if settings.only_train_transformer_layers else 0)


def estimate_checkpoint_size(hparams: HParams, settings: TrainingSettings) -> float:
    """Return the bytes of one checkpoint together with the optimizer's state."""
    return 4 * (hparams.n_params + OPTIMIZER_SLOTS[settings.optimizer] * _trained_weights(hparams, settings))


def check_resources(hparams: HParams, settings: TrainingSettings) -> None:
    """Compare the run's needs with the available memory and disk space, and warn if they are scarce.

    Raises:
        GPT2Error: The memory cannot be enough, or the disk has no space for two checkpoints, the old and the new one.
    """
    _check_memory(hparams, settings)
    _check_disk(hparams, settings)


def _check_memory(hparams: HParams, settings: TrainingSettings) -> None:
    needed = estimate_memory(hparams, settings)
    available = devices.available_memory()
    message = (
        f"training will need about {_gigabytes(needed)} of memory, but {_gigabytes(available)} are free; use"
        " memory_saving_gradients, a smaller batch_size or optimizer adafactor"
    )
    if needed > MAX_MEMORY_FACTOR * available:
        raise GPT2Error(message)
    if needed > available:
        warnings.warn(message, stacklevel=2)


def _check_disk(hparams: HParams, settings: TrainingSettings) -> None:
    folder = _existing_folder(settings.run_folder)
    free = shutil.disk_usage(folder).free
    two_checkpoints = 2 * estimate_checkpoint_size(hparams, settings)
    if free < two_checkpoints:
        raise GPT2Error(
            f"two checkpoints need {_gigabytes(two_checkpoints)} and {folder.resolve()} has {_gigabytes(free)} free;"
            " free some space, give another checkpoint_dir, or use optimizer adafactor, whose state is small"
        )
    all_checkpoints = two_checkpoints + 4 * hparams.n_params * (settings.keep - 1)
    if settings.keep and free < all_checkpoints:
        warnings.warn(
            f"{settings.keep} checkpoints and the best one can take {_gigabytes(all_checkpoints)}, and"
            f" {_gigabytes(free)} are free on the disk; a smaller keep needs less",
            stacklevel=2,
        )


def _existing_folder(folder: Path) -> Path:
    """Return the folder, or its nearest parent that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.2f} GB"
