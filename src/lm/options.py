"""The flags of transformer-lm's command gpt-2."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from gpt2.cli.declarations import flags_of
from gpt2.errors import UsageError
from gpt2.files import expand_path
from gpt2.flags import Flag
from gpt2.hparams import HParams
from gpt2.request import BFLOAT16, check_number, require_integer
from gpt2.training.settings.settings import TrainingSettings

TRAINING_FLAGS = flags_of(TrainingSettings)


@dataclasses.dataclass(frozen=True)
class TransformerLmOptions:
    """The parameters of transformer-lm's command `gpt-2`, with its defaults.

    Raises:
        UsageError: If a value is not allowed.
    """

    run_path: Annotated[
        str, Flag(expects="a folder", help="the run's folder, which is a model directory; an existing run is resumed")
    ]
    dataset_path: Annotated[
        str, Flag(expects="a folder", help="folder with train.npy and valid.npy, as sp-encode writes them")
    ]
    sp_model_path: Annotated[str, Flag(expects="a file", help="the vocabulary, as sp-train writes it")]
    epochs: Annotated[int, Flag(help="number of passes over the training text, in all")] = 10
    lr: Annotated[float, Flag(help="learning rate")] = 2.5e-4
    batch_size: Annotated[int, Flag(help="windows computed together, on each device")] = 2
    g_accum_gradients: Annotated[
        int | None, Flag(help="batches per update, on all devices together; one per device if not given")
    ] = None
    gradient_checkpointing: Annotated[bool, TRAINING_FLAGS["memory_saving_gradients"]] = False
    warmup_steps: Annotated[int, TRAINING_FLAGS["warmup_steps"]] = 0
    n_ctx: Annotated[int, Flag(help="window, in tokens")] = 1024
    n_ctx_min: Annotated[int | None, Flag(help="not supported: windows of several lengths")] = None
    n_embed: Annotated[int, Flag(help="width of the embeddings")] = 768
    n_head: Annotated[int, Flag(help="number of attention heads")] = 12
    n_layer: Annotated[int, Flag(help="number of layers")] = 12
    n_hidden: Annotated[int | None, Flag(help="width of the layers, n_embed if not given")] = None
    clean: Annotated[bool, Flag(help="remove the run in run_path first")] = False
    log_every: Annotated[int, Flag(help="updates between log lines")] = 20
    save_every: Annotated[int, Flag(help="updates between checkpoints")] = 10000
    validate_every: Annotated[int | None, Flag(help="updates between validations, save_every if not given")] = None
    only_validate: Annotated[bool, Flag(help="print the run's losses on valid.npy and do not train")] = False
    max_tokens: Annotated[int | None, Flag(help="end when the run has seen this many tokens in all")] = None
    use_amp: Annotated[bool, Flag(help="compute the matrix products in bfloat16")] = False
    sample_sentences: Annotated[bool, Flag(help="ignored: windows start anywhere")] = False
    verbose: Annotated[bool, Flag(help="ignored")] = False
    master_port: Annotated[str | None, Flag(expects="a port", help="ignored: several machines need TF_CONFIG")] = None
    master_addr: Annotated[str | None, Flag(expects="an address", help="ignored")] = None

    def __post_init__(self) -> None:
        """Check the values."""
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
        HParams(1, self.n_ctx, self.layer_width, self.n_head, self.n_layer, n_token_embd=self.n_embed)
        if self.n_ctx_min not in (None, self.n_ctx):
            raise UsageError("n_ctx_min, for windows of several lengths, is not supported; leave it out")
        if not self.folder.name:
            raise UsageError(f"run_path must be the name of a folder for the run, not {self.run_path!r}")

    @property
    def folder(self) -> Path:
        """The run's folder, as an absolute path."""
        return expand_path(self.run_path).absolute()

    @property
    def layer_width(self) -> int:
        """The width of the layers."""
        return self.n_hidden or self.n_embed

    @property
    def validation_interval(self) -> int:
        """The number of updates between validations."""
        return self.save_every if self.validate_every is None else self.validate_every

    def remarks(self) -> Iterator[str]:
        """Yield one line for each parameter that has another effect than in transformer-lm."""
        if self.use_amp:
            yield f"use_amp: the matrix products are computed in {BFLOAT16}"
        if self.sample_sentences:
            yield "sample_sentences is ignored: windows start anywhere in the text"
        if self.verbose:
            yield "verbose is ignored: the windows are not shown"
        if self.master_port or self.master_addr:
            yield "master_port and master_addr are ignored: set TF_CONFIG for several machines; GPUs need no settings"
