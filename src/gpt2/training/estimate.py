"""Whether a run fits: memory and disk, estimated before it starts. No TensorFlow.

Of memory, what counts is the fullest moment of an update. Sizes were counted in the traced functions and fitted to
measured peaks where TensorFlow's allocator adds to them; `benchmarks/training_memory.py` compares.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

from gpt2 import devices
from gpt2.errors import GPT2Error
from gpt2.hparams import HParams
from gpt2.request import BFLOAT16, FLOAT32
from gpt2.training.settings.settings import ADAFACTOR, ADAM, ADAMW, HEAD_ROWS, QUERIES, SGD, TrainingSettings

TENSORFLOW = 670e6  # bytes, of a process that has trained nothing yet
OPTIMIZER_SLOTS = {ADAM: 2, ADAMW: 2, SGD: 0, ADAFACTOR: 0}  # numbers that are kept for each weight
# What a block keeps of a token until its backward pass, bytes: for each number of the embedding (`block.Kept`, with an
# mlp of four times its width), and for each score of a head that is computed.
KEPT = {FLOAT32: (40, 5), BFLOAT16: (24, 2)}
GAPS = {FLOAT32: 1.2, BFLOAT16: 1.1}  # in which TensorFlow's allocator puts what is kept: it seldom cuts them to size
PASSING = {FLOAT32: (64, 12), BFLOAT16: (64, 16)}  # what its backward pass takes besides, while it lasts
PER_LOGIT = {FLOAT32: 12, BFLOAT16: 14}  # logits, their gradient, both in the narrow type too
PER_TOKEN = 16  # of the batch itself
MANY_TIMES = 10  # so much more than there is, no swap space and no graphics card will make up for


def estimate_memory(hparams: HParams, settings: TrainingSettings) -> float:
    """Bytes that training takes at its peak, give or take a twentieth."""
    tokens = settings.batch_size * hparams.n_ctx
    inputs = 4 * tokens * hparams.n_embd * hparams.n_layer
    block = _of_block(hparams, tokens, *KEPT[settings.precision])
    passing = _of_block(hparams, tokens, *PASSING[settings.precision])
    saving = settings.memory_saving_gradients
    kept = inputs if saving else block * hparams.n_layer * GAPS[settings.precision]

    gradients, wte = 4 * _trained(hparams, settings), 4 * hparams.n_vocab * hparams.n_embd
    d_wte = 0 if settings.only_train_transformer_layers else wte
    row = PER_LOGIT[settings.precision] * hparams.n_vocab
    narrow = wte if settings.precision == BFLOAT16 else 0  # wte and its gradient once more
    head = min(tokens, HEAD_ROWS) * row + d_wte * (1 + 2 * (tokens > HEAD_ROWS)) + narrow
    sums = gradients if settings.accumulate_gradients > 1 else 0

    moments = [
        kept + head,  # the loss and its gradient for the logits
        kept + d_wte + passing + (block if saving else 0),  # the last block's backward pass
        gradients + block + passing,  # the first block's, the others having given back what they kept
        gradients + max(1.5 * sums, gradients if settings.clip_norm else 0),  # while they are added up or clipped
        gradients + (3 * wte if settings.optimizer == ADAFACTOR else 0),  # while the largest weight is updated
    ]
    if settings.val_every:
        moments.append(settings.val_batch_size * hparams.n_ctx * row)
    batch = PER_TOKEN * tokens * settings.accumulate_gradients
    return (
        TENSORFLOW
        + 4 * hparams.n_params
        + OPTIMIZER_SLOTS[settings.optimizer] * gradients
        + sums
        + batch
        + max(moments)
    )


def _of_block(hparams: HParams, tokens: int, per_embedding: float, per_score: float) -> float:
    seen = (hparams.n_ctx + min(hparams.n_ctx, QUERIES)) / 2  # keys whose scores with a query are computed
    return tokens * (per_embedding * hparams.n_embd + per_score * hparams.n_head * seen)


def _trained(hparams: HParams, settings: TrainingSettings) -> int:
    """How many weights are trained."""
    others = (hparams.n_vocab + hparams.n_ctx + 2) * hparams.n_embd
    return hparams.n_params - (others if settings.only_train_transformer_layers else 0)


def estimate_checkpoint_size(hparams: HParams, settings: TrainingSettings) -> float:
    """Bytes of one checkpoint with what the optimiser remembers."""
    return 4 * (hparams.n_params + OPTIMIZER_SLOTS[settings.optimizer] * _trained(hparams, settings))


def check_resources(hparams: HParams, settings: TrainingSettings) -> None:
    """Warns if the memory will hardly do; raises GPT2Error if it cannot, or the disk cannot take two checkpoints, old
    and new."""
    needed, available = estimate_memory(hparams, settings), devices.available_memory()
    said = (
        f"training will need about {_gb(needed)} of memory and {_gb(available)} are free; what saves most:"
        " memory_saving_gradients, a smaller batch_size, optimizer adafactor"
    )
    if needed > MANY_TIMES * available:
        raise GPT2Error(said)
    if needed > available:
        warnings.warn(said, stacklevel=2)
    folder = _existing(settings.run_folder)
    size, free = 2 * estimate_checkpoint_size(hparams, settings), shutil.disk_usage(folder).free
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
    return f"{size / 1e9:,.2f} GB"
