"""Rows that come and go: ids in, one new id per row and step out. It knows nothing of text.

Each row has its own length, settings and random numbers, so that its ids do not depend on the rows beside it. A step
computes the next id of every row whose prompt is in the cache, and beside them some of the prompts of the others: the
weights are read once for all.

Shapes: V vocabulary.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterable

import numpy as np

from gpt2 import sample
from gpt2.engine.backend import Backend, Logits, Piece, RandomWordsRequest
from gpt2.engine.kv_cache import blocks_for
from gpt2.engine.prefix_cache import MIN_SHARED_IDS, PrefixCache, common_prefix_length
from gpt2.engine.token_sequence import Part, Row, Running, TokenChoice
from gpt2.errors import UsageError

PREFILL_BUDGET_IDLE = 512  # ids of prompts in a step that nobody waits for
# In one that others wait for: a prompt of no more than so many goes in at once, and so do several as far as they fit
# in. The others wait as long in sum as for many small parts, and whoever brought it least.
PREFILL_BUDGET_BUSY = 256
# A longer one, alone, goes in in parts, so that no step takes more than some two times as long: at least so many ids,
# and so many for each row, which keeps a batch full whose prompts are somewhat longer than its texts.
BESIDE, BESIDE_EACH = 12, 1.5
ECHO_CHUNK_IDS = 64  # ids in a step whose logits are all wanted: a row of them is 200 kB


class Batch:
    """Rows that are decoded together, each as if it were alone.

    >>> batch = Batch(backend)
    >>> number = batch.add(Row([15496, 11], length=20))
    >>> ids = [choice.id for _ in range(20) for choice in batch.step()]
    >>> batch.remove(number)

    prefixes: beginnings that are known, and the cache in which they are; None for a new one. room: how many blocks all
    rows may take together; None for what there is memory for. A row for which there is no room waits until others have
    left; one that needs more than there is has it for itself. beside: how many ids of prompts are computed in a step
    beside other rows' next ones; None for few where one long prompt waits, and more for short ones and several.
    """

    def __init__(
        self, backend: Backend, prefixes: PrefixCache | None = None, room: int | None = None, beside: int | None = None
    ) -> None:
        self.backend, self.beside = backend, beside
        self.prefixes = prefixes or PrefixCache(backend.new_blocks())
        self.blocks = self.prefixes.blocks
        self.room = self.blocks.room() if room is None else room
        self.rows: dict[int, Running] = {}
        self.numbers = itertools.count()
        self.told: dict[int, int] = {}  # how many choices of each row `step` has returned

    def __len__(self) -> int:
        return len(self.rows)

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *_: object) -> None:
        for number in list(self.rows):
            self.remove(number)

    def add(self, row: Row) -> int:
        """The number by which the row's choices are known.

        Raises UsageError for a prompt that is empty, or that or a bias with ids outside the vocabulary.
        """
        hparams = self.backend.hparams
        if not len(row.prompt) or not 0 <= min(row.prompt) <= max(row.prompt) < hparams.n_vocab:
            raise UsageError(f"a prompt needs at least one id, all from 0 to {hparams.n_vocab - 1}: {row.prompt}")
        biased = max(row.sampling.logit_bias, default=0)
        if biased >= hparams.n_vocab:
            raise UsageError(f"logit_bias has ids from 0 to {hparams.n_vocab - 1}, not {biased}")
        number = next(self.numbers)
        self.rows[number] = Running(number, row, hparams.n_ctx)
        return number

    def remove(self, number: int) -> None:
        """The row's ids are no longer wanted: its blocks are given back."""
        row = self.rows.pop(number)
        if row.row.keep:
            self.prefixes.keep(row.window[: row.filled], row.blocks)
        self.blocks.give_back(row.blocks)

    def echo(self, number: int) -> list[TokenChoice | None]:
        """The log-probabilities of the prompt's ids that the window keeps, after the row's first choice; the first id
        has none. Of rows with `echo`."""
        return self.rows[number].echoed

    def has_room(self, row: Row) -> bool:
        """Whether the row could begin at once."""
        taken = sum(other.most_blocks for other in self.rows.values())
        return not taken or taken + row.most_blocks(self.backend.hparams.n_ctx) <= self.room

    def step(self) -> list[TokenChoice]:
        """One id for each row that has got so far; none, perhaps, while prompts are computed.

        What interrupts it (Ctrl-C, MemoryError) leaves all rows as they were, and it can be called again.
        """
        if not self._untold():
            plan = self._plan()
            if plan:
                pieces = [self._piece(part) for part in plan]
                self._prepare(plan)
                logits = self.backend.extend(self.blocks, pieces)
                self._choose(self._computed(plan, pieces, logits))
        choices = self._untold()
        self.told = {row.number: len(row.new) for row in self.rows.values()}
        return choices

    def _untold(self) -> list[TokenChoice]:
        return [choice for row in self.rows.values() for choice in row.new[self.told.get(row.number, 0) :]]

    def _plan(self) -> list[Part]:
        """Who is computed in this step, and how many ids of each."""
        self._begin()
        plan: list[Part] = []
        longer: list[Part] = []
        for row in self.rows.values():
            if row.begun:
                if row.is_full:
                    self.blocks.give_back(row.slide())
                part = row.part(1)
                (plan if part.is_last else longer).append(part)
        beside = _beside(len(plan), [part.row.to_read for part in longer]) if self.beside is None else self.beside
        budget = beside if plan else PREFILL_BUDGET_IDLE
        reading: list[Running] = []  # rows whose prompts are on their way into the cache
        for row, *_ in longer:
            if budget > 0 and (row.blocks or self._may_begin(row, reading)):
                part = row.part(min(budget, ECHO_CHUNK_IDS) if row.row.echo else budget)
                plan.append(part)
                reading.append(row)
                budget -= part.size
        return plan

    def _prepare(self, plan: list[Part]) -> None:
        """Makes blocks ready for the rows that will need one, in steps that others wait for."""
        soon = [part.size for part in plan if part.row.grows_soon]
        if soon and any(part.row.new for part in plan):
            with contextlib.suppress(MemoryError):  # the rows that need a block may yet get one of the store's
                self.blocks.prepare(len(soon), 2 * sum(soon))

    def _begin(self) -> None:
        """Rows begin in the order in which they came, as long as there is room for all that they may take."""
        taken = sum(row.most_blocks for row in self.rows.values() if row.begun)
        for row in self.rows.values():
            if not row.begun:
                taken += row.most_blocks
                if taken > self.room and taken > row.most_blocks:
                    return
                row.begun = True

    def _may_begin(self, row: Running, reading: Iterable[Running]) -> bool:
        """Gives the row what is known of its beginning; not while another row is computing more of it."""
        if row.row.echo and not row.new:
            return True
        known = self.prefixes.find(row.window)
        blocks = [*known.blocks] if known.partial is None else [*known.blocks, known.partial]
        try:
            to_come = max((common_prefix_length(row.window, other.window) for other in reading), default=0)
            if min(to_come, len(row.window) - 1) >= known.slots + MIN_SHARED_IDS:
                return False
            if known.partial is not None:
                own = self._new_block(known.partial)
                self.blocks.give_back([known.partial])
                blocks[-1] = own
            row.blocks, row.filled, row.known, blocks = blocks, known.slots, known.slots, []
            return True
        finally:
            self.blocks.give_back(blocks)

    def _piece(self, part: Part) -> Piece:
        """With the blocks that it needs. Raises MemoryError."""
        blocks = part.row.blocks
        while len(blocks) < blocks_for(part.start + part.size):
            blocks.append(self._new_block())
        return Piece(blocks, part.start, part.ids, part.size if part.is_echoed else int(part.is_last))

    def _new_block(self, source: int | None = None) -> int:
        """With what is in that one, if there is one; the store gives way to it. Raises MemoryError."""
        make = self.blocks.take if source is None else functools.partial(self.blocks.copied, source)
        try:
            return make()
        except MemoryError:
            self.prefixes.clear()
            return make()

    def _computed(
        self, plan: list[Part], pieces: list[Piece], logits: Logits
    ) -> list[tuple[Running, np.ndarray, np.floating]]:
        """Notes what is in the cache now; the rows that may choose, with their logits [V] and log total."""
        ready, line = [], 0
        for part, piece in zip(plan, pieces):
            row, first, line = part.row, line, line + piece.wanted
            if part.is_echoed:
                self._echo(part, Logits(logits.values[first:line], logits.log_totals[first:line]))
            row.filled = part.start + part.size
            if part.is_last:
                if not row.new and row.filled > MIN_SHARED_IDS:
                    self.prefixes.keep(row.window, row.blocks)
                ready.append((row, logits.values[line - 1], logits.log_totals[line - 1]))
        return ready

    def _echo(self, part: Part, logits: Logits) -> None:
        """What the part's positions say of the ids after them."""
        row, after = part.row, part.start + 1
        following = row.window[after : after + part.size]
        said = [_choice(row, int(token), *each) for token, each in zip(following, zip(*logits))]
        row.echoed = [*(row.echoed[:after] or [None]), *said]

    def _choose(self, ready: list[tuple[Running, np.ndarray, np.floating]]) -> None:
        """The next id of each row; random words are drawn for all of them at once."""
        left, chosen = {}, {}
        for row, logits, _ in ready:
            sampling, ids = row.row.sampling, row.ids[: row.count]
            logits = sample.apply_bias_and_penalties(logits, sampling, ids[: row.n_prompt], ids[row.n_prompt :])
            if sample.is_greedy(sampling):
                chosen[row.number] = int(np.argmax(logits))
            else:
                left[row.number] = sample.filter_candidates(logits, sampling)
        wanted = [
            RandomWordsRequest(row.random, len(row.new), left[row.number].ids)
            for row, *_ in ready
            if row.number in left
        ]
        for (number, candidates), words in zip(left.items(), self.backend.random_words(wanted)):
            chosen[number] = sample.draw(candidates, words)
        choices = [_choice(row, chosen[row.number], logits, log_total) for row, logits, log_total in ready]
        for (row, _, _), choice in zip(ready, choices):
            row.choose(choice)


def _beside(writing: int, reading: list[int]) -> int:
    """Ids of prompts that are computed in a step beside so many rows, where prompts of so many ids are being read."""
    if len(reading) == 1 and reading[0] > PREFILL_BUDGET_BUSY:
        return max(BESIDE, int(BESIDE_EACH * writing))
    return PREFILL_BUDGET_BUSY


def _choice(row: Running, token: int, logits: np.ndarray, log_total: np.floating) -> TokenChoice:
    choice = TokenChoice(row.number, token, float(logits[token] - log_total))
    if not row.row.likeliest:
        return choice
    likeliest = sample.top_ids(logits, row.row.likeliest).tolist()
    others = tuple((other, float(logits[other] - log_total)) for other in likeliest)
    return choice._replace(likeliest=others, rank=1 + int(np.count_nonzero(logits > logits[token])))
