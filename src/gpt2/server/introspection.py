"""What happens inside a model, by the NumPy reference: attention, and what each layer would say next.

The engine gets no hook for it. The weights are read again from the model's files when they are needed first, kept while
they are used, and of one model at a time; so is one text at a time.

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
from gpt2.server.insight_schema import Guess
from gpt2.server.served_model import ServedModel

TOKENS = 256  # of a text, at most
OPERATIONS = 1e12  # of a text, at most: some half a minute of two cores
GUESSED, NAMED = 5, 50  # likeliest tokens at each layer and place, and those of the next token
KEPT = 300.0  # seconds from the last use of the weights until they are forgotten
WAITING = 8  # texts, the one that is computed included
STEPS = 65535  # of an attention weight from 0 to 1


@dataclasses.dataclass(frozen=True)
class Inside:
    """Numbers in Base64, and guesses, as `insight_schema.Layers` says."""

    attention: list[str]
    guesses: list[Guess]
    logits: str
    likeliest: list[int]

    def ids(self) -> set[int]:
        """All that are named."""
        return {token for guess in self.guesses for place in guess.ids for token in place}.union(self.likeliest)


def operations(hparams: HParams, tokens: int) -> float:
    """About how many additions and multiplications a text takes; most of them for what each layer would say."""
    heads = (hparams.n_layer + 1) * hparams.n_vocab * hparams.token_size
    return 2.0 * tokens * (hparams.n_params + heads)


def memory(hparams: HParams, tokens: int) -> int:
    """About how many bytes a text takes, the weights included."""
    attention = hparams.n_layer * hparams.n_head * tokens**2
    return 4 * (hparams.n_params + 2 * attention + 4 * tokens * hparams.n_vocab)


class Layers:
    """Looks into models, one text at a time."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, "layers")
        self.waiting = 0
        self.lock = threading.Lock()
        self.held: tuple[ServedModel, dict[str, Any]] | None = None
        self.forgetting = threading.Timer(0, self._forget)

    def kept(self, served: ServedModel, ids: Sequence[int]) -> Sequence[int]:
        """The last of them that are looked into. Raises ApiError where it would take too long, or too much memory."""
        hparams = served.model.hparams
        ids = ids[-min(TOKENS, hparams.n_ctx) :]
        if served.directory is None:
            raise ApiError(404, f"the files of {served.name} are not known here, and with them its insides")
        if operations(hparams, len(ids)) > OPERATIONS:
            most = int(OPERATIONS / operations(hparams, 1))
            said = f"of {served.name} {len(ids)} tokens would take minutes; it goes with {most}: shorten the text"
            raise ApiError(400, said, "prompt")
        is_held = self.held is not None and self.held[0] is served
        if not is_held and memory(hparams, len(ids)) > available_memory():
            needed = memory(hparams, len(ids)) / 1e9
            raise ApiError(503, f"there is not enough memory to look into {served.name}: it takes {needed:.1f} GB")
        return ids

    async def look(self, served: ServedModel, ids: Sequence[int]) -> Inside:
        """Raises ApiError: 429 if too many wait, 503 if the files cannot be read or memory is not enough."""
        if self.waiting >= WAITING:
            raise ApiError(429, f"{WAITING} texts are being looked into already; ask again in a moment")
        with self.lock:
            self.waiting += 1
        future = self.pool.submit(self._look, served, ids)
        future.add_done_callback(lambda _: self._leave())
        try:
            return await asyncio.wrap_future(future)
        except GPT2Error as error:
            raise ApiError(503, str(error)) from error
        except MemoryError as error:
            raise ApiError(503, f"there is not enough memory to look into {served.name}") from error

    def _leave(self) -> None:
        with self.lock:
            self.waiting -= 1

    def _look(self, served: ServedModel, ids: Sequence[int]) -> Inside:
        self.forgetting.cancel()
        try:
            return inside(self._weights(served), served.model.hparams, ids)
        finally:
            self.forgetting = threading.Timer(KEPT, self._forget)
            self.forgetting.daemon = True
            self.forgetting.start()

    def _weights(self, served: ServedModel) -> dict[str, Any]:
        if self.held is None or self.held[0] is not served:
            self.held = None  # before the other's are there too
            assert served.directory is not None
            self.held = served, reference.read(served.directory.read())
        return self.held[1]

    def _forget(self) -> None:
        with contextlib.suppress(RuntimeError):  # the pool is closed as the process ends
            self.pool.submit(self._let_go)

    def _let_go(self) -> None:
        self.held = None


def inside(weights: dict[str, Any], hparams: HParams, ids: Sequence[int]) -> Inside:
    """All that is shown of a text [T]."""
    seen = reference.trace(weights, hparams, ids)
    guesses = []
    for hidden in seen.hidden:
        logits = reference.unembed(weights, hparams, hidden)  # [T, V], of one layer at a time
        guesses.append(_guess(logits, ids))
    last = logits[-1]
    return Inside(
        [_attention(shares) for shares in seen.attention],
        guesses,
        _base64(np.sort(last)[::-1].astype("<f4")),
        sample.top_ids(last, NAMED).tolist(),
    )


def _guess(logits: np.ndarray, ids: Sequence[int]) -> Guess:
    """What is likeliest at each place, by logits [T, V]."""
    logits = logits - logits.max(axis=-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    likeliest = [sample.top_ids(place, GUESSED) for place in logits]
    probabilities = [np.exp(place[best]).round(6).tolist() for place, best in zip(logits, likeliest)]
    actual = np.exp(logits[np.arange(len(ids) - 1), ids[1:]]).round(6).tolist()
    return Guess(ids=[best.tolist() for best in likeliest], probabilities=probabilities, actual=actual)


def _attention(shares: np.ndarray) -> str:
    """Weights of a layer [H, T, T] -> [H, T * (T + 1) / 2], those above the diagonal left out."""
    rows, columns = np.tril_indices(shares.shape[-1])
    return _base64((shares[:, rows, columns] * STEPS).round().astype("<u2"))


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")
