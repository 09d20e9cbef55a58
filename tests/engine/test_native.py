"""The native backend against TensorFlow's, and what happens where there are none."""

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


def packed(w, name, layout=Layout.OUT_IN, cuts=()):
    """A matrix [O, I] as the native library keeps it, given in rows cut at these places."""
    whole = w if layout is Layout.OUT_IN else w.T
    weight = Weight(whole.shape, layout, lambda: iter(np.split(whole, cuts)))
    return packing.WeightPacker(build.load(), name).pack_matrix(weight)


@pytest.mark.parametrize("shape", [(7, 5), (33, 64), (32, 1), (100, 32)])
@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("name", PRECISIONS)
def test_panels_hold_the_outputs_and_zeros_after_them(native, shape, layout, name):
    w = (np.arange(1, 1 + shape[0] * shape[1]) % 100).reshape(shape).astype(np.float32)
    w[:, 0] = 127  # so that the numbers are whole in int8 too
    panels, scale = packed(w, name, layout)
    width = calls.library_int(build.load(), "gpt2_width")
    found = np.transpose(panels, (1, 3, 0, 2))  # [I / group, group, O / width, width]
    assert found.shape[1:] == (4 // panels.itemsize, -(-shape[0] // width), width)
    found = found.reshape(found.shape[0] * found.shape[1], -1)
    if name == "int8":
        found = np.where(found, found.astype(int) - 128, 0)  # they are kept plus 128
    if name == "bfloat16":
        found = (found.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(found[: shape[1], : shape[0]].T, w)
    assert not found[shape[1] :].any() and not found[:, shape[0] :].any()
    assert scale.tolist() == [1] * shape[0]


@pytest.mark.parametrize("name", PRECISIONS)
def test_where_the_pieces_are_cut_does_not_matter(native, name):
    w = np.random.default_rng(0).normal(size=(150, 7)).astype(np.float32)
    whole = packed(w, name)
    for cuts in ([64, 128], [70], [1, 31, 32, 33, 149]):
        for found, expected in zip(packed(w, name, cuts=cuts), whole):
            np.testing.assert_array_equal(found, expected)


def test_int8_weights_are_those_of_numpy(native):
    w = np.random.default_rng(0).normal(size=(70, 33)).astype(np.float32)
    w[3] = 0
    values, scale = quantize.to_int8(w)
    for layout in Layout:
        panels, scales = packed(w, "int8", layout)
        found = np.transpose(panels, (0, 2, 1, 3)).reshape(-1, 36)[:70, :33].astype(int) - 128
        np.testing.assert_array_equal(found, values)
        np.testing.assert_array_equal(scales, scale)


def test_the_ids_are_those_of_tensorflow(native_tiny, tiny_model):
    assert native_tiny.name != tiny_model.backend.name
    assert generate_ids(native_tiny, SEQUENCES, 90) == generate_ids(tiny_model.backend, SEQUENCES, 90)
    for row in SEQUENCES:
        assert generate_ids(native_tiny, [row], 90) == generate_ids(tiny_model.backend, [row], 90)


def fed(backend, ids, sizes):
    """The logits [V] after the ids [T], fed to a row of its own in pieces of these sizes."""
    blocks, start = backend.new_pool(), 0
    own = [blocks.allocate() for _ in range(blocks_for(len(ids)))]
    for size in sizes:
        logits = backend.extend(blocks, [Segment(own, start, ids[start : start + size])])
        start += size
    return logits.values[0]


def test_logits_are_those_of_tensorflow(native_small, small_model):
    """Prefilled at once, in two parts and token by token, in rows of different lengths."""
    tokens = np.random.default_rng(3).integers(small_model.hparams.n_vocab, size=(3, 100)).astype(np.int32)
    for ids, count in zip(tokens, (100, 37, 64)):
        expected = fed(small_model.backend, ids[:count], [count])
        for sizes in ([count], [count // 2, count - count // 2], [1] * count):
            np.testing.assert_allclose(fed(native_small, ids[:count], sizes), expected, rtol=0, atol=1e-5)


def test_greedy_ids_are_those_of_the_original(native_small):
    rows = [TokenSequence(tokens, GREEDY) for tokens in GOLDEN["tokens"]]
    assert generate_ids(native_small, rows, 40) == GOLDEN["greedy"]


@pytest.mark.parametrize("name", PRECISIONS[1:])
def test_narrow_weights_give_the_same_in_both_decoders(native, small_dir, small_model, name):
    directory = open_model_dir(small_dir)
    ids = np.array([*GOLDEN["tokens"][0], 7])
    found = [
        [fed(loaded, ids, [len(ids)]), fed(loaded, ids, [len(ids) - 1, 1])]
        for loaded in (load.load_backend(directory, name, native=with_ops) for with_ops in (True, False))
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=0.05)  # native: bfloat16 in the cache and in prefills
    assert 1e-4 < np.abs(found[0][0] - fed(small_model.backend, ids, [len(ids)])).max() < 0.2


def test_int8_is_within_half_a_step():
    w = np.random.default_rng(0).normal(size=[41, 50]).astype(np.float32)
    w *= np.array([[1e-3]] * 20 + [[10.0]] * 20 + [[0.0]], np.float32)
    values, scale = quantize.to_int8(w)
    assert values.dtype == np.int8 and abs(values.astype(int)).max() == 127
    assert np.all(np.abs(values * scale[:, None] - w) <= 0.5001 * scale[:, None])


@pytest.mark.parametrize("n_vocab", [1, 5, 8, 1001])
def test_random_words_are_those_of_numpy(native_tiny, monkeypatch, n_vocab):
    """For all ids or for some, of several samples, beyond 32 bits too, in one call."""
    monkeypatch.setattr(native_tiny, "hparams", dataclasses.replace(native_tiny.hparams, n_vocab=n_vocab))
    rng = np.random.default_rng(0)
    wanted = [
        RandomWordsRequest(RandomNumbers(seed, 2), token, None if all_ids else rng.integers(n_vocab, size=5))
        for seed, token in ((0, 0), (1, 1), (2**40, 2), (3, 1000), (3, 10**7))
        for all_ids in (True, False)
    ]
    for words, found in zip(wanted, native_tiny.random_words(wanted)):
        np.testing.assert_array_equal(found, words.numbers.words(words.token, n_vocab, words.ids))
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
    """Bytes of a process of its own, where nothing else takes memory or gives it back, after so many rows."""
    seeds = [str(count // 3 - 1) for count in counts]
    command = [sys.executable, "-c", GENERATIONS, str(small_dir), str(counts[-1] // 3), *seeds]
    result = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(SRC)}, capture_output=True, text=True, timeout=500
    )
    assert result.returncode == 0, result.stderr
    found = [list(map(int, line.split())) for line in result.stdout.splitlines()]
    assert [used for _, used in found] == [20] * len(counts)
    return [size for size, _ in found]


def test_rows_that_came_and_went_leave_the_memory_as_it_was(native, small_dir):
    before, after = memory_after(small_dir, 90, 660)
    assert after - before < 4_000_000  # 200 caches that were kept would be many times that


@pytest.mark.slow
def test_ten_thousand_rows_leave_the_memory_as_it_was(native, small_dir):
    before, after = memory_after(small_dir, 99, 9999)
    assert after < 1.02 * before


def test_native_models_side_by_side(native_small, native_tiny):
    """Each with threads of its own, at the same time."""
    rows = [TokenSequence([1, 2, 3], GREEDY), TokenSequence([7], Sampling(), seed=5)]
    expected = [generate_ids(each, rows, 60) for each in (native_small, native_tiny)]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            both = [pool.submit(generate_ids, each, rows, 60) for each in (native_small, native_tiny)]
            assert [ids.result() for ids in both] == expected


def test_batches_that_share_a_store_side_by_side(native_small):
    """In two threads, with beginnings of each other's."""
    rows = [TokenSequence([*range(90), number], Sampling(), seed=number, keep=True) for number in range(4)]
    expected = generate_ids(native_small, rows, 30)
    prefixes = PrefixCache(native_small.new_pool(), 5 * native_small.block_bytes)
    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            both = [pool.submit(generate_ids, native_small, some, 30, prefixes=prefixes) for some in (rows, rows[::-1])]
            assert [ids.result() for ids in both] == [expected, expected[::-1]]
    assert prefixes.pool.n_used == len(prefixes.nodes)


def extended(backend, blocks=None):
    """Logits after a short prompt and a step, of two rows in the first two blocks."""
    blocks = blocks or backend.new_pool()
    rows = [[blocks.allocate()], [blocks.allocate()]]
    blocks.release([0, 1])
    backend.extend(blocks, [Segment(row, 0, [7] * 6) for row in rows])
    return backend.extend(blocks, [Segment(row, 6, [token]) for row, token in zip(rows, (1, 2))]).values


@contextlib.contextmanager
def as_little_memory_as_now():
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", PRECISIONS)
def test_memory_that_cannot_be_had_is_an_error_in_python(native, tiny_dir, name):
    """Of the whole job, or of each of its threads; afterwards all is as it was."""
    loaded = load.load_backend(open_model_dir(tiny_dir), name, threads=3)
    expected, n_embd = extended(loaded), loaded.model.n_embd
    loaded.model.n_embd = 1 << 58
    with pytest.raises(MemoryError):
        extended(loaded)
    loaded.model.n_embd = n_embd
    blocks = loaded.new_pool()
    own = [blocks.allocate()] * (1 << 20)
    loaded.model.n_ctx = len(own) * BLOCK_SLOTS
    pieces = [Segment(own, 0, [1]), Segment(own, len(own) * BLOCK_SLOTS - 1, [1])]  # sees more than there is memory for
    with pytest.raises(MemoryError), as_little_memory_as_now():
        loaded.extend(blocks, pieces)
    loaded.model.n_ctx = loaded.hparams.n_ctx
    np.testing.assert_array_equal(extended(loaded), expected)


def test_memory_for_weights_that_cannot_be_had():
    with pytest.raises(MemoryError, match="1,152,921,504,606,846,976 bytes are not available"):
        huge_pages.ChunkAllocator().zeros((1 << 60,), np.uint8)


def test_more_threads_than_cores(native, native_tiny, tiny_dir):
    crowded = load.load_backend(open_model_dir(tiny_dir), threads=devices.available_cores() + 5)
    np.testing.assert_allclose(extended(crowded), extended(native_tiny), rtol=0, atol=1e-6)


PROGRAM = f"""
import os, pathlib, resource, signal, sys
import numpy as np
from gpt2.engine.backend import Segment
from gpt2.engine.load import load_backend
from gpt2.engine.native.huge_pages import ChunkAllocator
from gpt2.formats.model_dir import open_model_dir
{inspect.getsource(extended)}
def loaded(threads):
    return load_backend(open_model_dir(pathlib.Path(sys.argv[1])), threads=threads)
"""


def run(code, *arguments):
    """What a program of its own prints."""
    command = [sys.executable, "-c", PROGRAM + code, *map(str, arguments)]
    result = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(SRC)}, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


NO_THREADS = """
backend = loaded(threads=1)
blocks = backend.new_pool()
expected = extended(backend, blocks)
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 20), -1))  # a thread's stack takes more
backend.model.threads = 8
print((extended(backend, blocks) == expected).all(), len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_where_the_system_grants_no_threads_those_there_are_compute(native, tiny_dir):
    same, threads = run(NO_THREADS, tiny_dir).split()
    assert same == "True" and int(threads) < 8


FORK = """
backend = loaded(threads=2)
expected = extended(backend)
chunks = ChunkAllocator()
kept = chunks.zeros((4,), np.uint8)  # in the chunk there is room for more
child = os.fork()
if not child:
    signal.alarm(30)
    chunks.zeros((4,), np.uint8)[:] = 1
    os._exit(0 if (extended(backend) == expected).all() and (extended(loaded(2)) == expected).all() else 1)
print(os.waitpid(child, 0)[1], chunks.zeros((4,), np.uint8).max(), (extended(backend) == expected).all())
"""


def test_a_forked_process_computes_with_threads_of_its_own(native, tiny_dir):
    """And puts its weights into memory of its own."""
    assert run(FORK, tiny_dir) == "0 0 True\n"
