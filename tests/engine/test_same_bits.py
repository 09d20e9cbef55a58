"""The native backend gives a row the same bits whatever stands beside it, however its prompt was cut up, from a shared
beginning or computed anew."""

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

# What compilers are told to leave out, so that other kernels are built: each is to be equal to itself.
NO_VNNI, NO_AVX512 = ("-mno-avx512vnni", "-mno-avx512bf16"), ("-mno-avx512f",)
ROUNDS_TWICE = {"-march=x86-64", "-march=sandybridge", "-march=x86_64"}  # a product, then its sum


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A model whose sizes are no multiples of a register's: 36 numbers, heads of 9; its window is no whole blocks."""
    return open_model_dir(tiny.write_model(tmp_path_factory.mktemp("models") / "odd", n_ctx=200, n_embd=36))


@pytest.fixture(scope="module", params=PRECISIONS)
def backend(request, native, odd):
    return load_backend(odd, request.param)


def in_chunks(backend, ids, sizes):
    """The logits [V] after the last of the ids [T], fed to a row of its own in chunks of these sizes."""
    blocks, start = backend.new_pool(), 0
    own = [blocks.allocate() for _ in range(blocks_for(len(ids)))]
    for size in sizes:
        logits = backend.extend(blocks, [Segment(own, start, ids[start : start + size])]).values[0]
        start += size
    assert start == len(ids)
    return logits


@pytest.mark.parametrize("beside", [1, 2, 5, 6, 12, 13, 32])
def test_beside_others(backend, beside):
    rng = np.random.default_rng(beside)
    tokens = rng.integers(backend.hparams.n_vocab, size=(beside, 171)).astype(np.int32)
    counts = rng.integers(1, 171, size=beside)
    blocks = backend.new_pool()
    owned = [[blocks.allocate(), blocks.allocate()] for _ in counts]
    prefilled = backend.extend(blocks, [Segment(own, 0, ids[:n]) for own, ids, n in zip(owned, tokens, counts)]).values
    for i in range(3):
        steps = [Segment(own, n + i, ids[i : i + 1]) for own, ids, n in zip(owned, tokens, counts)]
        stepped = backend.extend(blocks, steps).values
    for row, count in enumerate(counts):
        np.testing.assert_array_equal(prefilled[row], in_chunks(backend, tokens[row, :count], [count]))
        whole = np.concatenate([tokens[row, :count], tokens[row, :3]])
        np.testing.assert_array_equal(stepped[row], in_chunks(backend, whole, [len(whole)]))


def test_in_chunks(backend):
    rng = np.random.default_rng(0)
    ids = rng.integers(backend.hparams.n_vocab, size=200).astype(np.int32)
    whole = in_chunks(backend, ids, [200])
    for _ in range(30):
        cuts = np.sort(rng.choice(np.arange(1, 200), size=rng.integers(1, 60), replace=False))
        np.testing.assert_array_equal(in_chunks(backend, ids, np.diff([0, *cuts, 200])), whole)


def test_however_many_logits_are_wanted(backend):
    """A last layer computes nothing for tokens whose logits nobody wants but their keys and values."""
    ids = np.random.default_rng(0).integers(backend.hparams.n_vocab, size=40).astype(np.int32)
    blocks = backend.new_pool()

    def values(*wanted):
        owned = [[blocks.allocate()] for _ in wanted]
        read = backend.extend(blocks, [Segment(own, 0, ids[:30], n) for own, n in zip(owned, wanted)]).values
        return read, backend.extend(blocks, [Segment(own, 30, ids[30:]) for own in owned]).values

    (whole, after), (some, after_some) = values(30), values(0, 7, 30, 1, 0)
    np.testing.assert_array_equal(some, np.concatenate([whole[-7:], whole, whole[-1:]]))
    np.testing.assert_array_equal(after_some, np.repeat(after, 5, axis=0))


class Watched(Batch):
    """Keeps the bits of every row's logits."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.said = {}

    def _choose(self, sequences, values, log_totals):
        for sequence, logits, log_total in zip(sequences, values, log_totals):
            self.said.setdefault(sequence.number, []).append((logits.tobytes(), log_total.tobytes()))
        super()._choose(sequences, values, log_totals)


def random_row(rng, stems, n_vocab):
    """Half of them begin like others."""
    prompt = rng.choice(stems)[: rng.randrange(1, 200)] if rng.random() < 0.5 else []
    more = rng.randrange(0, 40) if rng.random() < 0.5 else 0
    prompt = [*prompt, *(rng.randrange(n_vocab) for _ in range(more or not prompt))]
    sampling = Sampling(temperature=rng.choice([0, 1]), top_k=rng.choice([0, 5]))
    return TokenSequence(prompt, sampling, rng.randrange(1000), length=rng.randrange(1, 30), keep=rng.random() < 0.5)


def try_schedule(backend, seed, monkeypatch):
    """32 rows that join and leave; chunks of random sizes, a store that forgets, room for a few or for all."""
    rng = random.Random(seed)
    n_vocab = backend.hparams.n_vocab
    stems = [[rng.randrange(n_vocab) for _ in range(200)] for _ in range(3)]
    rows = [random_row(rng, stems, n_vocab) for _ in range(32)]
    prefixes = PrefixCache(backend.new_pool(), rng.choice([0, 3, 50]) * backend.block_bytes)
    batch = Watched(backend, prefixes, rng.choice([9, 20, 1000]))
    coming = list(rows)
    while batch or coming:
        for _ in range(min(len(coming), rng.choice([0, 0, 1, 4, 16]))):
            batch.add(coming.pop(0))
        monkeypatch.setattr(batch_module, "MIN_PREFILL_CHUNK", rng.randrange(1, 40))
        monkeypatch.setattr(batch_module, "PREFILL_BUDGET_BUSY", rng.choice([1, 20, 256]))
        monkeypatch.setattr(batch_module, "PREFILL_BUDGET_IDLE", rng.randrange(1, 300))
        batch.step()
        for row in list(batch.sequences.values()):
            if len(row.choices) >= row.length or rng.random() < 0.01:
                batch.remove(row.number)
    monkeypatch.undo()
    assert batch.pool.n_used == len(prefixes.nodes) and sum(map(len, batch.said.values())) > 200
    for number, row in enumerate(rows):
        alone = Watched(backend)
        alone.add(row)
        said = batch.said.get(number, [])
        for _ in said:
            alone.step()
        assert alone.said.get(0, []) == said, f"seed {seed}, row {number}: {row}"


@pytest.mark.parametrize("seed", range(3))
def test_random_schedules(backend, seed, monkeypatch):
    try_schedule(backend, seed, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 200))
def test_hundreds_of_random_schedules(backend, seed, monkeypatch):
    try_schedule(backend, seed, monkeypatch)


def path_of(compiler):
    """Where it is, if it is there; "zig" is in a package."""
    in_package = (path for path in build.find_compilers() if Path(path).stem == compiler)
    return shutil.which(compiler) or next(in_package, None)


BUILDS = [
    ("c++", NO_AVX512),
    ("c++", NO_VNNI),
    ("c++", amx.EMULATION_OPTIONS),
    ("zig", amx.EMULATION_OPTIONS),
    ("c++", ("-march=x86-64",)),  # SSE2, without a product and a sum in one instruction
    ("c++", ("-march=sandybridge",)),  # AVX, without that too
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
    """A library by another compiler or for a lesser processor; in this process beside the other one."""
    name, options = request.param
    needed = "avx512_bf16" if options == amx.EMULATION_OPTIONS else "avx512f" if options else ""
    if needed and needed not in devices.cpu_flags():
        pytest.skip(f"this processor has no {needed}")
    compiler = path_of(name) or pytest.skip(f"there is no {name}")
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
def test_other_builds_write_the_same_ids(other_build, odd, native, precision):
    weights = checkpoint.read_weights(odd.weights_path, odd.hparams)
    found, expected = (NativeBackend(each, weights, odd.hparams, precision) for each in (other_build, native))
    assert generate_ids(found, SEQUENCES, 90) == generate_ids(expected, SEQUENCES, 90)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_other_builds_compute_the_same_bits(request, other_build, odd, native, precision):
    """Where a product and its sum are one instruction; elsewhere a rounding now and then goes the other way. Intel's
    matrix unit adds bfloat16, which the cache of int8 is too, in an order of its own."""
    weights = checkpoint.read_weights(odd.weights_path, odd.hparams)
    ids = np.random.default_rng(0).integers(odd.hparams.n_vocab, size=170).astype(np.int32)
    found, expected = (
        in_chunks(NativeBackend(each, weights, odd.hparams, precision), ids, [170]) for each in (other_build, native)
    )
    options = request.node.callspec.params["other_build"][1]
    in_tiles = precision != FLOAT32 and (options == amx.EMULATION_OPTIONS or devices.AMX_FLAG in devices.cpu_flags())
    if ROUNDS_TWICE.intersection(options):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 if precision == FLOAT32 else 0.05)
    elif in_tiles:
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
    else:
        np.testing.assert_array_equal(found, expected)


def schedules_of(library, odd, seeds, monkeypatch):
    for precision in PRECISIONS:
        weights = checkpoint.read_weights(odd.weights_path, odd.hparams)
        for seed in seeds:
            try_schedule(NativeBackend(library, weights, odd.hparams, precision), seed, monkeypatch)


def test_other_builds(other_build, odd, monkeypatch):
    schedules_of(other_build, odd, range(1), monkeypatch)


@pytest.mark.slow
def test_hundreds_of_random_schedules_of_other_builds(other_build, odd, monkeypatch):
    schedules_of(other_build, odd, range(1, 200), monkeypatch)
