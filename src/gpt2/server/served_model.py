"""What a server offers: models under names, each with the desk at which its texts are written."""

from __future__ import annotations

import dataclasses
import time

from gpt2.formats.directory import ModelDir
from gpt2.generate import Model
from gpt2.server import schema
from gpt2.server.scheduler import Scheduler


@dataclasses.dataclass(frozen=True)
class ServedModel:
    """name: by which clients choose it. precision: of its weights in memory. directory: of its files, from which
    `/insight/layers` reads them once more."""

    name: str
    model: Model
    desk: Scheduler
    precision: str
    directory: ModelDir | None = None
    created: int = dataclasses.field(default_factory=lambda: int(time.time()))

    def card(self) -> schema.ModelCard:
        hparams = self.model.hparams
        return schema.ModelCard(
            id=self.name,
            created=self.created,
            n_ctx=hparams.n_ctx,
            n_vocab=hparams.n_vocab,
            n_params=hparams.n_params,
            precision=self.precision,
        )
