"""Ids from a batch, and the slow, obvious way to generate them: without a cache, one sequence and one id at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from gpt2 import model, sample
from gpt2.engine.backend import Backend
from gpt2.engine.batch import Batch
from gpt2.engine.tensorflow import TensorFlowBackend
from gpt2.engine.token_sequence import TokenSequence
from gpt2.request import Sampling

GREEDY = Sampling(temperature=0)
# For models with a window of 32.
SEQUENCES = [
    TokenSequence([1, 2, 3], GREEDY),
    TokenSequence([250], Sampling(top_k=40), seed=1),
    TokenSequence(list(range(20)), Sampling(temperature=0.7, top_p=0.9), seed=1, sample=1),
    TokenSequence([9] * 31, Sampling(repetition_penalty=1.3), seed=2),
    TokenSequence(list(range(32)), Sampling(temperature=1.5), seed=3),  # as long as the window
    TokenSequence(list(range(50)), Sampling(repetition_penalty=1.1), seed=4),  # longer
    TokenSequence([1, 2, 3], Sampling(frequency_penalty=0.5, presence_penalty=1, min_p=0.1, logit_bias={7: 2}), seed=5),
]


def generate_ids(backend: Backend, sequences: Iterable[TokenSequence], n: int, **options: Any) -> list[list[int]]:
    """Return n new ids of each sequence [B][n], generated together in one batch with these options."""
    with Batch(backend, **options) as batch:
        return collect_ids(batch, [batch.add(sequence) for sequence in sequences], n)


def collect_ids(batch: Batch, numbers: Sequence[int], n: int) -> list[list[int]]:
    """Return the next n ids of these sequences of the batch [B][n], and remove each one when it has them."""
    ids: dict[int, list[int]] = {number: [] for number in numbers}
    while any(len(new) < n for new in ids.values()):
        for choice in batch.step():
            if choice.sequence in ids:
                ids[choice.sequence].append(choice.id)
                if len(ids[choice.sequence]) == n:
                    batch.remove(choice.sequence)
    return [ids[number] for number in numbers]


def generate_slowly(backend: TensorFlowBackend, sequence: TokenSequence, n: int) -> list[int]:
    """Return n new ids of a sequence; for each, the whole window goes through the model again, op by op."""
    n_ctx = backend.hparams.n_ctx
    new: list[int] = []
    window = list(sequence.prompt)
    if len(window) > n_ctx:
        window = window[-(n_ctx - 1) :]
    numbers = sample.RandomNumbers(sequence.seed, sequence.sample)
    for token in range(n):
        if len(window) > n_ctx:
            window = window[-(n_ctx // 2) :]
        logits, _, _ = model.model(backend.weights, backend.hparams, tf.constant([window]))
        words = numbers.words(token, backend.hparams.n_vocab)
        new.append(sample.next_token(logits[0, -1].numpy(), sequence.sampling, words, sequence.prompt, new))
        window.append(new[-1])
    return new
