"""Text generation: loading a model, batches of samples, stop strings, streaming.

>>> model = load("124M")
>>> for text in generate(model, [Request("Hello, my name is", length=20, seed=1)]):
...     print(text)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from gpt2.devices import check_threads
from gpt2.engine.load import load_backend
from gpt2.engine.token_sequence import TokenChoice, TokenSequence, truncate_to_window
from gpt2.files import no_callback
from gpt2.formats.directory import ModelDir
from gpt2.formats.model_dir import DEFAULT_MODEL, DEFAULT_MODELS_DIR, find_model, load_vocabulary
from gpt2.request import DEFAULT_PRECISION, Prompt, Request, check_precision, require_integer
from gpt2.text.vocabulary import Vocabulary
from gpt2.text_batch import Model, TextBatch, TextChunk, encode_prompt, prepare


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
        threads: Number of compute threads, at most `devices.MAX_THREADS`; None for one per core.
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
        threads: Number of compute threads, as in `load`.
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
        batch_size: Number of texts that are generated at the same time. It changes speed and memory only: the text of
            a sample depends on its request alone.

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
        batch_size: Number of texts that are generated at the same time, as in `generate`.

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
        batch_size: Number of texts that are generated at the same time; None for all that fit into memory.

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
    has_warned = False
    with TextBatch(model) as batch:
        pending = enumerate(_prepare_all(model, requests))
        following = next(pending, None)
        while batch.texts or following:
            while following and (batch_size is None or len(batch) < batch_size):
                index, sequence = following
                if not batch.can_start(sequence):
                    if batch_size is not None and not has_warned:
                        _warn_of_memory(len(batch), batch_size)
                        has_warned = True
                    break  # it waits for memory; later requests may need less, so batch_size remains
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
