"""Log-probabilities of a text's ids, and of all ids at each position.

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
from gpt2.request import Sampling
from gpt2.text_batch import Model

GREEDY = Sampling(temperature=0)


class LogProbs(np.ndarray):
    """A NumPy array with the methods of PyTorch's tensors that programs call on log-probabilities."""

    def numpy(self) -> np.ndarray:
        """Return a plain array."""
        return self.view(np.ndarray)

    def detach(self) -> LogProbs:
        """Return the array itself."""
        return self

    cpu = detach

    def exp(self) -> LogProbs:
        """Return the exponentials of all elements."""
        return np.exp(self.numpy()).view(LogProbs)

    def topk(self, k: int) -> tuple[LogProbs, np.ndarray]:
        """Return the k largest values of the last dimension in descending order, and their indices."""
        indices: Any = np.argsort(-self.numpy(), axis=-1, kind="stable")[..., :k]
        return np.take_along_axis(self.numpy(), indices, axis=-1).view(LogProbs), indices


def all_log_probs(model: Model, ids: Sequence[int]) -> LogProbs:
    """Return the log-probabilities of the next id at each position of a text.

    Args:
        model: The model.
        ids: The ids of the text [T], at most n_ctx.

    Returns:
        [T, V] float32.
    """
    pool = model.prefixes.pool
    blocks: list[int] = []
    log_probs = np.empty((len(ids), model.hparams.n_vocab), np.float32)
    try:
        for _ in range(blocks_for(len(ids))):
            blocks.append(pool.allocate())
        for start in range(0, len(ids), ECHO_CHUNK_IDS):
            chunk = ids[start : start + ECHO_CHUNK_IDS]
            logits = model.backend.extend(pool, [Segment(blocks, start, chunk, len(chunk))])
            log_probs[start : start + len(chunk)] = logits.values - logits.log_totals[:, None]
    finally:
        pool.release(blocks)
    return log_probs.view(LogProbs)


def top_next_ids(model: Model, ids: Sequence[int], count: int) -> list[tuple[int, float]]:
    """Return the most likely next ids after a text with their log-probabilities, most likely first.

    Args:
        model: The model.
        ids: The ids of the text; if it is longer than the window, only its end is used.
        count: Number of ids to return.
    """
    with Batch(model.backend, model.prefixes) as batch:
        batch.add(TokenSequence(ids, GREEDY, length=1, top_logprobs=count))
        return list(_first_choices(batch)[0].likeliest)


def text_log_probs(model: Model, texts: Iterable[Sequence[int] | np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the log-probabilities of each text's ids from the second one on, [T - 1] float32.

    Args:
        model: The model.
        texts: The ids of each text [T], with T from 2 to n_ctx + 1.
    """
    spans = (scoring.Span(np.asarray(ids), len(ids) - 1) for ids in texts)
    return (span_scores.logprobs for span_scores in scoring.score_spans(model.backend, spans))


def _first_choices(batch: Batch) -> list[TokenChoice]:
    """Step until the batch makes choices, and return them."""
    while not (choices := batch.step()):
        pass
    return choices
