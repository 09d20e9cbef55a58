"""What is asked of a sample: how its tokens are chosen, its prompt, its length. No TensorFlow: mistakes are answered
at once.
"""

from __future__ import annotations

import dataclasses
import math

from gpt2.errors import UsageError

FLOAT32, BFLOAT16, INT8 = PRECISIONS = ("float32", "bfloat16", "int8")  # of the weights in memory
DEFAULT_PRECISION = PRECISIONS[0]


def check_precision(precision: str) -> None:
    """Raises UsageError unless it is one of PRECISIONS."""
    if precision not in PRECISIONS:
        raise UsageError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How one sample's tokens are chosen.

    temperature: divides the logits before the filters; 0 is greedy.
    top_k: keep the k likeliest tokens, ties by lowest id; 0, or more than there are, keeps all.
    top_p: keep the smallest set of likeliest tokens whose probabilities reach p (Holtzman et al. 2019); 0 and 1 keep
        all.
    repetition_penalty: divide the positive and multiply the negative logits of tokens that are there already, prompt
        included, each token once (Keskar et al. 2019); 1 is off.

    Raises UsageError for a value out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UsageError(f"temperature must be 0 (greedy) or more, not {self.temperature}")
        if self.top_k < 0:
            raise UsageError(f"top_k must be 0 (off) or more, not {self.top_k}")
        if not 0 <= self.top_p <= 1:
            raise UsageError(f"top_p must be between 0 and 1 (both off), not {self.top_p}")
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise UsageError(f"repetition_penalty must be above 0 (1 is off), not {self.repetition_penalty}")


@dataclasses.dataclass(frozen=True)
class Request:
    """One sample to write.

    prompt: its text; None starts from nothing, that is from the vocabulary's end-of-text token.
    length: at most so many new tokens; a prompt and length beyond n_ctx make the window slide (`engine.batch.Batch`).
    seed, sample: together they name the random numbers, so that a sample does not depend on its batch.
    stop: writing ends where one of these would appear, and it is not part of the text.

    Raises UsageError for a prompt or a stop that is empty and for a negative length.
    """

    prompt: str | None
    length: int
    sampling: Sampling = Sampling()
    seed: int = 0
    sample: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.prompt == "":
            raise UsageError("the prompt is empty; None starts a text from nothing")
        if self.length < 0:
            raise UsageError(f"length must be 0 or more, not {self.length}")
        if "" in self.stop:
            raise UsageError("a stop string is empty")
