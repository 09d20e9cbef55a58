"""Text generation: loading a model, batches of samples, stop strings, streaming.

>>> model = load("124M")
>>> for text in generate(model, [Request("Hello, my name is", length=20, seed=1)]):
...     print(text)
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from gpt2.devices import check_threads
from gpt2.engine.backend import Backend
from gpt2.engine.batch import Batch
from gpt2.engine.kv_cache import PrefixCache
from gpt2.engine.load import load_backend
from gpt2.engine.token_sequence import TokenChoice, TokenSequence, truncate_to_window
from gpt2.files import no_callback
from gpt2.formats.directory import ModelDir
from gpt2.formats.model_dir import DEFAULT_MODEL, DEFAULT_MODELS_DIR, find_model, load_vocabulary
from gpt2.hparams import HParams
from gpt2.request import DEFAULT_PRECISION, Prompt, Request, check_precision, require_integer
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


class Completion(NamedTuple):
    """A complete generated text.

    Attributes:
        text: The text.
        tokens: The generated tokens, including the tokens of a stop string.
        finish_reason: FINISH_LENGTH or FINISH_STOP.
        prompt: The prompt's tokens, for a request with `echo`; the first one has no log-probability.
    """

    text: str
    tokens: list[TokenChoice]
    finish_reason: str
    prompt: tuple[TokenChoice | None, ...] = ()

    @property
    def ended(self) -> str:
        """The former name of `finish_reason`."""
        return self.finish_reason


def load(
    model_name: str = DEFAULT_MODEL,
    models_dir: str = DEFAULT_MODELS_DIR,
    precision: str = DEFAULT_PRECISION,
    threads: int | None = None,
    cache: bool = True,
) -> Model:
    """Load a model.

    Args:
        model_name: The model's name under `models_dir`, or the path of its directory or file.
        models_dir: The folder that holds model directories.
        precision: The weights' precision in memory, one of `request.PRECISIONS`.
        threads: How many threads compute, at most `devices.MAX_THREADS`; None for one per core.
        cache: Whether packed weights are loaded from the user's cache, and stored there for the next process.

    Returns:
        The model.

    Raises:
        GPT2Error: The model is missing or damaged, or its files do not belong together.
        UsageError: The precision or the number of threads is not allowed.
    """
    check_precision(precision)
    check_threads(threads)
    directory = find_model(model_name, models_dir)
    return load_weights(directory, load_vocabulary(directory), precision, threads=threads, cache=cache)


def load_weights(
    directory: ModelDir,
    encoder: Vocabulary,
    precision: str = DEFAULT_PRECISION,
    notify: Callable[[str], None] = no_callback,
    threads: int | None = None,
    cache: bool = True,
) -> Model:
    """Load the weights of a model whose vocabulary is already loaded.

    This is the slow part of `load`.

    Args:
        directory: The model's files.
        encoder: The model's vocabulary.
        precision: The weights' precision in memory, as in `load`.
        notify: Called with a line of text before each especially slow step.
        threads: How many threads compute, as in `load`.
        cache: Whether packed weights are loaded and stored, as in `load`.

    Returns:
        The model.

    Raises:
        GPT2Error: The files are damaged.
    """
    return Model(encoder, load_backend(directory, precision, notify=notify, threads=threads, cache=cache))


def generate(model: Model, requests: Iterable[Request], batch_size: int = 1) -> Iterator[str]:
    """Generate the texts of the requests, in their order.

    Args:
        model: The model.
        requests: The requests.
        batch_size: How many texts are generated at the same time. It changes speed and memory only: a sample's text
            depends on its request alone.

    Returns:
        An iterator over the texts.

    Raises:
        UsageError: batch_size is not a whole number of at least 1.
    """
    return (completion.text for completion in completions(model, requests, batch_size))


def completions(model: Model, requests: Iterable[Request], batch_size: int = 1) -> Iterator[Completion]:
    """Generate texts like `generate`, and yield each with its tokens and the reason why it ended.

    Args:
        model: The model.
        requests: The requests.
        batch_size: How many texts are generated at the same time, as in `generate`.

    Returns:
        An iterator over the completions, in the order of the requests.

    Raises:
        UsageError: batch_size is not a whole number of at least 1.
    """
    return completions_in_order(stream(model, requests, batch_size))


def completions_in_order(chunks: Iterable[TextChunk]) -> Iterator[Completion]:
    """Join chunks into completions, and yield them in the order of the requests.

    A completion is yielded as soon as it and all previous ones are complete.
    """
    received: dict[int, list[TextChunk]] = {}
    first = 0
    for chunk in chunks:
        received.setdefault(chunk.request, []).append(chunk)
        while first in received and received[first][-1].finish_reason:
            yield _join_chunks(received.pop(first))
            first += 1


def _join_chunks(chunks: list[TextChunk]) -> Completion:
    text = "".join(chunk.text for chunk in chunks)
    tokens = [chunk.token for chunk in chunks if chunk.token is not None]
    return Completion(text, tokens, chunks[-1].finish_reason, chunks[0].prompt)


def stream(model: Model, requests: Iterable[Request], batch_size: int | None = None) -> Iterator[TextChunk]:
    """Generate the texts of the requests and yield them chunk by chunk.

    When a text ends, the next request starts. A request is taken from the iterable only when it can start. Text is
    never cut inside a character, and a possible start of a stop string is held back. Closing the iterator early stops
    all texts. If there is not enough memory for batch_size texts, a warning says so.

    Args:
        model: The model.
        requests: The requests.
        batch_size: How many texts are generated at the same time; None for all that fit into memory.

    Returns:
        An iterator over chunks; each request's last one has a finish_reason.

    Raises:
        UsageError: batch_size is not a whole number of at least 1.
    """
    if batch_size is not None:
        require_integer("batch_size", batch_size, 1)
    return _stream(model, requests, batch_size)


def _stream(model: Model, requests: Iterable[Request], batch_size: int | None) -> Iterator[TextChunk]:
    indices: dict[int, int] = {}  # number in the batch -> index of the request
    with TextBatch(model) as batch:
        pending = enumerate(_prepare_all(model, requests))
        following = next(pending, None)
        while batch.texts or following:
            while following and (batch_size is None or len(batch) < batch_size):
                index, sequence = following
                if not batch.can_start(sequence):
                    if batch_size is not None:
                        _warn_of_memory(len(batch), batch_size)
                    batch_size = len(batch)
                    break
                indices[batch.add(sequence)] = index
                following = next(pending, None)
            for chunk in batch.step():
                yield chunk._replace(request=indices[chunk.request])


def _warn_of_memory(n_texts: int, batch_size: int) -> None:
    warnings.warn(f"there is memory for {n_texts} samples at the same time, not for {batch_size}", stacklevel=4)


def _prepare_all(model: Model, requests: Iterable[Request]) -> Iterator[TokenSequence]:
    """Prepare the requests, and warn of each prompt that is longer than the window."""
    prompt: Prompt = ""  # no request has an empty prompt
    ids: Sequence[int] = []
    for request in requests:
        if request.prompt != prompt:  # most prompts are requested several times in a row
            prompt = request.prompt
            ids = encode_prompt(model.encoder, prompt)
            n_used = len(truncate_to_window(ids, model.hparams.n_ctx))
            if n_used < len(ids):
                warnings.warn(f"the prompt has {len(ids)} tokens; only its last {n_used} fit the window", stacklevel=4)
        yield prepare(request, ids)


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
            prefill_budget: How many prompt ids a step computes along with other texts' next ids; None for the default
                of `Batch`.
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
        self.texts[number] = _Text(self.model.encoder, number, sequence.request)
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
    """Turns the tokens of one request into its text, up to a stop string or its length."""

    def __init__(self, encoder: Vocabulary, number: int, request: Request) -> None:
        self.number = number
        self.request = request
        self.last_id = encoder.end_of_text if request.end_of_text else None
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
        is_end_of_text = choice.id == self.last_id
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
