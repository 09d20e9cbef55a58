"""The model that a command computes with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gpt2.cli.command import print_error_line
from gpt2.devices import check_threads
from gpt2.formats.directory import ModelDir
from gpt2.formats.model_dir import find_model, load_vocabulary
from gpt2.request import check_precision
from gpt2.text.vocabulary import Vocabulary

if TYPE_CHECKING:  # imports packages that --help does not need
    from gpt2.text_batch import Model


class ModelChoice(NamedTuple):
    """The flags that choose a model and its computation.

    Attributes:
        model_name: A name under `models_dir`, or the path of a model directory.
        models_dir: The folder of the models.
        precision: The precision of the weights in memory.
        threads: The number of threads that compute; None is all cores.
        cache: Whether packed weights are cached on disk.
    """

    model_name: str
    models_dir: str
    precision: str
    threads: int | None
    cache: bool = True

    def find(self) -> tuple[ModelDir, Vocabulary]:
        """Return the model's directory and vocabulary; its weights are not read yet.

        Raises:
            GPT2Error: The model is missing or damaged.
            UsageError: The precision or the number of threads is not allowed.
        """
        check_precision(self.precision)
        check_threads(self.threads)
        directory = find_model(self.model_name, self.models_dir)
        return directory, load_vocabulary(directory)

    def load(self, directory: ModelDir, vocabulary: Vocabulary) -> Model:
        """Return the model with its weights, and print the device that it computes on.

        Raises:
            GPT2Error: The model's files are damaged.
        """
        from gpt2 import generate

        model = generate.load_weights(directory, vocabulary, self.precision, print_error_line, self.threads, self.cache)
        device = f"{model.backend.device} ({self.precision}, {model.backend.name})"
        print_error_line(f"{directory.path.name} on {device}")
        return model
