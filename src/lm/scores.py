"""Log-probabilities of ids: of those that occur, and of all.

Shapes: T time, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from gpt2.engine import scoring
from gpt2.engine.backend import Segment
from gpt2.engine.batch import ECHO_CHUNK_IDS, Batch
from gpt2.engine.kv_cache import blocks_for
from gpt2.engine.token_sequence import TokenChoice, TokenSequence
from gpt2.generate import Model
from gpt2.request import Sampling

GREEDY = Sampling(temperature=0)


class LogProbs(np.ndarray):
    """An array with those methods of PyTorch's tensors that programs use on log-probabilities."""

    def numpy(self) -> np.ndarray:
        return self.view(np.ndarray)

    def detach(self) -> LogProbs:
        return self

    cpu = detach

    def exp(self) -> LogProbs:
        return np.exp(self.numpy()).view(LogProbs)

    def topk(self, k: int) -> tuple[LogProbs, np.ndarray]:
        """The k largest of the last dimension, largest first, and where they are."""
        places: Any = np.argsort(-self.numpy(), axis=-1, kind="stable")[..., :k]
        return np.take_along_axis(self.numpy(), places, axis=-1).view(LogProbs), places


def of_all(model: Model, ids: Sequence[int]) -> LogProbs:
    """What each position of a text of at most n_ctx ids says of the next one: ids [T] -> [T, V] float32."""
    blocks, taken = model.prefixes.pool, []
    found = np.empty((len(ids), model.hparams.n_vocab), np.float32)
    try:
        for _ in range(blocks_for(len(ids))):
            taken.append(blocks.allocate())
        for start in range(0, len(ids), ECHO_CHUNK_IDS):
            part = ids[start : start + ECHO_CHUNK_IDS]
            logits = model.backend.extend(blocks, [Segment(taken, start, part, len(part))])
            found[start : start + len(part)] = logits.values - logits.log_totals[:, None]
    finally:
        blocks.release(taken)
    return found.view(LogProbs)


def following(model: Model, ids: Sequence[int], likeliest: int) -> list[tuple[int, float]]:
    """The ids that are likeliest after a text, with their log-probabilities, the likeliest first. Of a text longer than
    the window its end counts."""
    with Batch(model.backend, model.prefixes) as batch:
        batch.add(TokenSequence(ids, GREEDY, length=1, top_logprobs=likeliest))
        return list(_steps(batch)[0].likeliest)


def of_texts(model: Model, texts: Iterable[Sequence[int] | np.ndarray]) -> Iterator[np.ndarray]:
    """The log-probabilities of each text's ids [T], 2 to n_ctx + 1 of them, from the second one on: [T - 1] float32."""
    spans = (scoring.Span(np.asarray(ids), len(ids) - 1) for ids in texts)
    return (found.logprobs for found in scoring.score_spans(model.backend, spans))


def _steps(batch: Batch) -> list[TokenChoice]:
    """The choices of the first step that has some."""
    while not (choices := batch.step()):
        pass
    return choices
