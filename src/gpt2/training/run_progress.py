"""The progress of a training run, without its weights and its optimizer's state."""

from __future__ import annotations

import dataclasses

LOSS_DECAY = 0.99  # of the smoothed loss, for each update; as in the old tools


@dataclasses.dataclass
class RunProgress:
    """The state of a run without its weights and its optimizer. The field names are the keys of `training-N.json`."""

    step: int = 0  # number of updates so far
    seed: int = 0  # together with the step number it determines all random numbers and the position in the data
    optimizer: str = ""
    vocabulary: str = ""  # the vocabulary's fingerprint
    loss_sum: float = 0.0  # the smoothed loss is loss_sum / loss_weight
    loss_weight: float = 0.0
    seconds: float = 0.0  # training time
    best_loss: float | None = None  # lowest validation loss
    best_step: int = 0  # its step; 0 is the model that training started from, which is not saved in `best`
    worse: int = 0  # validations since the best one

    @property
    def smoothed_loss(self) -> float:
        """The old tools' moving average of the loss; NaN before the first update."""
        return self.loss_sum / self.loss_weight if self.loss_weight else float("nan")

    def add_loss(self, loss: float) -> None:
        """Add an update's loss to the moving average."""
        self.loss_sum = self.loss_sum * LOSS_DECAY + loss
        self.loss_weight = self.loss_weight * LOSS_DECAY + 1
