"""What is asked of a sample: how its tokens are chosen, its prompt, its length. No TensorFlow: mistakes are answered
at once.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from gpt2.errors import UsageError

FLOAT32, BFLOAT16, INT8 = PRECISIONS = ("float32", "bfloat16", "int8")  # of the weights in memory
DEFAULT_PRECISION = PRECISIONS[0]
PENALTIES = 0.001, 1000.0  # far beyond these, logits would no longer be numbers
SUBTRACTED = -2.0, 2.0  # frequency and presence penalties, as OpenAI's API takes them
BIAS = 1000.0  # added to or subtracted from a logit, at most: more than all that there are
SEEDS = 2**64
Prompt = str | Sequence[int] | None


def check_precision(precision: str) -> None:
    """Raises UsageError unless it is one of PRECISIONS."""
    if precision not in PRECISIONS:
        raise UsageError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")


def check_integer(name: str, value: Any) -> None:
    """Raises UsageError for anything but a whole number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise UsageError(f"{name} must be a whole number, not {value!r}")


def check_number(name: str, value: Any) -> None:
    """Raises UsageError for what is no number, and for infinity and NaN."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise UsageError(f"{name} must be a number, not {value!r}")


def require_integer(name: str, value: Any, least: int = 0) -> int:
    """The value. Raises UsageError unless it is a whole number, and at least so large."""
    check_integer(name, value)
    if value < least:
        raise UsageError(f"{name} must be a whole number of at least {least}, not {value}")
    return value


def check_range(name: str, value: Any, least: float, most: float, off: str) -> None:
    """Raises UsageError unless the value is a number from `least` to `most`; off: which of them mean nothing."""
    check_number(name, value)
    if not least <= value <= most:
        allowed = f"from {least:g} to {most:g}" if math.isfinite(most) else f"of {least:g} or more"
        raise UsageError(f"{name} must be a number {allowed} ({off}), not {value!r}")


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How one sample's tokens are chosen.

    temperature: divides the logits before the filters; 0 is greedy.
    top_k: keep the k likeliest tokens, ties by lowest id; 0, or more than there are, keeps all.
    top_p: keep the smallest set of likeliest tokens whose probabilities reach p (Holtzman et al. 2019); 0 and 1 keep
        all.
    repetition_penalty: divide the positive and multiply the negative logits of tokens that are there already, prompt
        included, each token once (Keskar et al. 2019); 1 is off.
    frequency_penalty, presence_penalty: subtract, from the logits of tokens that are new in the text, the one for each
        time that they are there and the other once, as OpenAI's API does; 0 is off.
    min_p: keep the tokens that are at least so likely as this share of the likeliest (Nguyen et al. 2024); 0 is off.
    logit_bias: what is added to the logits of some ids, before all else.

    Raises UsageError for a value out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    min_p: float = 0.0
    logit_bias: Mapping[int, float] = dataclasses.field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check_range("temperature", self.temperature, 0, math.inf, "0 is greedy")
        require_integer("top_k", self.top_k)
        check_range("top_p", self.top_p, 0, 1, "0 and 1 are off")
        check_range("repetition_penalty", self.repetition_penalty, *PENALTIES, "1 is off")
        check_range("frequency_penalty", self.frequency_penalty, *SUBTRACTED, "0 is off")
        check_range("presence_penalty", self.presence_penalty, *SUBTRACTED, "0 is off")
        check_range("min_p", self.min_p, 0, 1, "0 is off")
        for token, bias in self.logit_bias.items():
            require_integer("an id of logit_bias", token)
            check_range("logit_bias", bias, -BIAS, BIAS, "0 is off")


@dataclasses.dataclass(frozen=True)
class Request:
    """One sample to write.

    prompt: its text, or its ids; None starts from nothing, that is from the vocabulary's end-of-text token.
    length: at most so many new tokens; a prompt and length beyond n_ctx make the window slide (`engine.batch.Batch`).
    seed, sample: together they name the random numbers, so that a sample does not depend on its batch.
    stop: one or several strings; writing ends where one of them would appear, and it is not part of the text.
    end_of_text: whether writing ends at the vocabulary's end-of-text token too.
    logprobs: how many of the likeliest tokens come with each one, besides its own log-probability.
    echo: whether the prompt's tokens come with theirs too.

    Raises UsageError for a prompt or a stop that is empty, and for a length, seed or sample that is no whole number of
    at least 0 (below 2**64, for the latter two).
    """

    prompt: Prompt
    length: int
    sampling: Sampling = Sampling()
    seed: int = 0
    sample: int = 0
    stop: str | Sequence[str] = ()
    end_of_text: bool = False
    logprobs: int = 0
    echo: bool = False

    def __post_init__(self) -> None:
        _check_prompt(self.prompt)
        require_integer("length", self.length)
        require_integer("logprobs", self.logprobs)
        for name in ("seed", "sample"):
            if require_integer(name, getattr(self, name)) >= SEEDS:
                raise UsageError(f"{name} must be below 2**64, not {getattr(self, name)}")
        object.__setattr__(self, "stop", _strings(self.stop))


def _check_prompt(prompt: Any) -> None:
    if prompt is None or isinstance(prompt, str):
        wrong = prompt == ""
    elif isinstance(prompt, Sequence) and not isinstance(prompt, bytes):
        for token in prompt:
            require_integer("an id of the prompt", token)
        wrong = not prompt
    else:
        said = reprlib.repr(prompt)
        raise UsageError(f"the prompt must be text, ids, or None, which starts from nothing; not {said}")
    if wrong:
        raise UsageError("the prompt is empty; None starts a text from nothing")


def _strings(stop: Any) -> tuple[str, ...]:
    """One or several stop strings. Raises UsageError for what is none."""
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    if not all(isinstance(one, str) and one for one in stops):
        raise UsageError(f"stop must be text that is not empty, or several such, not {stop!r}")
    return stops
