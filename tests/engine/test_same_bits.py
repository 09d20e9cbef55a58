"""The native backend gives a row the same bits whatever stands beside it and however its tokens were cut up."""

import numpy as np
import pytest
import tiny

from gpt2.engine.load import load_backend
from gpt2.formats.model_dir import open_model_dir
from gpt2.request import PRECISIONS


@pytest.fixture(scope="module", params=PRECISIONS)
def backend(request, native, tmp_path_factory):
    """Of a model whose sizes are no multiples of a register's: 36 numbers, heads of 9."""
    model = tiny.write_model(tmp_path_factory.mktemp("models") / "odd", n_ctx=90, n_embd=36)
    return load_backend(open_model_dir(model), request.param)


def in_chunks(backend, ids, sizes):
    """The logits [V] after the last of the ids [T], fed to a row of its own in chunks of these sizes."""
    cache, start = backend.new_cache(1), 0
    for size in sizes:
        chunk = ids[start : start + size]
        logits = backend.extend(cache, [0], chunk[None], np.array([start]), np.array([len(chunk)]))[0]
        start += len(chunk)
    assert start == len(ids)
    return logits


@pytest.mark.parametrize("beside", [1, 2, 5, 6, 12, 13, 32])
def test_beside_others(backend, beside):
    rng = np.random.default_rng(beside)
    tokens = rng.integers(backend.hparams.n_vocab, size=(beside, 81)).astype(np.int32)
    counts = rng.integers(1, 81, size=beside)
    cache, rows, ones = backend.new_cache(beside), range(beside), np.ones(beside, np.int32)
    prefilled = backend.extend(cache, rows, tokens, np.zeros(beside, np.int32), counts)
    steps = [backend.extend(cache, rows, tokens[:, i : i + 1], counts + i, ones) for i in range(3)]
    for row, count in enumerate(counts):
        alone = in_chunks(backend, tokens[row, :count], [count])
        np.testing.assert_array_equal(prefilled[row], alone)
        whole = np.concatenate([tokens[row, :count], tokens[row, :3]])
        np.testing.assert_array_equal(steps[2][row], in_chunks(backend, whole, [len(whole)]))


def test_in_chunks(backend):
    rng = np.random.default_rng(0)
    ids = rng.integers(backend.hparams.n_vocab, size=90).astype(np.int32)
    whole = in_chunks(backend, ids, [90])
    for _ in range(30):
        cuts = np.sort(rng.choice(np.arange(1, 90), size=rng.integers(1, 60), replace=False))
        np.testing.assert_array_equal(in_chunks(backend, ids, np.diff([0, *cuts, 90])), whole)
