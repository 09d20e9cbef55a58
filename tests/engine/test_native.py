"""The native backend compared with TensorFlow's, and its use of memory, threads and processes."""

import contextlib
import dataclasses
import inspect
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from one_by_one import SEQUENCES, generate_ids
from tiny import GOLDEN

from gpt2 import devices
from gpt2.engine import load, quantize
from gpt2.engine.backend import RandomWordsRequest, Segment
from gpt2.engine.kv_cache import BLOCK_SLOTS, PrefixCache, blocks_for
from gpt2.engine.native import build, calls, huge_pages, packing
from gpt2.engine.token_sequence import TokenSequence
from gpt2.formats.model_dir import open_model_dir
from gpt2.formats.weights import Layout, Weight
from gpt2.request import PRECISIONS, Sampling
from gpt2.sample import RandomNumbers

SRC = Path(__file__).resolve().parents[2] / "src"
GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
def native_tiny(native, tiny_dir):
    return load.load_backend(open_model_dir(tiny_dir))


@pytest.fixture(scope="module")
def native_small(native, small_dir):
    return load.load_backend(open_model_dir(small_dir))


def pack(w, precision, layout=Layout.OUT_IN, cuts=()):
    """Return a matrix [O, I] and its scales as the native library stores them; it is read in parts cut at `cuts`."""
    whole = w if layout is Layout.OUT_IN else w.T
    weight = Weight(whole.shape, layout, lambda: iter(np.split(whole, cuts)))
    return packing.WeightPacker(build.load(), precision).pack_matrix(weight)


@pytest.mark.parametrize("shape", [(7, 5), (33, 64), (32, 1), (100, 32)])
@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_panels_hold_the_outputs_padded_with_zeros(native, shape, layout, precision):
    w = (np.arange(1, 1 + shape[0] * shape[1]) % 100).reshape(shape).astype(np.float32)
    w[:, 0] = 127  # so that the scale of int8 is 1
    panels, scale = pack(w, precision, layout)
    width = calls.library_int(build.load(), "gpt2_width")
    values = np.transpose(panels, (1, 3, 0, 2))  # [I / group, group, O / width, width]
    assert values.shape[1:] == (4 // panels.itemsize, -(-shape[0] // width), width)
    values = values.reshape(values.shape[0] * values.shape[1], -1)
    if precision == "int8":
        values = np.where(values, values.astype(int) - 128, 0)  # stored with an offset of 128
    if precision == "bfloat16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(values[: shape[1], : shape[0]].T, w)
    assert not values[shape[1] :].any() and not values[:, shape[0] :].any()
    assert scale.tolist() == [1] * shape[0]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_read_in_parts_are_packed_the_same(native, precision):
    w = np.random.default_rng(0).normal(size=(150, 7)).astype(np.float32)
    whole = pack(w, precision)
    for cuts in ([64, 128], [70], [1, 31, 32, 33, 149]):
        for array, expected in zip(pack(w, precision, cuts=cuts), whole):
            np.testing.assert_array_equal(array, expected)


def test_int8_weights_equal_numpys(native):
    w = np.random.default_rng(0).normal(size=(70, 33)).astype(np.float32)
    w[3] = 0
    values, scale = quantize.to_int8(w)
    for layout in Layout:
        panels, scales = pack(w, "int8", layout)
        packed_values = np.transpose(panels, (0, 2, 1, 3)).reshape(-1, 36)[:70, :33].astype(int) - 128
        np.testing.assert_array_equal(packed_values, values)
        np.testing.assert_array_equal(scales, scale)


def test_ids_equal_tensorflows(native_tiny, tiny_model):
    assert native_tiny.name != tiny_model.backend.name
    assert generate_ids(native_tiny, SEQUENCES, 90) == generate_ids(tiny_model.backend, SEQUENCES, 90)
    for sequence in SEQUENCES:
        assert generate_ids(native_tiny, [sequence], 90) == generate_ids(tiny_model.backend, [sequence], 90)


def logits_after(backend, ids, sizes):
    """Return the logits [V] after the ids [T], which are computed in segments of these sizes."""
    pool = backend.new_pool()
    start = 0
    blocks = [pool.allocate() for _ in range(blocks_for(len(ids)))]
    for size in sizes:
        logits = backend.extend(pool, [Segment(blocks, start, ids[start : start + size])])
        start += size
    return logits.values[0]


def test_logits_equal_tensorflows(native_small, small_model):
    """The ids are prefilled in one segment, in two, and one by one."""
    tokens = np.random.default_rng(3).integers(small_model.hparams.n_vocab, size=(3, 100)).astype(np.int32)
    for ids, count in zip(tokens, (100, 37, 64)):
        expected = logits_after(small_model.backend, ids[:count], [count])
        for sizes in ([count], [count // 2, count - count // 2], [1] * count):
            np.testing.assert_allclose(logits_after(native_small, ids[:count], sizes), expected, rtol=0, atol=1e-5)


def test_greedy_ids_equal_the_originals(native_small):
    sequences = [TokenSequence(tokens, GREEDY) for tokens in GOLDEN["tokens"]]
    assert generate_ids(native_small, sequences, 40) == GOLDEN["greedy"]


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_narrow_weights_give_similar_logits_in_both_backends(native, small_dir, small_model, precision):
    directory = open_model_dir(small_dir)
    ids = np.array([*GOLDEN["tokens"][0], 7])
    native_logits, tensorflow_logits = (
        [logits_after(backend, ids, [len(ids)]), logits_after(backend, ids, [len(ids) - 1, 1])]
        for backend in (load.load_backend(directory, precision, native=is_native) for is_native in (True, False))
    )
    # The native backend uses bfloat16 in the cache and for prefills.
    np.testing.assert_allclose(native_logits, tensorflow_logits, rtol=0, atol=0.05)
    assert 1e-4 < np.abs(native_logits[0] - logits_after(small_model.backend, ids, [len(ids)])).max() < 0.2


def test_int8_rounds_by_at_most_half_a_step():
    w = np.random.default_rng(0).normal(size=[41, 50]).astype(np.float32)
    w *= np.array([[1e-3]] * 20 + [[10.0]] * 20 + [[0.0]], np.float32)
    values, scale = quantize.to_int8(w)
    assert values.dtype == np.int8 and abs(values.astype(int)).max() == 127
    assert np.all(np.abs(values * scale[:, None] - w) <= 0.5001 * scale[:, None])


@pytest.mark.parametrize("n_vocab", [1, 5, 8, 1001])
def test_random_words_equal_numpys(native_tiny, monkeypatch, n_vocab):
    """One call draws words for all ids or for some, of several samples, with seeds beyond 32 bits."""
    monkeypatch.setattr(native_tiny, "hparams", dataclasses.replace(native_tiny.hparams, n_vocab=n_vocab))
    rng = np.random.default_rng(0)
    requests = [
        RandomWordsRequest(RandomNumbers(seed, 2), token, None if all_ids else rng.integers(n_vocab, size=5))
        for seed, token in ((0, 0), (1, 1), (2**40, 2), (3, 1000), (3, 10**7))
        for all_ids in (True, False)
    ]
    for request, words in zip(requests, native_tiny.random_words(requests)):
        np.testing.assert_array_equal(words, request.numbers.words(request.token, n_vocab, request.ids))
    assert native_tiny.random_words([]) == []


GENERATIONS = """
import pathlib, sys
import psutil
from gpt2.engine.batch import Batch
from gpt2.engine.load import load_backend
from gpt2.engine.kv_cache import PrefixCache
from gpt2.engine.token_sequence import TokenSequence
from gpt2.formats.model_dir import open_model_dir
from gpt2.request import Sampling
backend = load_backend(open_model_dir(pathlib.Path(sys.argv[1])))
prefixes = PrefixCache(backend.new_pool(), 20 * backend.block_bytes)
batch = Batch(backend, prefixes)
for seed in range(int(sys.argv[2])):
    numbers = [batch.add(TokenSequence([seed] * length, Sampling(), seed, keep=True)) for length in (1, 30, 70)]
    for _ in range(5):
        batch.step()
    for number in numbers:
        batch.remove(number)
    if seed in map(int, sys.argv[3:]):
        print(psutil.Process().memory_info().rss, prefixes.pool.n_used)
"""


def memory_after(small_dir, *counts):
    """Return the memory of a separate process in bytes after each of these numbers of sequences."""
    seeds = [str(count // 3 - 1) for count in counts]
    command = [sys.executable, "-c", GENERATIONS, str(small_dir), str(counts[-1] // 3), *seeds]
    result = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(SRC)}, capture_output=True, text=True, timeout=500
    )
    assert result.returncode == 0, result.stderr
    measured = [list(map(int, line.split())) for line in result.stdout.splitlines()]
    assert [n_used for _, n_used in measured] == [20] * len(counts)
    return [n_bytes for n_bytes, _ in measured]


def test_removed_sequences_leave_no_memory_behind(native, small_dir):
    before, after = memory_after(small_dir, 90, 660)
    assert after - before < 4_000_000  # far less than 200 leaked caches


@pytest.mark.slow
def test_ten_thousand_removed_sequences_leave_no_memory_behind(native, small_dir):
    before, after = memory_after(small_dir, 99, 9999)
    assert after < 1.02 * before


def test_two_native_models_compute_at_the_same_time(native_small, native_tiny):
    """Each model has its own threads."""
    sequences = [TokenSequence([1, 2, 3], GREEDY), TokenSequence([7], Sampling(), seed=5)]
    expected = [generate_ids(backend, sequences, 60) for backend in (native_small, native_tiny)]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            futures = [pool.submit(generate_ids, backend, sequences, 60) for backend in (native_small, native_tiny)]
            assert [future.result() for future in futures] == expected


def test_batches_in_two_threads_share_a_prefix_cache(native_small):
    """Their sequences have common prefixes."""
    sequences = [TokenSequence([*range(90), number], Sampling(), seed=number, keep=True) for number in range(4)]
    expected = generate_ids(native_small, sequences, 30)
    prefixes = PrefixCache(native_small.new_pool(), 5 * native_small.block_bytes)
    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            futures = [
                pool.submit(generate_ids, native_small, ordered, 30, prefixes=prefixes)
                for ordered in (sequences, sequences[::-1])
            ]
            assert [future.result() for future in futures] == [expected, expected[::-1]]
    assert prefixes.pool.n_used == len(prefixes.nodes)


def logits_after_step(backend, pool=None):
    """Return the logits of two sequences in the first two blocks after a short prompt and a step."""
    pool = pool or backend.new_pool()
    owned = [[pool.allocate()], [pool.allocate()]]
    pool.release([0, 1])
    backend.extend(pool, [Segment(blocks, 0, [7] * 6) for blocks in owned])
    return backend.extend(pool, [Segment(blocks, 6, [token]) for blocks, token in zip(owned, (1, 2))]).values


@contextlib.contextmanager
def limited_memory():
    """Limit the process to 64 MiB more than it has now."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_missing_memory_raises_an_error(native, tiny_dir, precision):
    """The memory of the whole job or that of a thread is missing; afterwards the backend computes as before."""
    loaded = load.load_backend(open_model_dir(tiny_dir), precision, threads=3)
    expected = logits_after_step(loaded)
    n_inner = loaded.model.n_inner
    loaded.model.n_inner = (1 << 31) - 1
    with pytest.raises(MemoryError), limited_memory():
        logits_after_step(loaded)
    loaded.model.n_inner = n_inner
    pool = loaded.new_pool()
    blocks = [pool.allocate()] * (1 << 20)
    loaded.model.n_ctx = len(blocks) * BLOCK_SLOTS
    # The attention of the second segment needs more memory than there is.
    segments = [Segment(blocks, 0, [1]), Segment(blocks, len(blocks) * BLOCK_SLOTS - 1, [1])]
    with pytest.raises(MemoryError), limited_memory():
        loaded.extend(pool, segments)
    loaded.model.n_ctx = loaded.hparams.n_ctx
    np.testing.assert_array_equal(logits_after_step(loaded), expected)


def test_missing_memory_for_weights_raises_an_error():
    with pytest.raises(MemoryError, match="1,152,921,504,606,846,976 bytes are not available"):
        huge_pages.ChunkAllocator().zeros((1 << 60,), np.uint8)


def test_more_threads_than_cores(native, native_tiny, tiny_dir):
    backend = load.load_backend(open_model_dir(tiny_dir), threads=devices.available_cores() + 5)
    np.testing.assert_allclose(logits_after_step(backend), logits_after_step(native_tiny), rtol=0, atol=1e-6)


PROGRAM = f"""
import os, pathlib, resource, signal, sys
import numpy as np
from gpt2.engine.backend import Segment
from gpt2.engine.load import load_backend
from gpt2.engine.native.huge_pages import ChunkAllocator
from gpt2.formats.model_dir import open_model_dir
{inspect.getsource(logits_after_step)}
def load_with(threads):
    return load_backend(open_model_dir(pathlib.Path(sys.argv[1])), threads=threads)
"""


def run(code, *arguments):
    """Return the output of a separate program."""
    command = [sys.executable, "-c", PROGRAM + code, *map(str, arguments)]
    result = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(SRC)}, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


NO_THREADS = """
backend = load_with(threads=1)
pool = backend.new_pool()
expected = logits_after_step(backend, pool)
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 20), -1))  # a thread's stack takes more
backend.model.threads = 8
print((logits_after_step(backend, pool) == expected).all(), len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_without_further_threads_the_existing_ones_compute(native, tiny_dir):
    same, n_threads = run(NO_THREADS, tiny_dir).split()
    assert same == "True" and int(n_threads) < 8


FORK = """
backend = load_with(threads=2)
expected = logits_after_step(backend)
chunks = ChunkAllocator()
parents_array = chunks.zeros((4,), np.uint8)  # the chunk has space for more
child = os.fork()
if not child:
    signal.alarm(30)
    chunks.zeros((4,), np.uint8)[:] = 1
    same = [(logits_after_step(each) == expected).all() for each in (backend, load_with(2))]
    os._exit(0 if all(same) else 1)
print(os.waitpid(child, 0)[1], chunks.zeros((4,), np.uint8).max(), (logits_after_step(backend) == expected).all())
"""


def test_a_forked_process_computes_with_its_own_threads(native, tiny_dir):
    """It also has its own memory for weights."""
    assert run(FORK, tiny_dir) == "0 0 True\n"
