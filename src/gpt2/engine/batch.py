"""A batch of sequences, which gain one new id each in a step.

Each sequence has its own length, settings and random numbers, so that its ids do not depend on the others in the batch.
A step computes the next id of every sequence whose prompt is in the cache. It also computes chunks of the other
prompts, because the weights are then read once for all of them.

Shapes: V vocabulary.
"""

from __future__ import annotations

import contextlib
import functools
import itertools

import numpy as np

from gpt2 import sample
from gpt2.engine.backend import Backend, Logits, RandomWordsRequest, Segment
from gpt2.engine.kv_cache import BLOCK_SLOTS, MIN_SHARED_IDS, PrefixCache, common_prefix_length
from gpt2.engine.token_sequence import TokenChoice, TokenSequence
from gpt2.errors import UsageError

# Prompt ids that a step computes if no sequence waits for its next id.
PREFILL_BUDGET_IDLE = 512
# Prompt ids that a step computes if sequences wait: one or several prompts of up to this many ids in total. The
# sequences wait no longer in total than for many small chunks, and the sequence of a short prompt starts sooner.
PREFILL_BUDGET_BUSY = 256
# A single longer prompt is prefilled in chunks, so that no step takes more than about twice as long. A chunk has at
# least MIN_PREFILL_CHUNK ids, or PREFILL_CHUNK_PER_SEQUENCE ids for each decoding sequence: enough to fill the batch if
# prompts are somewhat longer than texts.
MIN_PREFILL_CHUNK = 12
PREFILL_CHUNK_PER_SEQUENCE = 1.5
# Prompt ids in a step if each of them needs logits, which take 200 kB per id.
ECHO_CHUNK_IDS = 64

Plan = list[tuple[TokenSequence, Segment]]


class Batch:
    """Sequences that are decoded together, each as if it were alone.

    >>> batch = Batch(backend)
    >>> number = batch.add(TokenSequence([15496, 11], length=20))
    >>> ids = [choice.id for _ in range(20) for choice in batch.step()]
    >>> batch.remove(number)
    """

    def __init__(
        self,
        backend: Backend,
        prefixes: PrefixCache | None = None,
        max_blocks: int | None = None,
        prefill_budget: int | None = None,
    ) -> None:
        """Create an empty batch.

        Args:
            backend: The backend that computes.
            prefixes: The prefix cache, whose pool of blocks the batch uses; None for a new one.
            max_blocks: The maximum number of blocks of all sequences; None for as many as fit into memory. If there are
                not enough blocks for a sequence, it waits until others have left. A sequence that needs more than
                max_blocks runs alone.
            prefill_budget: Number of prompt ids that a step computes along with other sequences' next ids; None for a
                few if only one long prompt waits, and for more otherwise.
        """
        self.backend = backend
        self.prefill_budget = prefill_budget
        self.prefixes = prefixes or PrefixCache(backend.new_pool())
        self.pool = self.prefixes.pool
        self.max_blocks = self.pool.n_available if max_blocks is None else max_blocks
        self.sequences: dict[int, TokenSequence] = {}
        self.numbers = itertools.count()
        self.n_reported: dict[int, int] = {}  # number of choices of each sequence that `step` has returned

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self.sequences)

    def __enter__(self) -> Batch:
        """Return the batch itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove all sequences."""
        for number in list(self.sequences):
            self.remove(number)

    def add(self, sequence: TokenSequence) -> int:
        """Add a sequence and return its number in the batch.

        The batch works on a copy, so that the same sequence can be added again.

        Raises:
            UsageError: The prompt is empty, or the prompt or a bias has ids outside the vocabulary.
        """
        hparams = self.backend.hparams
        prompt = sequence.prompt
        if not len(prompt) or not 0 <= min(prompt) <= max(prompt) < hparams.n_vocab:
            raise UsageError(f"a prompt needs at least one id, all from 0 to {hparams.n_vocab - 1}, not {prompt}")
        max_biased = max(sequence.sampling.logit_bias, default=0)
        if max_biased >= hparams.n_vocab:
            raise UsageError(f"logit_bias takes ids from 0 to {hparams.n_vocab - 1}, not {max_biased}")
        number = next(self.numbers)
        self.sequences[number] = sequence.join(number, hparams.n_ctx)
        return number

    def remove(self, number: int) -> None:
        """Remove a sequence and release its blocks."""
        sequence = self.sequences.pop(number)
        if sequence.keep:
            self.prefixes.insert(sequence.window[: sequence.n_cached], sequence.blocks)
        self.pool.release(sequence.blocks)

    def prompt_choices(self, number: int) -> list[TokenChoice | None]:
        """Return the log-probabilities of the prompt's ids in the window, with None for the first id.

        The sequence must have `echo` and at least one choice.
        """
        return self.sequences[number].prompt_choices

    def can_start(self, sequence: TokenSequence) -> bool:
        """Return whether the sequence could be admitted immediately."""
        if not self.sequences:
            return True
        n_taken = sum([other.max_blocks for other in self.sequences.values()])
        return not n_taken or n_taken + sequence.count_blocks(self.backend.hparams.n_ctx) <= self.max_blocks

    def step(self) -> list[TokenChoice]:
        """Return the next id of each sequence whose prompt is in the cache.

        If a step only prefills prompts, the list is empty. An interruption (Ctrl-C, MemoryError) leaves all sequences
        unchanged, and `step` can be called again.
        """
        choices = self._unreported()
        if not choices:
            plan = self._plan()
            if plan:
                self._allocate(plan)
                logits = self.backend.extend(self.pool, [segment for _, segment in plan])
                self._choose(*self._advance(plan, logits))
            choices = self._unreported()
        self.n_reported = {number: len(sequence.choices) for number, sequence in self.sequences.items()}
        return choices

    def _unreported(self) -> list[TokenChoice]:
        """Return the choices that `step` has not returned yet, because it was interrupted."""
        choices = []
        for number, sequence in self.sequences.items():
            choices += sequence.choices[self.n_reported.get(number, 0) :]
        return choices

    def _plan(self) -> Plan:
        """Return the segments of this step: the newest ids, and chunks of prompts within the budget."""
        self._admit()
        plan: Plan = []
        prefilling: list[TokenSequence] = []
        for sequence in self.sequences.values():
            if sequence.is_admitted:
                if released := sequence.slide_if_full():
                    self.pool.release(released)
                if sequence.n_pending == 1:
                    plan.append((sequence, sequence.next_segment(1)))
                else:
                    prefilling.append(sequence)
        budget = self._prefill_budget(len(plan), prefilling)
        chunks: list[TokenSequence] = []  # sequences with a chunk of their prompt in this step
        for sequence in prefilling:
            if budget > 0 and (sequence.blocks or self._start_prefill(sequence, chunks)):
                segment = sequence.next_segment(min(budget, ECHO_CHUNK_IDS) if sequence.echo else budget)
                plan.append((sequence, segment))
                chunks.append(sequence)
                budget -= len(segment.ids)
        return plan

    def _admit(self) -> None:
        """Admit sequences in the order of their arrival, as long as there are enough blocks for their full lengths."""
        n_taken = sum([sequence.max_blocks for sequence in self.sequences.values() if sequence.is_admitted])
        for sequence in self.sequences.values():
            if not sequence.is_admitted:
                n_taken += sequence.max_blocks
                if n_taken > self.max_blocks and n_taken > sequence.max_blocks:
                    return
                sequence.is_admitted = True

    def _prefill_budget(self, n_decoding: int, prefilling: list[TokenSequence]) -> int:
        """Return the number of prompt ids that this step computes."""
        if not n_decoding:
            return PREFILL_BUDGET_IDLE
        if self.prefill_budget is not None:
            return self.prefill_budget
        if len(prefilling) == 1:
            sequence = prefilling[0]
            n_uncached = len(sequence.window) - sequence.n_reused
            if n_uncached > PREFILL_BUDGET_BUSY:
                return max(MIN_PREFILL_CHUNK, int(PREFILL_CHUNK_PER_SEQUENCE * n_decoding))
        return PREFILL_BUDGET_BUSY

    def _start_prefill(self, sequence: TokenSequence, chunks: list[TokenSequence]) -> bool:
        """Assign the blocks of the cached prefix to the sequence.

        Returns:
            False if the sequence should wait, because another sequence in this step computes more of the same prefix.
        """
        if sequence.echo and not sequence.choices:
            return True
        window = sequence.window
        match = self.prefixes.find(window)
        blocks = [*match.blocks] if match.partial_block is None else [*match.blocks, match.partial_block]
        try:
            n_coming = max([common_prefix_length(window, other.window) for other in chunks], default=0)
            if min(n_coming, len(window) - 1) >= match.n_slots + MIN_SHARED_IDS:
                return False
            if match.partial_block is not None:
                copied_block = self._new_block(match.partial_block)
                self.pool.release([match.partial_block])
                blocks[-1] = copied_block
            sequence.blocks = blocks
            sequence.n_cached = sequence.n_reused = match.n_slots
            blocks = []
            return True
        finally:
            if blocks:
                self.pool.release(blocks)

    def _allocate(self, plan: Plan) -> None:
        """Allocate the blocks of this step, and prepare some blocks for the following steps.

        Raises:
            MemoryError: There is no memory for a block of this step.
        """
        for sequence, segment in plan:
            while len(sequence.blocks) * BLOCK_SLOTS < segment.start + len(segment.ids):
                sequence.blocks.append(self._new_block())
        if any([sequence.choices for sequence, _ in plan]):  # no sequence waits for a step that only prefills
            growing = [len(segment.ids) for sequence, segment in plan if sequence.grows_soon]
            if growing:
                with contextlib.suppress(MemoryError):  # a later step can still free cached prefixes
                    self.pool.reserve(len(growing), 2 * sum(growing))

    def _new_block(self, source: int | None = None) -> int:
        """Return a new block, which is a copy of the source block if there is one.

        If there is not enough memory, all cached prefixes are removed.

        Raises:
            MemoryError: There is no memory for the block, even without cached prefixes.
        """
        allocate = self.pool.allocate if source is None else functools.partial(self.pool.copy_block, source)
        try:
            return allocate()
        except MemoryError:
            self.prefixes.clear()
            return allocate()

    def _advance(self, plan: Plan, logits: Logits) -> tuple[list[TokenSequence], list[np.ndarray], list[np.floating]]:
        """Record the ids that the cache holds after a step.

        Returns:
            The sequences whose next id can be chosen, and each sequence's logits [V] and log total.
        """
        sequences: list[TokenSequence] = []
        values: list[np.ndarray] = []
        log_totals: list[np.floating] = []
        first = 0
        for sequence, segment in plan:
            end = first + segment.n_logits
            is_last = len(segment.ids) == sequence.n_pending
            if sequence.echo and not sequence.choices:
                self._score_prompt(sequence, segment, Logits(logits.values[first:end], logits.log_totals[first:end]))
            sequence.n_cached = segment.start + len(segment.ids)
            if is_last:
                if not sequence.choices and sequence.n_cached > MIN_SHARED_IDS:
                    self.prefixes.insert(sequence.window, sequence.blocks)
                sequences.append(sequence)
                values.append(logits.values[end - 1])
                log_totals.append(logits.log_totals[end - 1])
            first = end
        return sequences, values, log_totals

    def _score_prompt(self, sequence: TokenSequence, segment: Segment, logits: Logits) -> None:
        """Store the log-probabilities of the prompt's ids that follow the segment's positions."""
        start = segment.start + 1
        following = sequence.window[start : start + len(segment.ids)].tolist()
        scored = [_token_choice(sequence, token, *position) for token, position in zip(following, zip(*logits))]
        sequence.prompt_choices = [*(sequence.prompt_choices[:start] or [None]), *scored]

    def _choose(self, sequences: list[TokenSequence], values: list[np.ndarray], log_totals: list[np.floating]) -> None:
        """Choose the next id of each sequence, with random words from one call for all sequences."""
        tokens: dict[int, int] = {}
        candidates: dict[int, sample.Candidates] = {}
        requests: list[RandomWordsRequest] = []
        for sequence, logits in zip(sequences, values):
            sampling = sequence.sampling
            prompt = sequence.ids[: sequence.n_prompt]
            new = sequence.ids[sequence.n_prompt : sequence.n_prompt + len(sequence.choices)]
            shaped = sample.apply_bias_and_penalties(logits, sampling, prompt, new)
            if sample.is_greedy(sampling):
                tokens[sequence.number] = int(np.argmax(shaped))
            else:
                remaining = sample.filter_candidates(shaped, sampling)
                candidates[sequence.number] = remaining
                requests.append(RandomWordsRequest(sequence.random, len(sequence.choices), remaining.ids))
        if requests:
            for (number, remaining), words in zip(candidates.items(), self.backend.random_words(requests)):
                tokens[number] = sample.draw(remaining, words)
        choices = [
            _token_choice(sequence, tokens[sequence.number], logits, log_total)
            for sequence, logits, log_total in zip(sequences, values, log_totals)
        ]
        for sequence, choice in zip(sequences, choices):
            sequence.append(choice)


def _token_choice(sequence: TokenSequence, token: int, logits: np.ndarray, log_total: np.floating) -> TokenChoice:
    """Return a token with its log-probability, and the most likely tokens if they were requested."""
    logprob = float(logits[token] - log_total)
    if not sequence.top_logprobs:
        return TokenChoice(sequence.number, token, logprob)
    top_ids = sample.top_ids(logits, sequence.top_logprobs).tolist()
    top_logprobs = tuple([(top_id, float(logits[top_id] - log_total)) for top_id in top_ids])
    rank = 1 + int(np.count_nonzero(logits > logits[token]))
    return TokenChoice(sequence.number, token, logprob, top_logprobs, rank)
