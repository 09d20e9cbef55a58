"""The models that the server offers, by their names."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable

from gpt2.formats.directory import ModelDir
from gpt2.server.errors import ApiError, quote
from gpt2.server.scheduler import Scheduler
from gpt2.server.schema import ModelCard
from gpt2.text_batch import Model


@dataclasses.dataclass(frozen=True)
class ServedModel:
    """A model and the scheduler that generates its texts.

    Attributes:
        name: The name by which clients choose it.
        model: The model.
        scheduler: Its scheduler.
        precision: The weights' precision in memory.
        directory: The model's files, from which `/insight/layers` reads the weights again; None if they are unknown.
        created: Time of loading, in seconds since 1970.
    """

    name: str
    model: Model
    scheduler: Scheduler
    precision: str
    directory: ModelDir | None = None
    created: int = dataclasses.field(default_factory=lambda: int(time.time()))

    @property
    def card(self) -> ModelCard:
        """The description that clients get."""
        hparams = self.model.hparams
        return ModelCard(
            id=self.name,
            created=self.created,
            n_ctx=hparams.n_ctx,
            n_vocab=hparams.n_vocab,
            n_params=hparams.n_params,
            precision=self.precision,
        )


class ServedModels(dict[str | None, ServedModel]):
    """The models by their names; None stands for the first one, and an unknown name raises ApiError."""

    def __init__(self, models: Iterable[ServedModel]) -> None:
        """Create the mapping, in the order of the models."""
        super().__init__({served.name: served for served in models})

    def __missing__(self, name: str | None) -> ServedModel:
        """Return the default model for None, and raise ApiError for an unknown name."""
        if name is None:
            return next(iter(self.values()))
        names = ", ".join(served.name for served in self.values())
        message = f"model {quote(name)} is not served here; choose one of: {names}"
        raise ApiError(404, message, "model", "model_not_found")
