"""The slow obvious way to write ids: the whole text through the model again for every token, op by op."""

import numpy as np
import tensorflow as tf

from gpt2 import model, sample
from gpt2.engine.batch import Row
from gpt2.request import Sampling

GREEDY = Sampling(temperature=0)


def take(batch, n):
    """n ids of each row, [B][n]."""
    return np.array([batch.next() for _ in range(n)]).T.tolist()


def decode_slowly(backend, row, n):
    """No cache and no batch: what every fast path has to give."""
    n_ctx = backend.hparams.n_ctx
    seen, window = list(row.prompt), list(row.prompt)
    if len(window) > n_ctx:
        window = window[-(n_ctx - 1) :]
    numbers = sample.RandomNumbers(row.seed, row.sample)
    for _ in range(n):
        if len(window) > n_ctx:
            window = window[-(n_ctx // 2) :]
        logits, _, _ = model.model(backend.weights, backend.hparams, tf.constant([window]))
        flags = np.zeros(backend.hparams.n_vocab, bool)
        flags[seen] = True
        words = numbers.next(backend.hparams.n_vocab)
        token = sample.next_token(logits[0, -1].numpy(), row.sampling, words, flags)
        window.append(token)
        seen.append(token)
    return seen[len(row.prompt) :]


ROWS = [
    Row([1, 2, 3], GREEDY),
    Row([250], Sampling(top_k=40), seed=1),
    Row(list(range(20)), Sampling(temperature=0.7, top_p=0.9), seed=1, sample=1),
    Row([9] * 31, Sampling(repetition_penalty=1.3), seed=2),
    Row(list(range(32)), Sampling(temperature=1.5), seed=3),  # as long as the window
    Row(list(range(50)), Sampling(repetition_penalty=1.1), seed=4),  # longer
]
