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

import numpy as np

from gpt2 import machine
from gpt2.engine.backend import Backend
from gpt2.engine.batch import Batch, Row, last_of_window
from gpt2.engine.cache import capacity_for
from gpt2.engine.load import load_backend
from gpt2.files import unheard
from gpt2.formats.model_dir import DEFAULT_MODEL, DEFAULT_MODELS_DIR, ModelDir, find_model, load_vocabulary
from gpt2.hparams import HParams
from gpt2.machine import check_threads
from gpt2.request import DEFAULT_PRECISION, Request, check_precision, whole
from gpt2.text.stop import StopStrings
from gpt2.text.vocabulary import TextEncoder

SHARE = 0.5  # of the memory that is left, for a batch's cache: what is computed on the way needs some too


@dataclasses.dataclass(frozen=True)
class Model:
    """A vocabulary and a backend that belong together; as many as memory allows live side by side."""

    encoder: TextEncoder
    backend: Backend

    @property
    def hparams(self) -> HParams:
        return self.backend.hparams


class Piece(NamedTuple):
    """Text that a row of a batch has just gained."""

    row: int
    text: str
    last: bool


def load(
    model_name: str = DEFAULT_MODEL,
    models_dir: str = DEFAULT_MODELS_DIR,
    precision: str = DEFAULT_PRECISION,
    threads: int | None = None,
) -> Model:
    """Loads a model by its name under `models_dir` or by the path of its directory.

    precision: of the weights in memory, one of `request.PRECISIONS`. threads: that compute, at most
    `machine.MAX_THREADS`; all cores if None. Raises GPT2Error if the model is not there, damaged, or not of one piece,
    UsageError for another precision or more threads.
    """
    check_precision(precision)
    check_threads(threads)
    directory = find_model(model_name, models_dir)
    return load_weights(directory, load_vocabulary(directory), precision, threads=threads)


def load_weights(
    directory: ModelDir,
    encoder: TextEncoder,
    precision: str = DEFAULT_PRECISION,
    notify: Callable[[str], None] = unheard,
    threads: int | None = None,
) -> Model:
    """The last part of `load`, which takes long. notify: told what takes longest. Raises GPT2Error for damage."""
    return Model(encoder, load_backend(directory, precision, notify=notify, threads=threads))


def generate(model: Model, requests: Iterable[Request], batch_size: int = 1) -> Iterator[str]:
    """The texts of the requests, in their order; `batch_size` of them are written at a time.

    It changes speed and memory only: a sample's text depends on its request alone.
    """
    for batch in batches(model, requests, batch_size):
        yield from in_order(stream(model, batch), len(batch))


def batches(model: Model, requests: Iterable[Request], batch_size: int) -> Iterator[list[Request]]:
    """The requests in lists of `batch_size` or, with a warning, of as many as there is memory for.

    Raises UsageError unless batch_size is a whole number of at least 1.
    """
    room = _room(model) if whole("batch_size", batch_size, 1) > 1 else 0
    batch: list[Request] = []
    longest = 0
    for request in requests:
        slots = _slots(model.hparams, request)
        longest = max(longest, slots)
        full = len(batch) == batch_size
        if batch and (full or (len(batch) + 1) * longest > room):
            if not full:
                warnings.warn(f"memory has room for {len(batch)} samples at a time, not for {batch_size}", stacklevel=2)
                batch_size = len(batch)
            yield batch
            batch, longest = [], slots
        batch.append(request)
    if batch:
        yield batch


def _room(model: Model) -> float:
    """How many tokens of a batch there is memory for, in the cache and while they are computed."""
    return SHARE * machine.available_memory() / model.backend.slot_bytes


def _slots(hparams: HParams, request: Request) -> int:
    """How many tokens a row of the cache has room for, at most: an id stands for a byte or more."""
    return capacity_for(len((request.prompt or "").encode("utf-8", "replace")) + request.length, hparams.n_ctx)


def in_order(pieces: Iterable[Piece], n_rows: int) -> Iterator[str]:
    """The texts of a batch's rows in their order, each as soon as it and those before it are complete."""
    texts = [""] * n_rows
    complete = [False] * n_rows
    first = 0
    for piece in pieces:
        texts[piece.row] += piece.text
        complete[piece.row] |= piece.last
        while first < n_rows and complete[first]:
            yield texts[first]
            first += 1


def stream(model: Model, requests: Sequence[Request]) -> Iterator[Piece]:
    """The texts of the requests as they are written, all in one batch; each row ends with one `last` piece.

    A text is never cut inside a character, and what may be the beginning of a stop string is held back.
    Closing the iterator early is all it takes to stop.
    """
    writing = [row for row, request in enumerate(requests) if request.length]
    yield from (Piece(row, "", True) for row, request in enumerate(requests) if not request.length)
    if not writing:
        return
    rows = [_RowText(model.encoder, requests[row]) for row in writing]
    batch = Batch(model.backend, _rows(model, [requests[row] for row in writing]))
    while not batch.done.all():
        ids = batch.next()
        for place in np.flatnonzero(~batch.done).tolist():
            text = rows[place].feed(int(ids[place]))
            if rows[place].ended:
                batch.finish(place)
            yield Piece(writing[place], text, rows[place].ended)


def _rows(model: Model, requests: Sequence[Request]) -> list[Row]:
    n_ctx = model.hparams.n_ctx
    prompts: dict[str | None, list[int]] = {}
    for text in dict.fromkeys(request.prompt for request in requests):
        ids = [model.encoder.end_of_text] if text is None else model.encoder.encode(text)
        prompts[text] = ids
        kept = len(last_of_window(ids, n_ctx))
        if kept < len(ids):
            warnings.warn(f"the prompt has {len(ids)} tokens; the window keeps its last {kept}", stacklevel=2)
    return [Row(prompts[request.prompt], request.sampling, request.seed, request.sample) for request in requests]


class _RowText:
    """One row's ids -> its text, up to a stop string or its length."""

    def __init__(self, encoder: TextEncoder, request: Request) -> None:
        self.stream = encoder.stream()
        self.stops = StopStrings(request.stop)
        self.left = request.length

    @property
    def ended(self) -> bool:
        return self.left == 0 or self.stops.found

    def feed(self, token: int) -> str:
        self.left -= 1
        text = self.stops.feed(self.stream.feed([token]))
        if self.left == 0:
            text += self.stops.feed(self.stream.finish()) + self.stops.finish()
        return text
