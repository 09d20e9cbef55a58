"""The settings of a training run. This module does not import TensorFlow, so mistakes are reported at once.

The names and defaults from `dataset` to `val_every` come from nshepperd's train.py, and `stop_after` from Tenoke's.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from gpt2.data.documents import DEFAULT_COMBINE_CHARACTERS, CsvFormat
from gpt2.devices import check_threads
from gpt2.errors import UsageError
from gpt2.files import expand_path
from gpt2.flags import Column, CsvHeader, Encoding, Flag, ModelsDir, NoHeader, Threads
from gpt2.formats.model_dir import DEFAULT_MODEL, DEFAULT_MODELS_DIR
from gpt2.hparams import HParams
from gpt2.request import FLOAT32, Sampling, check_integer, check_number
from gpt2.text.undecodable import check_encoding
from gpt2.training.settings.rules import ADAM, ADAMW, CONSTANT, LINEAR, OPTIMIZERS, PRECISIONS, RULES, SCHEDULES

LATEST = "latest"  # restore_from: resume the run if it has a checkpoint, else start it
FRESH = "fresh"  # restore_from: start the run from step 0
ADAMW_WEIGHT_DECAY = 0.01
FINE_TUNING_RATE = 0.00002  # default learning rate
NEW_MODEL_RATE = 0.001  # default learning rate of a model trained from scratch
CONVERSIONS: dict[type, Callable[[Any], Any]] = {int: int, float: float, bool: bool, str: os.fspath}
MAX_INTEGER = (1 << 63) - 1  # TensorFlow receives integers as 64-bit numbers


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """The settings of a training run; they are also the flags of train.py.

    `dataset` is required, except when a run is resumed: see `run_settings`. Paths may be `Path` objects, and numbers
    may be NumPy scalars. `rules.RULES` says which settings depend on each other and which a resumed run can change.

    Raises:
        UsageError: A value is not allowed, or two values contradict each other.
    """

    dataset: Annotated[
        str,
        Flag(
            expects="a path",
            help="text to train on: a file, folder or glob, also .gz, .csv and .tsv, or output of encode.py; optional"
            " when resuming a run, like every other setting",
        ),
    ] = ""
    model_name: Annotated[
        str,
        Flag(expects="a name", help="model to start from: a name under models_dir or the path of a model directory"),
    ] = DEFAULT_MODEL
    combine: Annotated[
        int, Flag(help="ignored, for old command lines: documents always follow one another", minimum=1)
    ] = DEFAULT_COMBINE_CHARACTERS
    encoding: Encoding = "utf-8"
    batch_size: Annotated[int, Flag(help="windows of n_ctx tokens computed together, on each device", minimum=1)] = 1
    learning_rate: Annotated[
        float | None,
        Flag(
            help=f"learning rate of the optimizer; by default {FINE_TUNING_RATE:f}, from scratch {NEW_MODEL_RATE};"
            " 0.0006 suits sgd"
        ),
    ] = None
    accumulate_gradients: Annotated[
        int, Flag(help="number of batches whose gradients are averaged for each update", minimum=1)
    ] = 1
    memory_saving_gradients: Annotated[
        bool, Flag(help="compute each layer twice instead of storing its activations: far less memory")
    ] = False
    only_train_transformer_layers: Annotated[bool, Flag(help="do not train the embeddings")] = False
    optimizer: Annotated[
        str,
        Flag(expects="a name", help=f"{', '.join(OPTIMIZERS)}; sgd needs the least memory, then adafactor"),
    ] = ADAM
    noise: Annotated[
        float, Flag(help="share of the input tokens that are replaced by random ones; the targets stay as they are")
    ] = 0.0
    top_k: Annotated[
        int, Flag(help="for samples during training: sample from the k most likely tokens; 0 turns it off")
    ] = 40
    top_p: Annotated[float, Flag(help="for samples during training: nucleus sampling; above 0 it replaces top_k")] = 0.0
    restore_from: Annotated[
        str,
        Flag(help="latest: resume the run, or start it; fresh: start it again; or the path of a checkpoint"),
    ] = LATEST
    run_name: Annotated[
        str, Flag(expects="a name", help="name of the run's folder in checkpoint_dir and in sample_dir")
    ] = "run1"
    sample_every: Annotated[int, Flag(help="generate samples after every N updates; 0 turns it off", minimum=0)] = 100
    sample_length: Annotated[
        int | None, Flag(help="tokens of each sample; by default 1023, or as many as fit the window", minimum=0)
    ] = None
    sample_num: Annotated[int, Flag(help="number of samples each time", minimum=1)] = 1
    save_every: Annotated[
        int,
        Flag(help="save after every N updates; 0 saves only every save_minutes", minimum=0),
    ] = 1000
    val_dataset: Annotated[
        str | None,
        Flag(expects="a path", help="text to validate on; by default val_split holds out a part of dataset"),
    ] = None
    val_batch_size: Annotated[int, Flag(help="windows of text that are validated together", minimum=1)] = 2
    val_batch_count: Annotated[
        int,
        Flag(help="number of validation batches, spread evenly over the text; fewer if it is short", minimum=1),
    ] = 40
    val_every: Annotated[int, Flag(help="validate after every N updates; 0 turns it off", minimum=0)] = 0
    stop_after: Annotated[int | None, Flag(help="end when the run has made N updates in all", minimum=0)] = None
    steps: Annotated[int | None, Flag(help="make N more updates, then end", minimum=0)] = None
    seed: Annotated[
        int | None,
        Flag(help="seed of all random numbers; drawn and saved with the run if not given", minimum=0),
    ] = None
    models_dir: ModelsDir = DEFAULT_MODELS_DIR
    checkpoint_dir: Annotated[str, Flag(expects="a folder", help="folder for the folders of all runs")] = "checkpoint"
    sample_dir: Annotated[str, Flag(expects="a folder", help="folder for the samples of all runs")] = "samples"
    print_every: Annotated[
        int, Flag(help="if stdout is not a terminal, print a line after every N updates", minimum=1)
    ] = 1
    csv_header: CsvHeader = False
    csv_start: Annotated[str, Flag(help="text before each document of a .csv, such as <|startoftext|>")] = ""
    column: Column = None
    no_header: NoHeader = False
    csv_first_column: Annotated[
        bool, Flag(help="read the first column of each .csv, whatever its name, as gpt-2-simple does")
    ] = False
    val_split: Annotated[float, Flag(help="share of dataset, at its end, that is held out if val_every is given")] = 0.1
    patience: Annotated[int, Flag(help="end after N validations without a better loss; 0 turns it off", minimum=0)] = 0
    save_minutes: Annotated[float, Flag(help="save at least every N minutes")] = 15.0
    keep: Annotated[int, Flag(help="number of checkpoints to retain; 0 retains all", minimum=0)] = 5
    warmup_steps: Annotated[
        int, Flag(help="number of updates in which the learning rate rises to its full value", minimum=0)
    ] = 0
    lr_schedule: Annotated[
        str,
        Flag(
            expects="a name",
            help=f"learning rate after the warmup: {' or '.join(SCHEDULES)}; the last two decay to 0",
        ),
    ] = CONSTANT
    weight_decay: Annotated[
        float | None, Flag(help="decoupled weight decay of matrices; by default 0.01 with adamw, else 0")
    ] = None
    clip_norm: Annotated[float, Flag(help="maximum norm of the gradients; 0 turns it off, 1 is usual")] = 0.0
    dropout: Annotated[
        float, Flag(help="share of activations that are set to zero; 0.1 or 0.2 helps if the data set is small")
    ] = 0.0
    precision: Annotated[
        str,
        Flag(
            expects="a name",
            help=f"precision of the matrix products: {' or '.join(PRECISIONS)}; bfloat16 is faster if supported",
        ),
    ] = FLOAT32
    from_scratch: Annotated[
        bool,
        Flag(help="train a new model of the sizes below; a resumed run keeps its sizes"),
    ] = False
    vocabulary: Annotated[
        str | None,
        Flag(
            expects="a path",
            help="the new model's vocabulary: a folder, or a SentencePiece .model; by default a vocabulary of n_vocab"
            " tokens is trained on dataset",
        ),
    ] = None
    n_vocab: Annotated[int, Flag(help="number of tokens of a new vocabulary", minimum=1)] = 4096
    n_ctx: Annotated[int, Flag(help="window of a new model, in tokens", minimum=1)] = 256
    n_embd: Annotated[int, Flag(help="embedding size of a new model", minimum=1)] = 192
    n_head: Annotated[int, Flag(help="number of attention heads of a new model", minimum=1)] = 6
    n_layer: Annotated[int, Flag(help="number of transformer blocks of a new model", minimum=1)] = 6
    n_token_embd: Annotated[
        int | None,
        Flag(
            help="width of a new model's token embeddings, n_embd if not given; a smaller width saves memory", minimum=1
        ),
    ] = None
    threads: Threads = None
    multi_gpu: Annotated[bool, Flag(help="train on all GPUs of the machine, with batch_size windows on each")] = True

    def __post_init__(self) -> None:
        """Convert the values to their types and check them."""
        for field in dataclasses.fields(self):
            self._convert(field)
        if not self.dataset:
            raise UsageError("dataset is missing: give the text to train on; it is optional only when resuming a run")
        for name, declaration in declared_settings().items():
            self._check_minimum(name, declaration.flag.minimum)
            RULES[name].check(name, getattr(self, name))
        check_encoding(self.encoding)
        check_threads(self.threads)
        if self.run_name in ("", os.pardir) or Path(self.run_name).name != self.run_name:
            raise UsageError(f"run_name must be the name of a folder, not {self.run_name!r}")
        self._check_combinations()

    def _convert(self, field: dataclasses.Field) -> None:
        """Convert one value to the type of its field. Raise UsageError if it has another type."""
        name = field.name
        value = getattr(self, name)
        kind = declared_settings()[name].type
        if value is None and field.default is None:
            return
        if kind is int:
            check_integer(name, value)
        elif kind is float:
            check_number(name, value)
        elif kind is bool and not isinstance(value, bool):
            raise UsageError(f"{name} must be True or False, not {value!r}")
        elif kind is str and not isinstance(value, (str, os.PathLike)):
            raise UsageError(f"{name} must be text, not {value!r}")
        object.__setattr__(self, name, CONVERSIONS[kind](value))  # the dataclass is frozen

    def _check_minimum(self, name: str, minimum: int | None) -> None:
        """Raise UsageError if an integer is too small or too large."""
        value = getattr(self, name)
        if value is None or minimum is None:
            return
        if value < minimum:
            raise UsageError(f"{name} must be {minimum} or more, not {value}")
        if value > MAX_INTEGER:
            raise UsageError(f"{name} must be below {MAX_INTEGER + 1}, not {value}")

    def _check_combinations(self) -> None:
        """Raise UsageError for values that contradict each other."""
        has_end = self.steps is not None or self.stop_after is not None
        if self.steps is not None and self.stop_after is not None:
            raise UsageError("give steps (N more updates) or stop_after (N updates in all), not both")
        if self.no_header and self.csv_header:
            raise UsageError("give csv_header or no_header, not both")
        if self.column is not None and self.csv_first_column:
            raise UsageError("give csv_first_column or column, not both")
        if self.lr_schedule != CONSTANT and not has_end:
            raise UsageError(f"lr_schedule {self.lr_schedule} needs an end: give steps or stop_after")
        if self.patience and not self.val_every:
            raise UsageError("patience counts validations: give val_every as well")
        if self.only_train_transformer_layers and self.from_scratch:
            raise UsageError(
                "only_train_transformer_layers would leave a new model's embeddings untrained: give it or from_scratch,"
                " not both"
            )
        if self.from_scratch:
            self.new_hparams(self.n_vocab)
        Sampling(top_k=self.top_k, top_p=self.top_p)

    @property
    def run_folder(self) -> Path:
        """The run's folder, below `checkpoint_dir`."""
        return expand_path(self.checkpoint_dir) / self.run_name

    @property
    def sample_folder(self) -> Path:
        """The folder of the run's samples, below `sample_dir`."""
        return expand_path(self.sample_dir) / self.run_name

    @property
    def datasets(self) -> list[str]:
        """The paths of all text that the run reads."""
        return [self.dataset, *([self.val_dataset] if self.val_dataset and self.val_every else [])]

    @property
    def csv_format(self) -> CsvFormat:
        """The format of the .csv and .tsv files in the data set."""
        return CsvFormat(not self.no_header, self.column, self.csv_start, self.csv_first_column)

    @property
    def effective_weight_decay(self) -> float:
        """The weight decay; by default ADAMW_WEIGHT_DECAY for adamw and 0 for the other optimizers."""
        if self.weight_decay is not None:
            return self.weight_decay
        return ADAMW_WEIGHT_DECAY if self.optimizer == ADAMW else 0.0

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate; if it is not given, a default for fine-tuning or for a new model."""
        return self.learning_rate or (NEW_MODEL_RATE if self.from_scratch else FINE_TUNING_RATE)

    def new_hparams(self, n_vocab: int) -> HParams:
        """Return the hyperparameters of a model trained from scratch."""
        n_token_embd = None if self.n_token_embd == self.n_embd else self.n_token_embd
        return HParams(n_vocab, self.n_ctx, self.n_embd, self.n_head, self.n_layer, n_token_embd=n_token_embd)

    def last_step(self, steps_done: int) -> int | None:
        """Return the number of the run's last update after `steps_done` updates; None if the run has no end."""
        return self.stop_after if self.steps is None else steps_done + self.steps

    def learning_rate_at(self, step: int, last_step: int | None) -> float:
        """Return the learning rate of update `step`, counted from 1.

        It rises linearly during the warm-up, then follows the schedule, which reaches 0 after `last_step`.
        """
        peak = self.peak_learning_rate
        if step <= self.warmup_steps:
            return peak * step / self.warmup_steps
        if self.lr_schedule == CONSTANT or last_step is None:
            return peak
        progress = min(1.0, (step - 1 - self.warmup_steps) / max(1, last_step - self.warmup_steps))
        return peak * (1 - progress if self.lr_schedule == LINEAR else (1 + math.cos(math.pi * progress)) / 2)


class Declaration(NamedTuple):
    """The declaration of a setting."""

    type: type  # of its values other than None
    flag: Flag


@functools.cache
def declared_settings() -> dict[str, Declaration]:
    """Return the declarations of all settings by name."""
    declarations = {}
    for name, annotation in typing.get_type_hints(TrainingSettings, include_extras=True).items():
        declared, flag = typing.get_args(annotation)
        optional_type = typing.get_args(declared)  # (int, NoneType) for `int | None`
        declarations[name] = Declaration(optional_type[0] if optional_type else declared, flag)
    return declarations
