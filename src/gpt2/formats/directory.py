"""An opened model of any format, and the protocol that the module of each format follows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from gpt2.hparams import HParams
from gpt2.text.vocabulary import Vocabulary

if TYPE_CHECKING:  # imports NumPy, which the error for a wrong model name does not need
    from gpt2.formats.weights import Weights


class ModelDir(NamedTuple):
    """An opened model whose weights and vocabulary are read on request.

    Attributes:
        path: The model's folder, or its file if the model is a single file.
        hparams: The model's hyperparameters.
        weights_path: The prefix of the checkpoint's files, or the file that holds the weights.
        read_weights: Called with `weights_path` and `hparams`, returns the weights.
        read_vocabulary: Returns the vocabulary.
    """

    path: Path
    hparams: HParams
    weights_path: Path
    read_weights: Callable[[Path, HParams], Weights]
    read_vocabulary: Callable[[], Vocabulary]

    def read(self) -> Weights:
        """Return the weights by their names in OpenAI's checkpoints.

        Raises:
            GPT2Error: The weights are damaged. Some damage is detected only when the arrays are read.
        """
        return self.read_weights(self.weights_path, self.hparams)


class ModelFormat(Protocol):
    """The functions of a module that reads one format of models."""

    def is_model(self, path: Path) -> bool:
        """Return whether `path` looks like a model of this format, complete or not.

        Args:
            path: A folder, a file, or a path that does not exist.

        Raises:
            UnreadableFileError: The path cannot be examined.
        """

    def open_model(self, path: Path, advice: str) -> ModelDir:
        """Check that the model's files exist with a plausible size, and read its hyperparameters.

        Args:
            path: A path for which `is_model` is true.
            advice: The remedy for missing or damaged files, which ends the error message.

        Raises:
            GPT2Error: A file is missing, cut off or unreadable, or is not a GPT-2. The message names the file.
        """
