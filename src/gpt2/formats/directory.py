"""A model whose files are there, whatever their format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gpt2.hparams import HParams
from gpt2.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from gpt2.formats.weights import Weights  # NumPy, which a wrong name is answered without


class ModelDir(NamedTuple):
    """What the reader of a format found; weights and vocabulary are read when they are asked for."""

    path: Path  # the folder, or the file of a model that is one
    hparams: HParams
    weights: Path  # the prefix of a checkpoint's files, or what else holds them
    read_weights: Callable[[Path, HParams], Weights]
    read_vocabulary: Callable[[], Vocabulary]

    def read(self) -> Weights:
        """The weights, by their names; raises GPT2Error, perhaps only when they are asked for, if they are damaged."""
        return self.read_weights(self.weights, self.hparams)
