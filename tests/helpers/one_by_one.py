"""The slow obvious way to write ids: the whole text through the model again for every token, op by op."""

import tensorflow as tf

from gpt2 import model, sample
from gpt2.engine.batch import Batch
from gpt2.engine.token_sequence import TokenSequence
from gpt2.request import Sampling

GREEDY = Sampling(temperature=0)


def take(backend, rows, n, **options):
    """n ids of each row, [B][n], all of them added at once."""
    with Batch(backend, **options) as batch:
        return collect(batch, [batch.add(row) for row in rows], n)


def collect(batch, numbers, n):
    """The next n ids of these rows of the batch, [B][n], each of which is removed when it has them."""
    ids = {number: [] for number in numbers}
    while any(len(found) < n for found in ids.values()):
        for choice in batch.step():
            if choice.sequence in ids:
                ids[choice.sequence].append(choice.id)
                if len(ids[choice.sequence]) == n:
                    batch.remove(choice.sequence)
    return [ids[number] for number in numbers]


def decode_slowly(backend, row, n):
    """No cache and no batch: what every fast path has to give."""
    n_ctx = backend.hparams.n_ctx
    new, window = [], list(row.prompt)
    if len(window) > n_ctx:
        window = window[-(n_ctx - 1) :]
    numbers = sample.RandomNumbers(row.seed, row.sample)
    for token in range(n):
        if len(window) > n_ctx:
            window = window[-(n_ctx // 2) :]
        logits, _, _ = model.model(backend.weights, backend.hparams, tf.constant([window]))
        words = numbers.words(token, backend.hparams.n_vocab)
        new.append(sample.next_token(logits[0, -1].numpy(), row.sampling, words, row.prompt, new))
        window.append(new[-1])
    return new


ROWS = [
    TokenSequence([1, 2, 3], GREEDY),
    TokenSequence([250], Sampling(top_k=40), seed=1),
    TokenSequence(list(range(20)), Sampling(temperature=0.7, top_p=0.9), seed=1, sample=1),
    TokenSequence([9] * 31, Sampling(repetition_penalty=1.3), seed=2),
    TokenSequence(list(range(32)), Sampling(temperature=1.5), seed=3),  # as long as the window
    TokenSequence(list(range(50)), Sampling(repetition_penalty=1.1), seed=4),  # longer
    TokenSequence([1, 2, 3], Sampling(frequency_penalty=0.5, presence_penalty=1, min_p=0.1, logit_bias={7: 2}), seed=5),
]
