"""The native backend against TensorFlow's, and what happens where there are none."""

import inspect
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from one_by_one import ROWS, take
from tiny import GOLDEN

from gpt2 import machine
from gpt2.engine import load, quantize
from gpt2.engine.batch import Batch, Row
from gpt2.engine.native import backend, build, memory
from gpt2.formats.model_dir import open_model_dir
from gpt2.formats.weights import Layout, Weight
from gpt2.request import PRECISIONS, Sampling

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
    return backend.Packer(build.load(), name, threads=2).packed(weight)


@pytest.mark.parametrize("shape", [(7, 5), (33, 64), (32, 1), (100, 32)])
@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("name", PRECISIONS)
def test_panels_hold_the_outputs_and_zeros_after_them(native, shape, layout, name):
    w = (np.arange(1, 1 + shape[0] * shape[1]) % 100).reshape(shape).astype(np.float32)
    w[:, 0] = 127  # so that the numbers are whole in int8 too
    panels, scale = packed(w, name, layout)
    width = backend.panel_width(build.load())
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
    assert take(Batch(native_tiny, ROWS), 90) == take(Batch(tiny_model.backend, ROWS), 90)
    for row in ROWS:
        assert take(Batch(native_tiny, [row]), 90) == take(Batch(tiny_model.backend, [row]), 90)


def test_logits_are_those_of_tensorflow(native_small, small_model):
    """Prefilled at once, in two parts and token by token, in rows of different lengths."""
    tokens = np.random.default_rng(3).integers(small_model.hparams.n_vocab, size=(3, 100)).astype(np.int32)
    counts = np.array([100, 37, 64], np.int32)
    zeros = np.zeros(3, np.int32)
    cache = small_model.backend.new_cache(3)
    expected = small_model.backend.extend(cache, range(3), tokens, zeros, counts)
    whole = native_small.extend(native_small.new_cache(3), range(3), tokens, zeros, counts)
    np.testing.assert_allclose(whole, expected, rtol=0, atol=1e-5)
    cache = native_small.new_cache(3)
    native_small.extend(cache, range(3), tokens, zeros, counts // 2)
    rest = np.stack([np.roll(row, -(count // 2)) for row, count in zip(tokens, counts)])
    parts = native_small.extend(cache, range(3), rest, counts // 2, counts - counts // 2)
    np.testing.assert_allclose(parts, expected, rtol=0, atol=1e-5)
    for i in range(37):
        last = native_small.extend(cache, [1], tokens[1:2, i : i + 1], np.array([i]), np.array([1]))
    np.testing.assert_allclose(last[0], expected[1], rtol=0, atol=1e-5)


def test_greedy_ids_are_those_of_the_original(native_small):
    rows = [Row(tokens, GREEDY) for tokens in GOLDEN["tokens"]]
    assert take(Batch(native_small, rows), 40) == GOLDEN["greedy"]


@pytest.mark.parametrize("name", PRECISIONS[1:])
def test_narrow_weights_give_the_same_in_both_decoders(native, small_dir, small_model, name):
    directory = open_model_dir(small_dir)
    tokens = np.array([GOLDEN["tokens"][0]], np.int32)
    n = tokens.shape[1]
    found = []
    for with_ops in (True, False):
        loaded = load.load_backend(directory, name, native=with_ops)
        cache = loaded.new_cache(1)
        logits = loaded.extend(cache, [0], tokens, np.array([0]), np.array([n]))
        found.append([logits, loaded.extend(cache, [0], tokens[:, :1], np.array([n]), np.array([1]))])
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=0.05)  # native: bfloat16 in the cache and in prefills
    exact = small_model.backend.extend(small_model.backend.new_cache(1), [0], tokens, np.array([0]), np.array([n]))
    assert 1e-4 < np.abs(found[0][0] - exact).max() < 0.2


def test_int8_is_within_half_a_step():
    w = np.random.default_rng(0).normal(size=[41, 50]).astype(np.float32)
    w *= np.array([[1e-3]] * 20 + [[10.0]] * 20 + [[0.0]], np.float32)
    values, scale = quantize.to_int8(w)
    assert values.dtype == np.int8 and abs(values.astype(int)).max() == 127
    assert np.all(np.abs(values * scale[:, None] - w) <= 0.5001 * scale[:, None])


@pytest.mark.parametrize(
    "change, said",
    [
        ({"tokens": [[10_000]]}, "outside the vocabulary"),
        ({"starts": [128]}, "positions out of range"),
        ({"starts": [-1]}, "positions out of range"),
        ({"counts": [2]}, "counts must be"),
        ({"counts": [0]}, "counts must be"),
        ({"tokens": [[]]}, "counts must be"),
    ],
)
def test_what_would_leave_the_memory_is_refused(native_tiny, change, said):
    inputs = {"tokens": [[1]], "starts": [0], "counts": [1], **change}
    inputs = {name: np.array(value, int) for name, value in inputs.items()}
    with pytest.raises(ValueError, match=said):
        native_tiny.extend(native_tiny.new_cache(1), [0], **inputs)
    with pytest.raises(ValueError, match="rows out of range"):
        native_tiny.extend(native_tiny.new_cache(1), [1], np.array([[1]]), np.array([0]), np.array([1]))


GENERATIONS = """
import pathlib, sys
import psutil
from gpt2.engine.batch import Batch, Row
from gpt2.engine.load import load_backend
from gpt2.formats.model_dir import open_model_dir
from gpt2.request import Sampling
backend = load_backend(open_model_dir(pathlib.Path(sys.argv[1])))
for seed in range(220):
    batch = Batch(backend, [Row([seed], Sampling(), seed), Row([seed], Sampling(temperature=0))])
    for _ in range(5):
        batch.next()
    if seed in (19, 219):
        print(psutil.Process().memory_info().rss)
"""


def test_two_hundred_generations_leave_the_memory_as_it_was(native, small_dir):
    """In a process of its own, where nothing else takes memory or gives it back."""
    command = [sys.executable, "-c", GENERATIONS, str(small_dir)]
    result = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(SRC)}, capture_output=True, timeout=60)
    before, after = map(int, result.stdout.split())
    assert after - before < 4_000_000  # 200 caches that were kept would be many times that


def test_native_models_side_by_side(native_small, native_tiny):
    """Each with threads of its own, at the same time."""
    rows = [Row([1, 2, 3], GREEDY), Row([7], Sampling(), seed=5)]
    expected = [take(Batch(each, rows), 60) for each in (native_small, native_tiny)]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            both = [pool.submit(take, Batch(each, rows), 60) for each in (native_small, native_tiny)]
            assert [ids.result() for ids in both] == expected


def extended(backend):
    """Logits after a short prompt and a step."""
    cache = backend.new_cache(2)
    backend.extend(cache, [0, 1], np.full((2, 6), 7), np.array([0, 0]), np.array([6, 6]))
    return backend.extend(cache, [0, 1], np.array([[1], [2]]), np.array([6, 6]), np.array([1, 1]))


@pytest.mark.parametrize("name", PRECISIONS)
def test_memory_that_cannot_be_had_is_an_error_in_python(native, tiny_dir, name):
    """Of the whole job, or of each of its threads; afterwards all is as it was."""
    loaded = load.load_backend(open_model_dir(tiny_dir), name, threads=3)
    expected, n_embd = extended(loaded), loaded.model.n_embd
    loaded.model.n_embd = 1 << 58
    with pytest.raises(MemoryError):
        extended(loaded)
    loaded.model.n_embd = n_embd
    cache = loaded.new_cache(1)
    for capacity in (1 << 50, 1 << 59):
        cache.held.seen.capacity = capacity
        with pytest.raises(MemoryError):
            loaded.extend(cache, [0], np.array([[1]]), np.array([0]), np.array([1]))
    np.testing.assert_array_equal(extended(loaded), expected)


def test_memory_for_weights_that_cannot_be_had():
    with pytest.raises(MemoryError, match="1,152,921,504,606,846,976 bytes for weights cannot be had"):
        memory.Chunks().zeros((1 << 60,), np.uint8)


def test_more_threads_than_cores(native, native_tiny, tiny_dir):
    crowded = load.load_backend(open_model_dir(tiny_dir), threads=machine.cores() + 5)
    np.testing.assert_allclose(extended(crowded), extended(native_tiny), rtol=0, atol=1e-6)


PROGRAM = f"""
import os, pathlib, resource, signal, sys
import numpy as np
from gpt2.engine.load import load_backend
from gpt2.engine.native.memory import Chunks
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
expected = extended(backend)
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 20), -1))  # a thread's stack takes more
backend.model.threads = 8
print((extended(backend) == expected).all(), len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_where_the_system_grants_no_threads_those_there_are_compute(native, tiny_dir):
    same, threads = run(NO_THREADS, tiny_dir).split()
    assert same == "True" and int(threads) < 8


FORK = """
backend = loaded(threads=2)
expected = extended(backend)
chunks = Chunks()
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
