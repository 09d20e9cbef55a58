"""Requests for text: the prompt, the length and the sampling parameters, without TensorFlow.

Values are checked when an object is created, so that a mistake is reported before any work starts.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from gpt2.errors import UsageError, check_choice

FLOAT32, BFLOAT16, INT8 = PRECISIONS = ("float32", "bfloat16", "int8")  # of weights in memory
DEFAULT_PRECISION = FLOAT32
REPETITION_PENALTY_RANGE = (0.001, 1000.0)  # values far beyond these would overflow the logits
TOKEN_PENALTY_RANGE = (-2.0, 2.0)  # frequency and presence penalties, as in OpenAI's API
MAX_LOGIT_BIAS = 1000.0  # added or subtracted; larger than any logit
SEED_LIMIT = 2**64  # seeds and sample numbers are below it
LENGTH_LIMIT = 2**31  # lengths are below it
Prompt = str | Sequence[int] | None


def check_precision(precision: str) -> None:
    """Check the name of a precision.

    Raises:
        UsageError: The name is not one of PRECISIONS.
    """
    check_choice("precision", precision, PRECISIONS)


def check_integer(name: str, value: Any) -> None:
    """Check that a value is a whole number.

    Raises:
        UsageError: The value is not a whole number.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise UsageError(f"{name} must be a whole number, not {value!r}")


def check_number(name: str, value: Any) -> None:
    """Check that a value is a finite number.

    Raises:
        UsageError: The value is not a number, or it is infinity or NaN.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not _is_finite(value):
        raise UsageError(f"{name} must be a finite number, not {value!r}")


def _is_finite(value: numbers.Real) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that is larger than any float
        return False


def require_integer(name: str, value: Any, minimum: int = 0) -> int:
    """Return the value if it is a whole number of at least `minimum`.

    Raises:
        UsageError: The value is not such a number.
    """
    check_integer(name, value)
    if value < minimum:
        raise UsageError(f"{name} must be a whole number of at least {minimum}, not {value}")
    return value


def check_range(name: str, value: Any, minimum: float, maximum: float, note: str) -> None:
    """Check that a value is a number from `minimum` to `maximum`.

    Args:
        name: Name of the parameter, for the error message.
        value: The value to check.
        minimum: Smallest allowed value.
        maximum: Largest allowed value; math.inf for no limit.
        note: Explanation for the error message, such as "0 is off".

    Raises:
        UsageError: The value is not a number or is out of range.
    """
    check_number(name, value)
    if not minimum <= value <= maximum:
        allowed = f"from {minimum:g} to {maximum:g}" if math.isfinite(maximum) else f"of {minimum:g} or more"
        raise UsageError(f"{name} must be a number {allowed} ({note}), not {value!r}")


@dataclasses.dataclass(frozen=True)
class Sampling:
    """The parameters by which the tokens of one sample are chosen.

    Attributes:
        temperature: Divides the logits before the filters; 0 is greedy.
        top_k: Keeps the k most likely tokens, ties by lowest id; 0 and values above the vocabulary size keep all.
        top_p: Keeps the smallest set of most likely tokens whose probabilities sum to p (Holtzman et al. 2019);
            0 and 1 keep all.
        repetition_penalty: Divides positive and multiplies negative logits of tokens already in the text, including
            the prompt, each token once (Keskar et al. 2019); 1 is off.
        frequency_penalty: Subtracted from a token's logit once for each time that it was generated, as in OpenAI's
            API; 0 is off.
        presence_penalty: Subtracted once from the logit of each generated token, as in OpenAI's API; 0 is off.
        min_p: Keeps the tokens whose probability is at least this share of the most likely token's probability (Nguyen
            et al. 2024); 0 is off.
        logit_bias: The value that is added to each token id's logit before everything else.

    Raises:
        UsageError: A value is out of range.
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
        """Check the range of each value."""
        check_range("temperature", self.temperature, 0, math.inf, "0 is greedy")
        require_integer("top_k", self.top_k)
        check_range("top_p", self.top_p, 0, 1, "0 and 1 are off")
        check_range("repetition_penalty", self.repetition_penalty, *REPETITION_PENALTY_RANGE, "1 is off")
        check_range("frequency_penalty", self.frequency_penalty, *TOKEN_PENALTY_RANGE, "0 is off")
        check_range("presence_penalty", self.presence_penalty, *TOKEN_PENALTY_RANGE, "0 is off")
        check_range("min_p", self.min_p, 0, 1, "0 is off")
        for token, bias in self.logit_bias.items():
            require_integer("an id of logit_bias", token)
            check_range("logit_bias", bias, -MAX_LOGIT_BIAS, MAX_LOGIT_BIAS, "0 is off")


@dataclasses.dataclass(frozen=True)
class Request:
    """One sample to generate.

    Attributes:
        prompt: Text or ids to continue; None starts from the vocabulary's end-of-text token.
        length: Maximum number of new tokens. If prompt and length exceed n_ctx, the window slides
            (`engine.batch.Batch`).
        sampling: The sampling parameters.
        seed: Selects the random numbers, together with `sample`. A sample does not depend on its batch.
        sample: Number of the sample, for several samples of one seed.
        stop: One or several strings. Generation ends before the first of them, which is not part of the text.
        end_of_text: Whether generation also ends at the vocabulary's `ending_ids`, such as the end-of-text token.
        logprobs: Number of most likely tokens to return with log-probabilities, in addition to each chosen
            token.
        echo: Whether log-probabilities of the prompt's tokens are returned as well.

    Raises:
        UsageError: The prompt or a stop string is empty; length, seed, sample or logprobs is not a whole number of at
            least 0; seed or sample is not below 2**64.
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
        """Check each value and make `stop` a tuple."""
        _check_prompt(self.prompt)
        if require_integer("length", self.length) >= LENGTH_LIMIT:
            raise UsageError(f"length must be below 2**31, not {self.length}")
        require_integer("logprobs", self.logprobs)
        for name in ("seed", "sample"):
            if require_integer(name, getattr(self, name)) >= SEED_LIMIT:
                raise UsageError(f"{name} must be below 2**64, not {getattr(self, name)}")
        object.__setattr__(self, "stop", _stop_strings(self.stop))


def _check_prompt(prompt: Any) -> None:
    if prompt is None or isinstance(prompt, str):
        is_empty = prompt == ""
    elif isinstance(prompt, Sequence) and not isinstance(prompt, bytes):
        for token in prompt:
            require_integer("an id of the prompt", token)
        is_empty = not prompt
    else:
        shown = reprlib.repr(prompt)
        raise UsageError(f"the prompt must be text, ids, or None to start without a prompt, not {shown}")
    if is_empty:
        raise UsageError("the prompt is empty; use None to start without a prompt")


def _stop_strings(stop: Any) -> tuple[str, ...]:
    """Return one or several stop strings as a tuple.

    Raises:
        UsageError: A stop string is empty or not a string.
    """
    strings = (stop,) if isinstance(stop, str) else tuple(stop)
    if not all(isinstance(string, str) and string for string in strings):
        raise UsageError(f"stop must be a non-empty string, or several of them, not {stop!r}")
    return strings
