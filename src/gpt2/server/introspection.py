"""The values inside a model, computed by the NumPy reference: attention, and the next token that each layer predicts.

The engine has no hooks for this. The weights are read again from the model's files when they are first needed, and
retained while they are used. There are weights of one model at a time, and one text is computed at a time.

Shapes: T tokens, L layers, H heads, E embedding, V vocabulary.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from gpt2 import sample
from gpt2.devices import available_memory
from gpt2.engine import reference
from gpt2.errors import GPT2Error
from gpt2.hparams import HParams
from gpt2.server.errors import ApiError
from gpt2.server.insight_schema import LayerGuess
from gpt2.server.served_model import ServedModel

MAX_TOKENS = 256  # of a text
MAX_OPERATIONS = 1e12  # for a text: about half a minute on two cores
MAX_TEXTS = 8  # that wait or are computed
GUESSES_PER_POSITION = 5
NEXT_TOKENS = 50  # most likely ids at the end of the text
KEEP_WEIGHTS_SECONDS = 300.0  # after their last use
ATTENTION_SCALE = 65535  # the integer that stands for an attention weight of 1


@dataclasses.dataclass(frozen=True)
class LayerValues:
    """The layers' values for a text; numbers are in Base64, as described in `insight_schema.LayersResponse`.

    Attributes:
        attention: The attention weights of each layer.
        guesses: The predictions before the first layer and after each layer.
        logits: The logits of the next token, in descending order.
        top_ids: The ids of the first of these logits.
    """

    attention: list[str]
    guesses: list[LayerGuess]
    logits: str
    top_ids: list[int]

    def all_ids(self) -> set[int]:
        """Return all ids in the guesses and among the next tokens."""
        return {token for guess in self.guesses for ids in guess.ids for token in ids}.union(self.top_ids)


def count_operations(hparams: HParams, n_tokens: int) -> float:
    """Estimate the number of additions and multiplications for a text, most of them for the layers' predictions."""
    n_head_weights = (hparams.n_layer + 1) * hparams.n_vocab * hparams.token_size
    return 2.0 * n_tokens * (hparams.n_params + n_head_weights)


def count_bytes(hparams: HParams, n_tokens: int) -> int:
    """Estimate the bytes of memory for a text, including the weights."""
    n_attention = hparams.n_layer * hparams.n_head * n_tokens**2
    return 4 * (hparams.n_params + 2 * n_attention + 4 * n_tokens * hparams.n_vocab)


class LayerInspector:
    """An inspector of the values inside models, for one text at a time.

    Attributes:
        loaded: The model whose weights are in memory, and its weights; None if there are none.
        timer: Drops the weights after their last use.
    """

    def __init__(self) -> None:
        """Create an inspector without weights."""
        self.pool = ThreadPoolExecutor(1, "layers")
        self.n_texts = 0
        self.lock = threading.Lock()
        self.loaded: tuple[ServedModel, dict[str, Any]] | None = None
        self.timer = threading.Timer(0, self._drop_weights_later)

    def truncate(self, served: ServedModel, ids: Sequence[int]) -> Sequence[int]:
        """Return the last ids of a text, up to the limit.

        Raises:
            ApiError: The ids would take too long or too much memory, or the model's files are unknown.
        """
        hparams = served.model.hparams
        ids = ids[-min(MAX_TOKENS, hparams.n_ctx) :]
        if served.directory is None:
            raise ApiError(404, f"the layers of {served.name} cannot be computed: the server does not know its files")
        if count_operations(hparams, len(ids)) > MAX_OPERATIONS:
            max_tokens = int(MAX_OPERATIONS / count_operations(hparams, 1))
            message = (
                f"{len(ids)} tokens would take minutes with {served.name}; shorten the text to {max_tokens} tokens"
            )
            raise ApiError(400, message, "prompt")
        is_loaded = self.loaded is not None and self.loaded[0] is served
        n_bytes = count_bytes(hparams, len(ids))
        if not is_loaded and n_bytes > available_memory():
            message = f"there is not enough memory for the layers of {served.name}, which take {n_bytes / 1e9:.1f} GB"
            raise ApiError(503, f"{message}; free memory and try again")
        return ids

    async def inspect(self, served: ServedModel, ids: Sequence[int]) -> LayerValues:
        """Compute the layers of a text.

        Raises:
            ApiError: 429 if too many texts wait, 503 if the files cannot be read or memory does not suffice.
        """
        if self.n_texts >= MAX_TEXTS:
            raise ApiError(429, f"{MAX_TEXTS} texts are already waiting for their layers; try again in a moment")
        with self.lock:
            self.n_texts += 1
        future = self.pool.submit(self._inspect, served, ids)
        future.add_done_callback(lambda _: self._count_finished())
        try:
            return await asyncio.wrap_future(future)
        except GPT2Error as error:
            raise ApiError(503, str(error)) from error
        except MemoryError as error:
            raise ApiError(503, f"there is not enough memory for the layers of {served.name}") from error

    def _count_finished(self) -> None:
        with self.lock:
            self.n_texts -= 1

    def _inspect(self, served: ServedModel, ids: Sequence[int]) -> LayerValues:
        self.timer.cancel()
        try:
            return compute_layers(self._load_weights(served), served.model.hparams, ids)
        finally:
            self.timer = threading.Timer(KEEP_WEIGHTS_SECONDS, self._drop_weights_later)
            self.timer.daemon = True
            self.timer.start()

    def _load_weights(self, served: ServedModel) -> dict[str, Any]:
        if self.loaded is None or self.loaded[0] is not served:
            self.loaded = None  # frees the other model's weights before these are read
            assert served.directory is not None
            self.loaded = served, reference.read(served.directory.read())
        return self.loaded[1]

    def _drop_weights_later(self) -> None:
        """Drop the weights in the pool's thread, where nothing uses them at that time."""
        with contextlib.suppress(RuntimeError):  # the pool is closed when the process ends
            self.pool.submit(self._drop_weights)

    def _drop_weights(self) -> None:
        self.loaded = None


def compute_layers(weights: dict[str, Any], hparams: HParams, ids: Sequence[int]) -> LayerValues:
    """Compute the layers of a text.

    Args:
        weights: The weights for the reference.
        hparams: The model's sizes.
        ids: The text's ids [T].

    Returns:
        The layers' values.
    """
    trace = reference.trace(weights, hparams, ids)
    guesses = []
    for hidden in trace.hidden:
        logits = reference.unembed(weights, hparams, hidden)  # [T, V]: only one layer's are in memory
        guesses.append(_guess(logits, ids))
    next_logits = logits[-1]
    return LayerValues(
        [_encode_attention(attention) for attention in trace.attention],
        guesses,
        _base64(np.sort(next_logits)[::-1].astype("<f4")),
        sample.top_ids(next_logits, NEXT_TOKENS).tolist(),
    )


def _guess(logits: np.ndarray, ids: Sequence[int]) -> LayerGuess:
    """Return the most likely ids at each position by logits [T, V]."""
    logits = logits - logits.max(axis=-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    top_ids = [sample.top_ids(position, GUESSES_PER_POSITION) for position in logits]
    probabilities = [np.exp(position[top]).round(6).tolist() for position, top in zip(logits, top_ids)]
    actual = np.exp(logits[np.arange(len(ids) - 1), ids[1:]]).round(6).tolist()
    return LayerGuess(ids=[top.tolist() for top in top_ids], probabilities=probabilities, actual=actual)


def _encode_attention(attention: np.ndarray) -> str:
    """Encode a layer's attention weights [H, T, T] as [H, T * (T + 1) / 2] without the zeros above the diagonal."""
    rows, columns = np.tril_indices(attention.shape[-1])
    return _base64((attention[:, rows, columns] * ATTENTION_SCALE).round().astype("<u2"))


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")
