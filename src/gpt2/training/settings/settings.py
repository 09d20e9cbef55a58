"""What a training run is asked to do. No TensorFlow: mistakes are answered at once.

The names and defaults are those of nshepperd's train.py, from `dataset` to `val_every`, and of Tenoke's, `stop_after`.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpt2.data.documents import DEFAULT_COMBINE_CHARACTERS, CsvFormat
from gpt2.devices import check_threads
from gpt2.errors import UsageError
from gpt2.files import expand_path
from gpt2.formats.model_dir import DEFAULT_MODEL, DEFAULT_MODELS_DIR
from gpt2.hparams import HParams
from gpt2.request import BFLOAT16, FLOAT32, Sampling, check_integer, check_number
from gpt2.text.undecodable import check_encoding

ADAM, ADAMW, SGD, ADAFACTOR = OPTIMIZERS = ("adam", "adamw", "sgd", "adafactor")
SCHEDULES = ("constant", "linear", "cosine")
PRECISIONS = (FLOAT32, BFLOAT16)  # of the matrix products
LATEST, FRESH = "latest", "fresh"
ADAMW_DECAY = 0.01
HEAD_ROWS = 1024  # rows of logits that are in memory at once
QUERIES = 256  # of a slice of attention, which computes no scores for keys after its end
FINE_TUNING_RATE, NEW_MODEL_RATE = 0.00002, 0.001
AT_LEAST = {
    **dict.fromkeys(("batch_size", "accumulate_gradients", "val_batch_size", "val_batch_count"), 1),
    **dict.fromkeys(("sample_num", "print_every", "combine"), 1),
    **dict.fromkeys(("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer", "n_token_embd"), 1),
    **dict.fromkeys(("sample_every", "save_every", "val_every", "sample_length", "patience", "warmup_steps"), 0),
    **dict.fromkeys(("steps", "stop_after", "seed", "keep"), 0),
}
CONVERSIONS: dict[str, Callable[[Any], Any]] = {"int": int, "float": float, "bool": bool, "str": os.fspath}
MOST = (1 << 63) - 1  # of what is handed on as a 64-bit integer


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """A training run; `cli.training_flags` says what each of these means. Paths may be `Path`s.

    Raises UsageError for values that are not allowed or contradict each other.
    """

    dataset: str = ""  # must be given; only a run that goes on has its own, see `run_settings`
    model_name: str = DEFAULT_MODEL
    combine: int = DEFAULT_COMBINE_CHARACTERS
    encoding: str = "utf-8"
    batch_size: int = 1
    learning_rate: float | None = None
    accumulate_gradients: int = 1
    memory_saving_gradients: bool = False
    only_train_transformer_layers: bool = False
    optimizer: str = ADAM
    noise: float = 0.0
    top_k: int = 40
    top_p: float = 0.0
    restore_from: str = LATEST
    run_name: str = "run1"
    sample_every: int = 100
    sample_length: int | None = None
    sample_num: int = 1
    save_every: int = 1000
    val_dataset: str | None = None
    val_batch_size: int = 2
    val_batch_count: int = 40
    val_every: int = 0
    stop_after: int | None = None
    steps: int | None = None
    seed: int | None = None
    models_dir: str = DEFAULT_MODELS_DIR
    checkpoint_dir: str = "checkpoint"
    sample_dir: str = "samples"
    print_every: int = 1
    csv_header: bool = False
    csv_start: str = ""
    val_split: float = 0.1
    patience: int = 0
    save_minutes: float = 15.0
    keep: int = 5
    warmup_steps: int = 0
    lr_schedule: str = "constant"
    weight_decay: float | None = None
    clip_norm: float = 0.0
    dropout: float = 0.0
    precision: str = FLOAT32
    from_scratch: bool = False
    vocabulary: str | None = None
    n_vocab: int = 4096
    n_ctx: int = 256
    n_embd: int = 192
    n_head: int = 6
    n_layer: int = 6
    n_token_embd: int | None = None
    threads: int | None = None
    multi_gpu: bool = True

    def __post_init__(self) -> None:
        self._check_types()
        if not self.dataset:
            raise UsageError("dataset is missing: give the text to train on; only a run that goes on knows its own")
        self._check_choices()
        self._check_ranges()
        if self.steps is not None and self.stop_after is not None:
            raise UsageError("give steps (so many more updates) or stop_after (so many in all), not both")
        if self.lr_schedule != "constant" and self.steps is None and self.stop_after is None:
            raise UsageError(f"lr_schedule {self.lr_schedule} needs an end: give steps or stop_after")
        if self.patience and not self.val_every:
            raise UsageError("patience counts validations: give val_every too")
        if self.only_train_transformer_layers and self.from_scratch:
            raise UsageError("only_train_transformer_layers would leave a new model's embeddings untrained")
        if self.from_scratch:
            self.new_hparams(self.n_vocab)
        Sampling(top_k=self.top_k, top_p=self.top_p)

    def _check_types(self) -> None:
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            kind, _, optional = str(field.type).partition(" | ")
            if value is None and optional:
                continue
            if kind == "int":
                check_integer(name, value)
            elif kind == "float":
                check_number(name, value)
            elif kind == "bool" and not isinstance(value, bool):
                raise UsageError(f"{name} must be True or False, not {value!r}")
            elif kind == "str" and not isinstance(value, (str, os.PathLike)):
                raise UsageError(f"{name} must be text, not {value!r}")
            object.__setattr__(self, name, CONVERSIONS[kind](value))  # a Path and NumPy's numbers are let in

    def _check_choices(self) -> None:
        check_encoding(self.encoding)
        allowed = {"optimizer": OPTIMIZERS, "lr_schedule": SCHEDULES, "precision": PRECISIONS}
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise UsageError(
                    f"{name} must be {', '.join(values[:-1])} or {values[-1]}, not {getattr(self, name)!r}"
                )
        if self.run_name in ("", os.pardir) or Path(self.run_name).name != self.run_name:
            raise UsageError(f"run_name must be the name of a folder, not {self.run_name!r}")

    def _check_ranges(self) -> None:
        check_threads(self.threads)
        for name in ("noise", "dropout", "val_split"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} must be 0 or more and below 1, not {getattr(self, name)}")
        for name in ("learning_rate", "save_minutes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UsageError(f"{name} must be above 0, not {value}")
        for name in ("clip_norm", "weight_decay"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UsageError(f"{name} must be 0 (off) or more, not {value}")
        for name, least in AT_LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name} must be {least} or more, not {value}")
            if value is not None and value > MOST:
                raise UsageError(f"{name} must be below {MOST + 1}, not {value}")

    @property
    def run_folder(self) -> Path:
        return expand_path(self.checkpoint_dir) / self.run_name

    @property
    def csv(self) -> CsvFormat:
        return CsvFormat(self.csv_header, self.csv_start)

    @property
    def sample_folder(self) -> Path:
        return expand_path(self.sample_dir) / self.run_name

    @property
    def decay(self) -> float:
        """Weight decay, which is what adamw has and adam has not unless it is given."""
        return (ADAMW_DECAY if self.optimizer == ADAMW else 0.0) if self.weight_decay is None else self.weight_decay

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate that was given, or else what suits fine-tuning or a new model."""
        return self.learning_rate or (NEW_MODEL_RATE if self.from_scratch else FINE_TUNING_RATE)

    def new_hparams(self, n_vocab: int) -> HParams:
        """The sizes of a model that is trained from scratch."""
        of_token = None if self.n_token_embd == self.n_embd else self.n_token_embd
        return HParams(n_vocab, self.n_ctx, self.n_embd, self.n_head, self.n_layer, n_token_embd=of_token)

    def last_step(self, done: int) -> int | None:
        """The number of the run's last update, if it has made `done` of them; None is for ever."""
        return self.stop_after if self.steps is None else done + self.steps

    def rate(self, step: int, last: int | None) -> float:
        """The learning rate of update `step`, counted from 1: linear warm-up, then the schedule, 0 after `last`."""
        peak = self.peak_learning_rate
        if step <= self.warmup_steps:
            return peak * step / self.warmup_steps
        if self.lr_schedule == "constant" or last is None:
            return peak
        share = min(1.0, (step - 1 - self.warmup_steps) / max(1, last - self.warmup_steps))
        return peak * (1 - share if self.lr_schedule == "linear" else (1 + math.cos(math.pi * share)) / 2)
