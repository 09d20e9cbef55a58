"""A sequence of token ids: its request, the ids so far and its progress in the cache."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gpt2.engine.backend import Segment
from gpt2.engine.kv_cache import BLOCK_SLOTS, blocks_for
from gpt2.request import Request, Sampling
from gpt2.sample import RandomNumbers

MIN_GROWTH_IDS = 64  # minimum growth of the array of ids


class TokenChoice(NamedTuple):
    """A chosen id with its log-probability.

    Log-probabilities are computed from the model's logits, before biases, penalties, temperature and filters.

    Attributes:
        sequence: The sequence's number in its batch.
        id: The chosen id.
        logprob: The natural logarithm of the id's probability.
        top_logprobs: The most likely ids with their log-probabilities, most likely first, if they were requested.
        rank: With top_logprobs, 1 plus the number of ids that are more likely than the chosen one.
    """

    sequence: int
    id: int
    logprob: float
    top_logprobs: tuple[tuple[int, float], ...] = ()
    rank: int | None = None

    @property
    def row(self) -> int:
        """The former name of `sequence`."""
        return self.sequence

    @property
    def likeliest(self) -> tuple[tuple[int, float], ...]:
        """The former name of `top_logprobs`."""
        return self.top_logprobs


def finite_or_none(logprob: float) -> float | None:
    """Return the log-probability, or None if it is not finite, because JSON has no infinity."""
    return logprob if math.isfinite(logprob) else None


def truncate_to_window(ids: Sequence[int], n_ctx: int) -> Sequence[int]:
    """Return the ids of a prompt that fit the window: all, or the last n_ctx - 1 of a longer one."""
    return ids if len(ids) <= n_ctx else ids[-max(1, n_ctx - 1) :]


@dataclasses.dataclass(eq=False)
class TokenSequence:
    """One sample: its request and, once it has joined a batch, its progress.

    A choice counts as soon as it is in `choices`. All other progress is derived from the choices, so that an
    interrupted step can be repeated.

    Attributes:
        prompt: The prompt's ids, at least one.
        sampling: The sampling parameters.
        seed: The key of the random numbers, together with `sample`.
        sample: The sample's number.
        length: Maximum number of new ids, for which memory is reserved; None for a full window.
        top_logprobs: Number of most likely ids that each choice reports.
        echo: Whether the prompt's ids get log-probabilities as well. If so, the whole prompt is computed.
        keep: Whether the new ids' keys and values stay in the prefix cache after the sequence has left.
        request: The request that the sequence answers; the engine does not use it.
        number: The sequence's number in its batch; `join` sets it and all attributes below.
        n_ctx: The model's window.
        random: The sample's random numbers.
        n_prompt: Number of prompt ids.
        ids: The prompt's and the chosen ids, followed by unused elements.
        choices: The chosen ids so far.
        prompt_choices: With `echo`, a choice for each of the prompt's ids in the window, None for the first one.
        window_start: The index of the window's first id.
        max_blocks: The number of blocks that the sequence takes at its full length.
        blocks: The numbers of its blocks.
        n_cached: Number of computed slots of the window.
        n_reused: Number of slots from the prefix cache.
        is_admitted: Whether memory is reserved for the sequence.
    """

    prompt: Sequence[int]
    sampling: Sampling = Sampling()
    seed: int = 0
    sample: int = 0
    length: int | None = None
    top_logprobs: int = 0
    echo: bool = False
    keep: bool = False
    request: Request | None = None
    number: int = dataclasses.field(init=False, repr=False)
    n_ctx: int = dataclasses.field(init=False, repr=False)
    random: RandomNumbers = dataclasses.field(init=False, repr=False)
    n_prompt: int = dataclasses.field(init=False, repr=False)
    ids: np.ndarray = dataclasses.field(init=False, repr=False)
    choices: list[TokenChoice] = dataclasses.field(init=False, repr=False)
    prompt_choices: list[TokenChoice | None] = dataclasses.field(init=False, repr=False)
    window_start: int = dataclasses.field(init=False, repr=False)
    max_blocks: int = dataclasses.field(init=False, repr=False)
    blocks: list[int] = dataclasses.field(init=False, repr=False)
    n_cached: int = dataclasses.field(init=False, repr=False)
    n_reused: int = dataclasses.field(init=False, repr=False)
    is_admitted: bool = dataclasses.field(init=False, repr=False)

    def join(self, number: int, n_ctx: int) -> TokenSequence:
        """Return a copy that has no progress yet and belongs to a batch; the original can join again."""
        sequence = copy.copy(self)
        sequence.number = number
        sequence.n_ctx = n_ctx
        sequence.random = RandomNumbers(self.seed, self.sample)
        sequence.n_prompt = len(self.prompt)
        sequence.ids = np.array(self.prompt, np.int32)
        sequence.choices = []
        sequence.prompt_choices = []
        sequence.window_start = sequence.n_prompt - len(truncate_to_window(self.prompt, n_ctx))
        sequence.max_blocks = self.count_blocks(n_ctx)
        sequence.blocks = []
        sequence.n_cached = 0
        sequence.n_reused = 0
        sequence.is_admitted = False
        return sequence

    def count_blocks(self, n_ctx: int) -> int:
        """Return the number of blocks that the sequence takes at its full length."""
        return blocks_for(n_ctx if self.length is None else min(n_ctx, len(self.prompt) + self.length))

    @property
    def n_ids(self) -> int:
        """The number of prompt ids and chosen ids."""
        return self.n_prompt + len(self.choices)

    @property
    def window(self) -> np.ndarray:
        """The ids that the next choice depends on."""
        return self.ids[self.window_start : self.n_ids]

    @property
    def n_pending(self) -> int:
        """The number of ids in the window to compute before the next choice, at least one."""
        n_window = self.n_ids - self.window_start
        return n_window - min(self.n_cached, n_window - 1)

    @property
    def grows_soon(self) -> bool:
        """Return whether a quarter of the last block is filled and another block may be needed."""
        threshold = (4 * len(self.blocks) - 3) * BLOCK_SLOTS
        return 0 < len(self.blocks) < self.max_blocks and 4 * self.n_cached > threshold

    def next_segment(self, max_ids: int) -> Segment:
        """Return the next ids to compute, at least one and at most max_ids.

        The segment shares the sequence's list of blocks, to which the batch appends missing blocks.
        """
        end = self.n_ids
        n_pending = self.n_pending
        size = min(n_pending, max_ids)
        first = end - n_pending
        n_logits = int(size == n_pending)  # logits of the last id, if a choice follows
        if self.echo and not self.choices:
            n_logits = size
        return Segment(self.blocks, first - self.window_start, self.ids[first : first + size], n_logits)

    def append(self, choice: TokenChoice) -> None:
        """Add a chosen id."""
        n_ids = self.n_ids
        if n_ids == len(self.ids):
            n_more = max(MIN_GROWTH_IDS, len(self.ids) // 2)
            self.ids = np.concatenate([self.ids, np.zeros(n_more, np.int32)])
        self.ids[n_ids] = choice.id
        self.choices.append(choice)

    def slide_if_full(self) -> list[int]:
        """Slide a full window to its last n_ctx // 2 ids, which are computed again.

        Returns:
            The blocks to release; none if the newest id still fits the window.
        """
        if self.n_cached < self.n_ctx or self.n_ids - self.window_start <= self.n_ctx:
            return []
        blocks = self.blocks
        self.blocks = []
        self.window_start = self.n_ids - max(1, self.n_ctx // 2)
        self.n_cached = 0
        self.n_reused = 0
        return blocks
