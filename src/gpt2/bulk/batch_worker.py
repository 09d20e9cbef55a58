"""Where rows are written: one model, and a batch whose places are taken anew the moment a text ends."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from gpt2.bulk.rows import JobRow
from gpt2.engine.batch import PREFILL_BUDGET_IDLE
from gpt2.engine.token_sequence import TokenChoice, finite_or_none
from gpt2.errors import GPT2Error, UsageError
from gpt2.generate import Model, TextBatch, TextChunk, encode_prompt, prepare
from gpt2.request import Prompt

AHEAD = 2  # rows for each place: those that are written, and as many that wait for their places


class Text(NamedTuple):
    """One of the texts that a row asked for."""

    text: str
    finish_reason: str
    prompt_tokens: int
    tokens: int
    logprobs: dict[str, list[Any]] | None = None


class Finished(NamedTuple):
    """A row with its texts in their order, or with an error."""

    row: JobRow
    texts: Sequence[Text] = ()
    error: str = ""


class Unfinished:
    """A row some of whose texts have not ended."""

    def __init__(self, row: JobRow, ids: Sequence[Sequence[int]]) -> None:
        self.row, self.ids = row, ids  # those of each text's prompt
        self.texts: list[Text | None] = [None] * len(ids)
        self.pieces: list[list[TextChunk]] = [[] for _ in ids]


class BatchWorker:
    """Takes rows and returns them with their texts. batch_size: texts that are written at a time."""

    def __init__(self, model: Model, batch_size: int) -> None:
        self.model, self.batch_size = model, batch_size
        self.writer = TextBatch(
            model, prefill_budget=PREFILL_BUDGET_IDLE
        )  # nobody waits for a token, and a batch that is full is quickest
        self.waiting: collections.deque[tuple[Unfinished, int]] = collections.deque()
        self.places: dict[int, tuple[Unfinished, int]] = {}  # of the writer's texts
        self.tokens = 0  # that were written

    @property
    def wanted(self) -> int:
        """How many rows it can take."""
        return max(0, AHEAD * self.batch_size - len(self.waiting) - len(self.places))

    def exchange(self, rows: Iterable[JobRow], patience: float = 0) -> list[Finished]:
        """Takes rows, and writes until some have ended and the seconds are over, or places would stay empty."""
        finished = [found for row in rows if (found := self._enter(row)) is not None]
        until = time.monotonic() + patience
        while (self.waiting or self.places) and not (finished and self._is_over(until)):
            finished += self._begin()
            for piece in self.writer.step():
                finished += self._hear(piece)
        return finished

    def _is_over(self, until: float) -> bool:
        return not self.waiting or time.monotonic() >= until

    def _enter(self, row: JobRow) -> Finished | None:
        """Lets the row's texts wait; what cannot be written has ended."""
        if row.error:
            return Finished(row, error=row.error)
        try:
            ids = self._encoded([request.prompt for request in row.requests])
        except GPT2Error as error:
            return Finished(row, error=str(error))
        unfinished = Unfinished(row, ids)
        self.waiting.extend((unfinished, place) for place in range(len(ids)))
        return None

    def _encoded(self, prompts: Sequence[Prompt]) -> list[Sequence[int]]:
        """Raises UsageError for a prompt that the window does not hold, or with ids that there are not."""
        n_ctx, n_vocab = self.model.hparams.n_ctx, self.model.hparams.n_vocab
        found: list[Sequence[int]] = []
        for prompt, before in zip(prompts, [(), *prompts]):
            ids = found[-1] if found and prompt == before else encode_prompt(self.model.encoder, prompt)
            if len(ids) > n_ctx:
                raise UsageError(f"the prompt has {len(ids)} tokens, and the model's window {n_ctx}; shorten it")
            if max(ids) >= n_vocab:
                raise UsageError(f"the ids of a prompt are from 0 to {n_vocab - 1}, not {max(ids)}")
            found.append(ids)
        return found

    def _begin(self) -> list[Finished]:
        """Fills the places; what is refused has ended."""
        refused = []
        while self.waiting and len(self.writer) < self.batch_size:
            unfinished, place = self.waiting[0]
            text = prepare(unfinished.row.requests[place], unfinished.ids[place])
            if not self.writer.can_start(text):
                break
            self.waiting.popleft()
            try:
                self.places[self.writer.add(text)] = unfinished, place
            except GPT2Error as error:
                refused.append(Finished(unfinished.row, error=str(error)))
                self._forget(unfinished)
        return refused

    def _forget(self, unfinished: Unfinished) -> None:
        """A row one of whose texts was refused."""
        self.waiting = collections.deque(one for one in self.waiting if one[0] is not unfinished)
        for number in [number for number, (other, _) in self.places.items() if other is unfinished]:
            del self.places[number]
            self.writer.remove(number)

    def _hear(self, piece: TextChunk) -> list[Finished]:
        """The row, if this was the last that it waited for."""
        unfinished, place = self.places[piece.request]
        unfinished.pieces[place].append(piece)
        if not piece.finish_reason:
            return []
        del self.places[piece.request]
        text = self._text(unfinished, place)
        unfinished.texts[place], unfinished.pieces[place] = text, []
        self.tokens += text.tokens
        texts = [text for text in unfinished.texts if text is not None]
        return [Finished(unfinished.row, texts)] if len(texts) == len(unfinished.texts) else []

    def _text(self, unfinished: Unfinished, place: int) -> Text:
        pieces, wanted = unfinished.pieces[place], unfinished.row.logprobs
        choices = [piece.token for piece in pieces if piece.token is not None]
        told = None if wanted is None else self._logprobs(choices, wanted)
        text = "".join(piece.text for piece in pieces)
        return Text(text, pieces[-1].finish_reason, len(unfinished.ids[place]), len(choices), told)

    def _logprobs(self, choices: Sequence[TokenChoice], wanted: int) -> dict[str, list[Any]]:
        """As OpenAI's API has them, of all tokens that were written, those of a stop string included."""
        piece = self.model.encoder.token_text
        likeliest = [dict([*choice.top_logprobs[:wanted], (choice.id, choice.logprob)]) for choice in choices]
        return {
            "tokens": [piece(choice.id) for choice in choices],
            "token_logprobs": [finite_or_none(choice.logprob) for choice in choices],
            "top_logprobs": [{piece(token): finite_or_none(each) for token, each in one.items()} for one in likeliest],
        }
