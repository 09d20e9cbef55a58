"""The texts of a completion, which grow by a scheduler's chunks, and their form in the response."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

from gpt2.engine.token_sequence import TokenChoice, TokenSequence, finite_or_none
from gpt2.server.schema import CompletionChoice, CompletionRequest, Logprobs
from gpt2.text.vocabulary import Vocabulary
from gpt2.text_batch import FINISH_LENGTH, FINISH_STOP, TextChunk

FINISH_REASONS: dict[str, Literal["stop", "length"] | None] = {FINISH_STOP: "stop", FINISH_LENGTH: "length", "": None}


class ChoiceBuilder:
    """One text of a completion, which grows chunk by chunk.

    Attributes:
        n_prompt_tokens: The number of the prompt's tokens; 0 without a prompt.
        tokens: All tokens that have been generated.
        n_characters: The length of the whole text so far, an echoed prompt included.
        text: The text that has not been taken yet.
        logprobs: The log-probabilities that have not been taken yet; None if they were not requested.
        finish_reason: Reason for the end of the text; empty before it.
    """

    def __init__(self, sequence: TokenSequence, body: CompletionRequest, encoder: Vocabulary) -> None:
        """Create a choice, whose text starts with the prompt if it is echoed."""
        assert sequence.request is not None, "`prepare_sequences` makes sequences that have their request"
        prompt = sequence.request.prompt
        self.encoder = encoder
        self.prompt_ids = sequence.prompt
        self.n_prompt_tokens = 0 if prompt is None else len(sequence.prompt)
        self.tokens: list[TokenChoice] = []
        self.text = ""
        if body.echo and prompt is not None:
            self.text = prompt if isinstance(prompt, str) else encoder.decode(prompt)
        self.n_characters = len(self.text)
        self.logprobs = None if body.logprobs is None else _no_logprobs()
        self.finish_reason = ""

    @property
    def mean_logprob(self) -> float:
        """The mean log-probability of the generated tokens, by which choices are ranked."""
        return sum(token.logprob for token in self.tokens) / max(1, len(self.tokens))

    def add(self, chunk: TextChunk) -> None:
        """Add a chunk."""
        if chunk.prompt and self.n_characters and self.logprobs is not None:
            self._add_prompt_logprobs(self.logprobs, chunk.prompt)
        if chunk.token is not None:
            self.tokens.append(chunk.token)
            if self.logprobs is not None:
                self._add_logprobs(self.logprobs, chunk.token.id, chunk.token, self.n_characters)
        self.text += chunk.text
        self.n_characters += len(chunk.text)
        self.finish_reason = chunk.finish_reason

    def take(self, index: int) -> CompletionChoice:
        """Return the text and tokens added since the last call, as the choice with this index."""
        choice = CompletionChoice(
            index=index, text=self.text, logprobs=self.logprobs, finish_reason=FINISH_REASONS[self.finish_reason]
        )
        self.text = ""
        if self.logprobs is not None:
            self.logprobs = _no_logprobs()
        return choice

    def _add_prompt_logprobs(self, columns: Logprobs, prompt: Sequence[TokenChoice | None]) -> None:
        stream = self.encoder.stream()
        offset = 0
        for token, choice in zip(self.prompt_ids, prompt):
            self._add_logprobs(columns, token, choice, offset)
            offset += len(stream.feed([token]))

    def _add_logprobs(self, columns: Logprobs, token: int, choice: TokenChoice | None, offset: int) -> None:
        columns.tokens.append(self.encoder.token_text(token))
        columns.text_offset.append(offset)
        if choice is None:
            columns.token_logprobs.append(None)
            columns.top_logprobs.append(None)
            return
        columns.token_logprobs.append(finite_or_none(choice.logprob))
        top_logprobs = dict([*choice.top_logprobs, (choice.id, choice.logprob)])
        columns.top_logprobs.append(
            {self.encoder.token_text(top_id): finite_or_none(logprob) for top_id, logprob in top_logprobs.items()}
        )


def _no_logprobs() -> Logprobs:
    return Logprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])


def drop_stop_tokens(choice: CompletionChoice) -> None:
    """Drop the log-probabilities of tokens that start after the end of the text: the tokens of a stop string."""
    if choice.logprobs is None or choice.finish_reason == "length":
        return
    is_in_text = [offset < len(choice.text) for offset in choice.logprobs.text_offset]
    for name in Logprobs.model_fields:
        column = getattr(choice.logprobs, name)
        setattr(choice.logprobs, name, list(itertools.compress(column, is_in_text)))
