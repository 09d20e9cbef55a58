"""Prompts in, text out: loading a model, batches of samples, stop strings, streaming.

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
from gpt2.engine.load import load_backend
from gpt2.engine.prefix_cache import PrefixCache
from gpt2.engine.token_sequence import Row, TokenChoice, truncate_to_window
from gpt2.files import no_callback
from gpt2.formats.directory import ModelDir
from gpt2.formats.model_dir import DEFAULT_MODEL, DEFAULT_MODELS_DIR, find_model, load_vocabulary
from gpt2.hparams import HParams
from gpt2.request import DEFAULT_PRECISION, Prompt, Request, check_precision, require_integer
from gpt2.text.stop import StopStrings
from gpt2.text.vocabulary import Vocabulary

FINISH_LENGTH, FINISH_STOP = "length", "stop"  # why a text ended: it has all its tokens, or came to a stop string


@dataclasses.dataclass(frozen=True)
class Model:
    """A vocabulary and a backend that belong together; as many as memory allows live side by side."""

    encoder: Vocabulary
    backend: Backend
    prefixes: PrefixCache = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefixes", PrefixCache(self.backend.new_blocks()))

    @property
    def hparams(self) -> HParams:
        return self.backend.hparams


class TextChunk(NamedTuple):
    """Text that a request has just gained, with the token that brought it; empty if that ends within a character, or
    may be the beginning of a stop string."""

    request: int  # its place among the requests, or the number that a Writer gave it
    text: str
    ended: str = ""  # LENGTH or STOP, with a request's last piece
    token: TokenChoice | None = None  # None of a request for no tokens
    prompt: tuple[TokenChoice | None, ...] = ()  # with the first piece of a request with `echo`, the prompt's tokens


class Completion(NamedTuple):
    """A text with the tokens that were written for it, those of a stop string included, and why it ended."""

    text: str
    tokens: list[TokenChoice]
    ended: str
    prompt: tuple[TokenChoice | None, ...] = ()  # of a request with `echo`; the first token has no log-probability


def load(
    model_name: str = DEFAULT_MODEL,
    models_dir: str = DEFAULT_MODELS_DIR,
    precision: str = DEFAULT_PRECISION,
    threads: int | None = None,
    cache: bool = True,
) -> Model:
    """Loads a model by its name under `models_dir` or by the path of its directory.

    precision: of the weights in memory, one of `request.PRECISIONS`. threads: that compute, at most
    `machine.MAX_THREADS`; all cores if None. cache: whether the weights as they are packed for this machine are kept in
    the user's cache, where the next process finds them. Raises GPT2Error if the model is not there, damaged, or not of
    one piece, UsageError for another precision or more threads.
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
    """The last part of `load`, which takes long. notify: told what takes longest. Raises GPT2Error for damage."""
    return Model(encoder, load_backend(directory, precision, notify=notify, threads=threads, cache=cache))


def generate(model: Model, requests: Iterable[Request], batch_size: int = 1) -> Iterator[str]:
    """The texts of the requests, in their order; `batch_size` of them are written at a time.

    It changes speed and memory only: a sample's text depends on its request alone. Raises UsageError unless batch_size
    is a whole number of at least 1.
    """
    return (completion.text for completion in completions(model, requests, batch_size))


def completions(model: Model, requests: Iterable[Request], batch_size: int = 1) -> Iterator[Completion]:
    """`generate`, with all that is known of the texts."""
    return completions_in_order(stream(model, requests, batch_size))


def completions_in_order(pieces: Iterable[TextChunk]) -> Iterator[Completion]:
    """What the requests have come to in their order, each as soon as it and those before it are complete."""
    parts: dict[int, list[TextChunk]] = {}
    first = 0
    for piece in pieces:
        parts.setdefault(piece.request, []).append(piece)
        while first in parts and parts[first][-1].ended:
            yield _joined(parts.pop(first))
            first += 1


def _joined(parts: list[TextChunk]) -> Completion:
    tokens = [part.token for part in parts if part.token is not None]
    return Completion("".join(part.text for part in parts), tokens, parts[-1].ended, parts[0].prompt)


def stream(model: Model, requests: Iterable[Request], batch_size: int | None = None) -> Iterator[TextChunk]:
    """The texts of the requests as they are written, `batch_size` at a time (None: all); each ends with one last piece.

    When a text has ended the next request takes its place; a request is asked for when there is a place for it, and for
    as many places as there is memory, which a warning says. A text is never cut inside a character, and what may be the
    beginning of a stop string is held back. Closing the iterator early is all it takes to stop.
    """
    if batch_size is not None:
        require_integer("batch_size", batch_size, 1)
    return _stream(model, requests, batch_size)


def _stream(model: Model, requests: Iterable[Request], batch_size: int | None) -> Iterator[TextChunk]:
    places: dict[int, int] = {}  # of the requests, by the numbers that the writer has for them
    with TextBatch(model) as writer:
        asked_for = enumerate(_all_asked(model, requests))
        waiting = next(asked_for, None)
        while writer or waiting:
            while waiting and (batch_size is None or len(writer) < batch_size):
                place, text = waiting
                if not writer.has_room(text):
                    batch_size = _as_many_as_there_is_room_for(len(writer), batch_size)
                    break
                places[writer.add(text)] = place
                waiting = next(asked_for, None)
            for piece in writer.step():
                yield piece._replace(request=places[piece.request])


def _as_many_as_there_is_room_for(count: int, batch_size: int | None) -> int:
    if batch_size is not None:
        warnings.warn(f"memory has room for {count} samples at a time, not for {batch_size}", stacklevel=4)
    return count


class Asked(NamedTuple):
    """A request, and the row of ids that it comes to."""

    request: Request
    row: Row


def asked(request: Request, ids: Sequence[int]) -> Asked:
    """ids: of its prompt."""
    length = max(1, request.length) if request.echo else request.length
    return Asked(
        request, Row(ids, request.sampling, request.seed, request.sample, length, request.logprobs, request.echo)
    )


def encode_prompt(encoder: Vocabulary, prompt: Prompt) -> Sequence[int]:
    """What a row begins with."""
    if prompt is None:
        return [encoder.end_of_text]
    if not isinstance(prompt, str):
        return prompt
    return encoder.encode(prompt) or [encoder.end_of_text]  # spaces alone may be nothing


def _all_asked(model: Model, requests: Iterable[Request]) -> Iterator[Asked]:
    """A warning says how much is kept of a prompt that is too long."""
    prompt: Prompt = ""  # which no request has
    ids: Sequence[int] = []
    for request in requests:
        if request.prompt != prompt:  # most come several times
            prompt, ids = request.prompt, encode_prompt(model.encoder, request.prompt)
            kept = len(truncate_to_window(ids, model.hparams.n_ctx))
            if kept < len(ids):
                warnings.warn(f"the prompt has {len(ids)} tokens; the window keeps its last {kept}", stacklevel=4)
        yield asked(request, ids)


class TextBatch:
    """Texts that are written together: they come and go, and each step brings some of them a token.

    >>> with Writer(model) as writer:
    ...     number = writer.add(asked(Request("Hello", length=20), model.encoder.encode("Hello")))
    ...     while writer:
    ...         for piece in writer.step():
    ...             print(piece.text, end="")

    Who writes to several at a time calls it from one thread. A text that has ended has left when its last piece comes.
    beside: see `Batch`.
    """

    def __init__(self, model: Model, beside: int | None = None) -> None:
        self.model = model
        self.batch = Batch(model.backend, model.prefixes, beside=beside)
        self.texts: dict[int, _Text] = {}

    def __len__(self) -> int:
        return len(self.texts)

    def __enter__(self) -> TextBatch:
        return self

    def __exit__(self, *error: object) -> None:
        self.batch.__exit__(*error)

    def has_room(self, asked: Asked) -> bool:
        """Whether it could begin at once."""
        return self.batch.has_room(asked.row)

    def add(self, asked: Asked) -> int:
        """The number by which its pieces are known. Raises UsageError for ids that the model does not have."""
        number = self.batch.add(asked.row)
        self.texts[number] = _Text(self.model.encoder, number, asked.request)
        return number

    def remove(self, number: int) -> None:
        """The text is no longer wanted."""
        del self.texts[number]
        self.batch.remove(number)

    def step(self) -> list[TextChunk]:
        """What has come of the texts, none perhaps while prompts are read."""
        pieces = [TextChunk(number, "", FINISH_LENGTH) for number, text in self.texts.items() if text.is_nothing]
        for piece in pieces:
            self.remove(piece.request)
        for choice in self.batch.step() if self.texts else []:
            text = self.texts[choice.row]
            pieces.append(text.feed(choice, () if text.begun else tuple(self.batch.echo(choice.row))))
            if pieces[-1].ended:
                self.remove(choice.row)
        return pieces


class _Text:
    """One request's tokens -> its text, up to a stop string or its length."""

    def __init__(self, encoder: Vocabulary, number: int, request: Request) -> None:
        self.number, self.request = number, request
        self.last_id = encoder.end_of_text if request.end_of_text else None
        prompt = request.prompt
        self.stream = encoder.stream(prompt if prompt is None or isinstance(prompt, str) else encoder.decode(prompt))
        self.stops = StopStrings(request.stop)
        self.left = request.length
        self.begun = False

    @property
    def is_nothing(self) -> bool:
        """Whether no step is needed for it."""
        return not self.request.length and not self.request.echo

    def feed(self, choice: TokenChoice, prompt: tuple[TokenChoice | None, ...]) -> TextChunk:
        self.begun = True
        if not self.request.length:  # the prompt alone was asked for
            return TextChunk(self.number, "", FINISH_LENGTH, None, prompt)
        self.left -= 1
        is_last = choice.id == self.last_id
        text = "" if is_last else self.stops.feed(self.stream.feed([choice.id]))
        if self.left == 0 or is_last:
            text += self.stops.feed(self.stream.finish()) + self.stops.finish()
        ended = FINISH_STOP if self.stops.found or is_last else FINISH_LENGTH if self.left == 0 else ""
        return TextChunk(self.number, text, ended, choice, prompt)
