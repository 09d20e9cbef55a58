"""A worker of a bulk job: one model and one batch, in which the next text starts as soon as another one ends."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from gpt2.bulk.row_fields import describe_exception, shorten
from gpt2.bulk.rows import JobRow
from gpt2.engine.batch import PREFILL_BUDGET_IDLE
from gpt2.engine.token_sequence import TokenChoice, finite_or_none
from gpt2.errors import GPT2Error, UsageError
from gpt2.request import Prompt
from gpt2.text_batch import Model, TextBatch, TextChunk, encode_prompt, prepare

TEXTS_PER_SLOT = 2  # one that is being generated, and one that waits for the slot


class GeneratedText(NamedTuple):
    """One of the texts that a row requests.

    Attributes:
        text: The text.
        finish_reason: Reason for its end, see `text_batch.TextChunk`.
        prompt_tokens: Number of tokens in its prompt.
        completion_tokens: Number of generated tokens, including the tokens of a stop string.
        logprobs: The tokens' log-probabilities in the layout of OpenAI's API; None if they are not requested.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    logprobs: dict[str, list[Any]] | None = None


class FinishedRow(NamedTuple):
    """A row with its texts in the order of its requests, or with an error."""

    row: JobRow
    texts: Sequence[GeneratedText] = ()
    error: str = ""


class RunningRow:
    """A row with unfinished texts.

    Attributes:
        row: The row.
        prompt_ids: The prompt's ids for each text.
        texts: The texts; None for each unfinished text.
        chunks: The chunks so far of each unfinished text; empty for a finished text.
    """

    def __init__(self, row: JobRow, prompt_ids: Sequence[Sequence[int]]) -> None:
        """Start without any generated text."""
        self.row = row
        self.prompt_ids = prompt_ids
        self.texts: list[GeneratedText | None] = [None] * len(prompt_ids)
        self.chunks: list[list[TextChunk]] = [[] for _ in prompt_ids]


def error_message(error: Exception) -> str:
    """Return the error of a row for an exception that was raised while its texts were prepared or joined."""
    return shorten(str(error)) if isinstance(error, GPT2Error) else describe_exception(error)


class BatchWorker:
    """A generator of rows: it accepts rows and returns them with their texts.

    Attributes:
        batch_size: Number of texts that are generated at the same time.
        n_tokens: Number of generated tokens.
    """

    def __init__(self, model: Model, batch_size: int) -> None:
        """Create a worker without rows."""
        self.model = model
        self.batch_size = batch_size
        # Prompts are prefilled at full speed: no client waits for a token, and full batches have the best throughput.
        self.batch = TextBatch(model, prefill_budget=PREFILL_BUDGET_IDLE)
        self.waiting: collections.deque[tuple[RunningRow, int]] = collections.deque()  # rows and indices of their texts
        self.running: dict[int, tuple[RunningRow, int]] = {}  # the same, by the texts' numbers in the batch
        self.n_tokens = 0

    @property
    def free_slots(self) -> int:
        """The number of further rows that the worker needs to stay busy."""
        return max(0, TEXTS_PER_SLOT * self.batch_size - len(self.waiting) - len(self.running))

    def process(self, rows: Iterable[JobRow], min_seconds: float = 0) -> list[FinishedRow]:
        """Accept rows, and generate until some rows have finished.

        Args:
            rows: Further rows.
            min_seconds: Generate for at least this long, unless fewer than batch_size texts are left.

        Returns:
            The rows that have finished; none if the worker has none.
        """
        finished = [rejected for row in rows if (rejected := self._accept(row)) is not None]
        deadline = time.monotonic() + min_seconds
        while (self.waiting or self.running) and not (finished and self._should_return(deadline)):
            finished += self._fill_batch()
            for chunk in self.batch.step():
                finished += self._receive(chunk)
        return finished

    def _should_return(self, deadline: float) -> bool:
        return not self.waiting or time.monotonic() >= deadline

    def _accept(self, row: JobRow) -> FinishedRow | None:
        """Queue the texts of a row, or return the row with the reason why they cannot be generated."""
        if row.error:
            return FinishedRow(row, error=row.error)
        try:
            prompt_ids = self._encode([request.prompt for request in row.requests])
        except Exception as error:
            return FinishedRow(row, error=error_message(error))
        running = RunningRow(row, prompt_ids)
        self.waiting.extend((running, index) for index in range(len(prompt_ids)))
        return None

    def _encode(self, prompts: Sequence[Prompt]) -> list[Sequence[int]]:
        """Return the ids of each prompt.

        Raises:
            UsageError: A prompt is longer than the window, or has ids outside the vocabulary.
        """
        n_ctx = self.model.hparams.n_ctx
        n_vocab = self.model.hparams.n_vocab
        encoded: list[Sequence[int]] = []
        for prompt, previous in zip(prompts, [(), *prompts]):
            ids = encoded[-1] if encoded and prompt == previous else encode_prompt(self.model.encoder, prompt)
            if len(ids) > n_ctx:
                raise UsageError(f"the prompt has {len(ids)} tokens, but the model's window holds {n_ctx}; shorten it")
            if max(ids) >= n_vocab:
                raise UsageError(f"the ids of a prompt must be from 0 to {n_vocab - 1}, not {max(ids)}")
            encoded.append(ids)
        return encoded

    def _fill_batch(self) -> list[FinishedRow]:
        """Start waiting texts while the batch can start them, and return the rows that the batch rejects."""
        rejected = []
        while self.waiting and len(self.batch) < self.batch_size:
            running, index = self.waiting[0]
            try:
                sequence = prepare(running.row.requests[index], running.prompt_ids[index])
                if not self.batch.can_start(sequence):
                    break
                self.running[self.batch.add(sequence)] = running, index
                self.waiting.popleft()
            except Exception as error:
                rejected.append(self._reject(running, error))
        return rejected

    def _reject(self, rejected: RunningRow, error: Exception) -> FinishedRow:
        """Stop all texts of a row, and return the row with the error."""
        self.waiting = collections.deque(entry for entry in self.waiting if entry[0] is not rejected)
        for number in [number for number, (row, _) in self.running.items() if row is rejected]:
            del self.running[number]
            if number in self.batch.texts:  # it may have ended in this step
                self.batch.remove(number)
        return FinishedRow(rejected.row, error=error_message(error))

    def _receive(self, chunk: TextChunk) -> list[FinishedRow]:
        """Add a chunk to its text, and return the row if this completes it."""
        if chunk.request not in self.running:  # its row has been rejected in the same step
            return []
        running, index = self.running[chunk.request]
        running.chunks[index].append(chunk)
        if not chunk.finish_reason:
            return []
        del self.running[chunk.request]
        try:
            text = self._join_chunks(running, index)
        except Exception as error:
            return [self._reject(running, error)]
        running.texts[index] = text
        running.chunks[index] = []
        self.n_tokens += text.completion_tokens
        texts = [text for text in running.texts if text is not None]
        return [FinishedRow(running.row, texts)] if len(texts) == len(running.texts) else []

    def _join_chunks(self, running: RunningRow, index: int) -> GeneratedText:
        chunks = running.chunks[index]
        n_top = running.row.logprobs
        choices = [chunk.token for chunk in chunks if chunk.token is not None]
        logprobs = None if n_top is None else self._logprobs(choices, n_top)
        text = "".join(chunk.text for chunk in chunks)
        return GeneratedText(text, chunks[-1].finish_reason, len(running.prompt_ids[index]), len(choices), logprobs)

    def _logprobs(self, choices: Sequence[TokenChoice], n_top: int) -> dict[str, list[Any]]:
        """Return the log-probabilities of all generated tokens, including a stop string's, in OpenAI's layout.

        Args:
            choices: The tokens.
            n_top: Number of most likely tokens to list at each position, alongside the token itself.
        """
        token_text = self.model.encoder.token_text
        top_logprobs = [dict([*choice.top_logprobs[:n_top], (choice.id, choice.logprob)]) for choice in choices]
        return {
            "tokens": [token_text(choice.id) for choice in choices],
            "token_logprobs": [finite_or_none(choice.logprob) for choice in choices],
            "top_logprobs": [
                {token_text(token): finite_or_none(logprob) for token, logprob in logprobs.items()}
                for logprobs in top_logprobs
            ],
        }
