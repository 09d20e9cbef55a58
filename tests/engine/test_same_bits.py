"""The native backend gives a sequence the same bits in any batch, with any chunks, with and without a cached prefix."""

import ctypes
import random
import shutil
from pathlib import Path

import amx
import numpy as np
import pytest
import tiny
from one_by_one import SEQUENCES, generate_ids

from gpt2 import devices
from gpt2.engine import batch as batch_module
from gpt2.engine.backend import Segment
from gpt2.engine.batch import Batch
from gpt2.engine.kv_cache import PrefixCache, blocks_for
from gpt2.engine.load import load_backend
from gpt2.engine.native import build
from gpt2.engine.native.backend import NativeBackend
from gpt2.engine.token_sequence import TokenSequence
from gpt2.formats.model_dir import open_model_dir
from gpt2.formats.openai import checkpoint
from gpt2.request import FLOAT32, PRECISIONS, Sampling

# Options that leave out instructions, so that other kernels are compiled; each has to agree with itself.
NO_VNNI = ("-mno-avx512vnni", "-mno-avx512bf16")
NO_AVX512 = ("-mno-avx512f",)
ROUNDS_TWICE = {
    "-march=x86-64",
    "-march=sandybridge",
    "-march=x86_64",
}  # after the multiplication and after the addition


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Return a model whose sizes are not multiples of a register's or a block's: width 36, heads of 9, window 200."""
    return open_model_dir(tiny.write_model(tmp_path_factory.mktemp("models") / "odd", n_ctx=200, n_embd=36))


@pytest.fixture(scope="module", params=PRECISIONS)
def backend(request, native, odd):
    return load_backend(odd, request.param)


def logits_after(backend, ids, sizes):
    """Return the logits [V] after the ids [T], which are computed in chunks of these sizes."""
    pool = backend.new_pool()
    start = 0
    blocks = [pool.allocate() for _ in range(blocks_for(len(ids)))]
    for size in sizes:
        logits = backend.extend(pool, [Segment(blocks, start, ids[start : start + size])]).values[0]
        start += size
    assert start == len(ids)
    return logits


@pytest.mark.parametrize("batch_size", [1, 2, 5, 6, 12, 13, 32])
def test_bits_do_not_depend_on_the_batch(backend, batch_size):
    rng = np.random.default_rng(batch_size)
    tokens = rng.integers(backend.hparams.n_vocab, size=(batch_size, 171)).astype(np.int32)
    counts = rng.integers(1, 171, size=batch_size)
    pool = backend.new_pool()
    owned = [[pool.allocate(), pool.allocate()] for _ in counts]
    prefilled = backend.extend(
        pool, [Segment(blocks, 0, ids[:n]) for blocks, ids, n in zip(owned, tokens, counts)]
    ).values
    for i in range(3):
        steps = [Segment(blocks, n + i, ids[i : i + 1]) for blocks, ids, n in zip(owned, tokens, counts)]
        stepped = backend.extend(pool, steps).values
    for i, count in enumerate(counts):
        np.testing.assert_array_equal(prefilled[i], logits_after(backend, tokens[i, :count], [count]))
        whole = np.concatenate([tokens[i, :count], tokens[i, :3]])
        np.testing.assert_array_equal(stepped[i], logits_after(backend, whole, [len(whole)]))


def test_bits_do_not_depend_on_chunks(backend):
    rng = np.random.default_rng(0)
    ids = rng.integers(backend.hparams.n_vocab, size=200).astype(np.int32)
    whole = logits_after(backend, ids, [200])
    for _ in range(30):
        cuts = np.sort(rng.choice(np.arange(1, 200), size=rng.integers(1, 60), replace=False))
        np.testing.assert_array_equal(logits_after(backend, ids, np.diff([0, *cuts, 200])), whole)


def test_bits_do_not_depend_on_the_number_of_logits(backend):
    """The last layer computes only keys and values for tokens whose logits are not requested."""
    ids = np.random.default_rng(0).integers(backend.hparams.n_vocab, size=40).astype(np.int32)
    pool = backend.new_pool()

    def compute_logits(*n_logits):
        owned = [[pool.allocate()] for _ in n_logits]
        prefilled = backend.extend(pool, [Segment(blocks, 0, ids[:30], n) for blocks, n in zip(owned, n_logits)]).values
        return prefilled, backend.extend(pool, [Segment(blocks, 30, ids[30:]) for blocks in owned]).values

    whole, after = compute_logits(30)
    parts, after_parts = compute_logits(0, 7, 30, 1, 0)
    np.testing.assert_array_equal(parts, np.concatenate([whole[-7:], whole, whole[-1:]]))
    np.testing.assert_array_equal(after_parts, np.repeat(after, 5, axis=0))


class RecordingBatch(Batch):
    """A batch that records the bits of every sequence's logits."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.logit_bits = {}

    def _choose(self, sequences, values, log_totals):
        for sequence, logits, log_total in zip(sequences, values, log_totals):
            self.logit_bits.setdefault(sequence.number, []).append((logits.tobytes(), log_total.tobytes()))
        super()._choose(sequences, values, log_totals)


def random_sequence(rng, prefixes, n_vocab):
    """Return a sequence, which in half of the cases shares a prefix with others."""
    prompt = rng.choice(prefixes)[: rng.randrange(1, 200)] if rng.random() < 0.5 else []
    n_more = rng.randrange(0, 40) if rng.random() < 0.5 else 0
    prompt = [*prompt, *(rng.randrange(n_vocab) for _ in range(n_more or not prompt))]
    sampling = Sampling(temperature=rng.choice([0, 1]), top_k=rng.choice([0, 5]))
    return TokenSequence(prompt, sampling, rng.randrange(1000), length=rng.randrange(1, 30), keep=rng.random() < 0.5)


def try_schedule(backend, seed, monkeypatch):
    """Check the bits of 32 sequences that join and leave, with random sizes of chunks, prefix cache and pool."""
    rng = random.Random(seed)
    n_vocab = backend.hparams.n_vocab
    common_prefixes = [[rng.randrange(n_vocab) for _ in range(200)] for _ in range(3)]
    sequences = [random_sequence(rng, common_prefixes, n_vocab) for _ in range(32)]
    prefixes = PrefixCache(backend.new_pool(), rng.choice([0, 3, 50]) * backend.block_bytes)
    batch = RecordingBatch(backend, prefixes, rng.choice([9, 20, 1000]))
    waiting = list(sequences)
    while batch or waiting:
        for _ in range(min(len(waiting), rng.choice([0, 0, 1, 4, 16]))):
            batch.add(waiting.pop(0))
        monkeypatch.setattr(batch_module, "MIN_PREFILL_CHUNK", rng.randrange(1, 40))
        monkeypatch.setattr(batch_module, "PREFILL_BUDGET_BUSY", rng.choice([1, 20, 256]))
        monkeypatch.setattr(batch_module, "PREFILL_BUDGET_IDLE", rng.randrange(1, 300))
        batch.step()
        for sequence in list(batch.sequences.values()):
            if len(sequence.choices) >= sequence.length or rng.random() < 0.01:
                batch.remove(sequence.number)
    monkeypatch.undo()
    assert batch.pool.n_used == len(prefixes.nodes) and sum(map(len, batch.logit_bits.values())) > 200
    for number, sequence in enumerate(sequences):
        single = RecordingBatch(backend)
        single.add(sequence)
        bits = batch.logit_bits.get(number, [])
        for _ in bits:
            single.step()
        assert single.logit_bits.get(0, []) == bits, f"seed {seed}, sequence {number}: {sequence}"


@pytest.mark.parametrize("seed", range(3))
def test_random_schedules(backend, seed, monkeypatch):
    try_schedule(backend, seed, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 200))
def test_hundreds_of_random_schedules(backend, seed, monkeypatch):
    try_schedule(backend, seed, monkeypatch)


def find_compiler(compiler):
    """Return the path of a compiler or None; "zig" is in a package."""
    in_package = (path for path in build.find_compilers() if Path(path).stem == compiler)
    return shutil.which(compiler) or next(in_package, None)


BUILDS = [
    ("c++", NO_AVX512),
    ("c++", NO_VNNI),
    ("c++", amx.EMULATION_OPTIONS),
    ("zig", amx.EMULATION_OPTIONS),
    ("c++", ("-march=x86-64",)),  # SSE2, without fused multiply-add
    ("c++", ("-march=sandybridge",)),  # AVX, without fused multiply-add
    ("c++", ("-march=x86-64-v3",)),
    ("clang++", ()),
    ("clang++", ("-march=x86-64",)),
    ("zig", ()),
    ("zig", ("-march=x86_64",)),  # Zig's spelling
]
QUICK = [("c++", NO_AVX512), ("c++", amx.EMULATION_OPTIONS)]


@pytest.fixture(
    scope="module",
    params=[each if each in QUICK else pytest.param(each, marks=pytest.mark.slow) for each in BUILDS],
    ids=lambda each: " ".join([each[0], *(Path(option).name for option in each[1])]),
)
def other_build(request, native, tmp_path_factory):
    """Return a library from another compiler or for an older processor, in the same process as the usual one."""
    name, options = request.param
    needed = "avx512_bf16" if options == amx.EMULATION_OPTIONS else "avx512f" if options else ""
    if needed and needed not in devices.cpu_flags():
        pytest.skip(f"this processor has no {needed}")
    compiler = find_compiler(name) or pytest.skip(f"there is no {name}")
    library = tmp_path_factory.mktemp("build") / "native.so"
    with pytest.MonkeyPatch.context() as patch:
        if options == amx.EMULATION_OPTIONS:
            amx.require_compiler(build.compiler_command(compiler))
            amx.emulate(build.compiler_command(compiler), library.with_name("tiles.so"))
            patch.setattr(devices, "is_amx_permitted", lambda: True)
        patch.setattr(build, "OPTIONS", (*build.OPTIONS, *options))
        patch.setenv(build.ZIG_CACHE_VARIABLE, str(tmp_path_factory.getbasetemp() / "zig"))  # its library is built once
        build.compile_library(compiler, library)
    return ctypes.CDLL(str(library))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_other_builds_generate_the_same_ids(other_build, odd, native, precision):
    weights = checkpoint.read_weights(odd.weights_path, odd.hparams)
    other, usual = (NativeBackend(library, weights, odd.hparams, precision) for library in (other_build, native))
    assert generate_ids(other, SEQUENCES, 90) == generate_ids(usual, SEQUENCES, 90)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_other_builds_compute_the_same_bits(request, other_build, odd, native, precision):
    """Bits are equal with fused multiply-add; without it, some roundings differ.

    Intel's matrix unit adds products of bfloat16, which the cache of int8 also consists of, in its blocks order.
    """
    weights = checkpoint.read_weights(odd.weights_path, odd.hparams)
    ids = np.random.default_rng(0).integers(odd.hparams.n_vocab, size=170).astype(np.int32)
    logits, expected = (
        logits_after(NativeBackend(library, weights, odd.hparams, precision), ids, [170])
        for library in (other_build, native)
    )
    options = request.node.callspec.params["other_build"][1]
    uses_amx = precision != FLOAT32 and (options == amx.EMULATION_OPTIONS or devices.AMX_FLAG in devices.cpu_flags())
    if ROUNDS_TWICE.intersection(options):
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 if precision == FLOAT32 else 0.05)
    elif uses_amx:
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-3)
    else:
        np.testing.assert_array_equal(logits, expected)


def try_schedules(library, odd, seeds, monkeypatch):
    for precision in PRECISIONS:
        weights = checkpoint.read_weights(odd.weights_path, odd.hparams)
        for seed in seeds:
            try_schedule(NativeBackend(library, weights, odd.hparams, precision), seed, monkeypatch)


def test_random_schedules_of_other_builds(other_build, odd, monkeypatch):
    try_schedules(other_build, odd, range(1), monkeypatch)


@pytest.mark.slow
def test_hundreds_of_random_schedules_of_other_builds(other_build, odd, monkeypatch):
    try_schedules(other_build, odd, range(1, 200), monkeypatch)
