"""Texts that are generated together: a model with its vocabulary, a batch of texts, and the chunks that they gain."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from gpt2.engine.backend import Backend
from gpt2.engine.batch import Batch
from gpt2.engine.kv_cache import PrefixCache
from gpt2.engine.token_sequence import TokenChoice, TokenSequence
from gpt2.hparams import HParams
from gpt2.request import Prompt, Request
from gpt2.text.stop import StopStrings
from gpt2.text.vocabulary import Vocabulary

# Reasons why a text ended: it has the requested length, or it reached a stop string or the end-of-text token.
FINISH_LENGTH = "length"
FINISH_STOP = "stop"


@dataclasses.dataclass(frozen=True)
class Model:
    """A vocabulary and a backend that belong together; several models can be loaded at the same time.

    Attributes:
        encoder: The vocabulary.
        backend: The model's computation.
        prefixes: The model's cached prefixes.
    """

    encoder: Vocabulary
    backend: Backend
    prefixes: PrefixCache = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Create an empty prefix cache."""
        object.__setattr__(self, "prefixes", PrefixCache(self.backend.new_pool()))

    @property
    def hparams(self) -> HParams:
        """The model's sizes."""
        return self.backend.hparams


class TextChunk(NamedTuple):
    """The new text of a request, with the token that added it.

    Attributes:
        request: The request's index among the requests, or its number in a `TextBatch`.
        text: The new text; empty if the token ends within a character, or if it may start a stop string.
        finish_reason: FINISH_LENGTH or FINISH_STOP with a request's last chunk, else empty.
        token: The new token; None if the request has length 0.
        prompt: With the first chunk of a request with `echo`, the prompt's tokens.
    """

    request: int
    text: str
    finish_reason: str = ""
    token: TokenChoice | None = None
    prompt: tuple[TokenChoice | None, ...] = ()

    @property
    def ended(self) -> str:
        """The former name of `finish_reason`."""
        return self.finish_reason


def encode_prompt(encoder: Vocabulary, prompt: Prompt) -> Sequence[int]:
    """Return the ids of a prompt; if it is None or has no ids, return the end-of-text id."""
    if prompt is None:
        return [encoder.end_of_text]
    if not isinstance(prompt, str):
        return prompt
    return encoder.encode(prompt) or [encoder.end_of_text]  # a vocabulary may drop spaces


def prepare(request: Request, ids: Sequence[int]) -> TokenSequence:
    """Return the sequence that answers a request.

    Args:
        request: The request.
        ids: The ids of its prompt, from `encode_prompt`.

    Returns:
        The sequence, for `TextBatch.add`.
    """
    return TokenSequence(
        ids,
        request.sampling,
        request.seed,
        request.sample,
        max(1, request.length) if request.echo else request.length,
        request.logprobs,
        request.echo,
        request=request,
    )


class TextBatch:
    """Texts that are generated together.

    Texts can be added and removed between steps. A step adds a token to each text whose prompt has been prefilled. A
    text is removed with its last chunk. Only one thread may use a batch.

    >>> with TextBatch(model) as batch:
    ...     number = batch.add(prepare(Request("Hello", length=20), model.encoder.encode("Hello")))
    ...     while batch.texts:
    ...         for chunk in batch.step():
    ...             print(chunk.text, end="")
    """

    def __init__(self, model: Model, prefill_budget: int | None = None) -> None:
        """Create an empty batch.

        Args:
            model: The model that generates.
            prefill_budget: Number of prompt ids that a step computes along with other texts' next ids; None for the
                default of `Batch`.
        """
        self.model = model
        self.batch = Batch(model.backend, model.prefixes, prefill_budget=prefill_budget)
        self.texts: dict[int, _Text] = {}

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.texts)

    def __enter__(self) -> TextBatch:
        """Return the batch itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Remove all texts."""
        self.batch.__exit__(*error)

    def can_start(self, sequence: TokenSequence) -> bool:
        """Return whether there is enough memory to start the sequence immediately."""
        return self.batch.can_start(sequence)

    def add(self, sequence: TokenSequence) -> int:
        """Add the text of a sequence from `prepare`.

        Returns:
            The number of the text in the batch, which its chunks contain as `request`.

        Raises:
            UsageError: The prompt or a bias has ids outside the model's vocabulary.
        """
        assert sequence.request is not None, "the sequence has no request; create it with `prepare`"
        number = self.batch.add(sequence)
        try:
            self.texts[number] = _Text(self.model.encoder, number, sequence.request)
        except BaseException:  # a sequence without a text would stay in the batch
            self.batch.remove(number)
            raise
        return number

    def remove(self, number: int) -> None:
        """Remove a text that is no longer needed."""
        del self.texts[number]
        self.batch.remove(number)

    def step(self) -> list[TextChunk]:
        """Return the next chunk of each text whose prompt has been prefilled."""
        chunks = []
        for number, text in self.texts.items():
            if not text.request.length and not text.request.echo:  # no token is requested
                chunks.append(TextChunk(number, "", FINISH_LENGTH))
        for chunk in chunks:
            self.remove(chunk.request)
        for choice in self.batch.step() if self.texts else []:
            text = self.texts[choice.sequence]
            prompt: tuple[TokenChoice | None, ...] = ()
            if text.request.echo and not text.has_started:
                prompt = tuple(self.batch.prompt_choices(choice.sequence))
            chunk = text.feed(choice, prompt)
            chunks.append(chunk)
            if chunk.finish_reason:
                self.remove(choice.sequence)
        return chunks


class _Text:
    """A converter of one request's tokens to its text, up to a stop string or its length."""

    def __init__(self, encoder: Vocabulary, number: int, request: Request) -> None:
        self.number = number
        self.request = request
        self.ending_ids = encoder.ending_ids if request.end_of_text else frozenset()
        prompt = request.prompt
        self.stream = encoder.stream(prompt if prompt is None or isinstance(prompt, str) else encoder.decode(prompt))
        self.stops = StopStrings(request.stop) if request.stop else None
        self.n_left = request.length
        self.has_started = False

    def feed(self, choice: TokenChoice, prompt: tuple[TokenChoice | None, ...]) -> TextChunk:
        """Return the chunk of text that a token adds."""
        self.has_started = True
        if not self.request.length:  # only the prompt's log-probabilities are requested
            return TextChunk(self.number, "", FINISH_LENGTH, None, prompt)
        self.n_left -= 1
        is_end_of_text = choice.id in self.ending_ids
        is_last = self.n_left == 0 or is_end_of_text
        text = "" if is_end_of_text else self.stream.feed([choice.id])
        if is_last:
            text += self.stream.finish()
        is_stopped = is_end_of_text
        if self.stops is not None:
            text = self.stops.feed(text)
            if is_last:
                text += self.stops.finish()
            is_stopped = is_end_of_text or self.stops.has_stopped
        finish_reason = ""
        if is_stopped:
            finish_reason = FINISH_STOP
        elif is_last:
            finish_reason = FINISH_LENGTH
        return TextChunk(self.number, text, finish_reason, choice, prompt)
