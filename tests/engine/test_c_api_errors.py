"""Impossible arguments of every function in gpt2.h: an error message or -1, and nothing is written."""

import ctypes

import numpy as np
import pytest

from gpt2.engine.load import load_backend
from gpt2.engine.native.backend import CCache, CModel
from gpt2.formats.model_dir import open_model_dir

TYPES = FLOAT32, BFLOAT16, INT8 = range(3)
UNKNOWN_TYPES = [9, 3, -1, 2**31 - 1, -(2**31)]
MAX = 2**63 - 1
IMPOSSIBLE_SIZES = [0, -1, -MAX, MAX, 2**62, 2**61]
SENTINEL = 77
LONG, INT, ADDRESS = ctypes.c_long, ctypes.c_int, ctypes.c_void_p


def address(array):
    return None if array is None else array.ctypes.data


def declare(library, name, result, *arguments):
    """Return a separate object of a function, since the types of the library's own one are declared elsewhere."""
    function = ctypes.CFUNCTYPE(result, *arguments)((name, library))
    return function


@pytest.fixture
def packed_bytes(native):
    return declare(native, "gpt2_packed_bytes", LONG, INT, LONG, LONG)


class PackCall:
    """A valid call of gpt2_pack, some of whose arguments are replaced."""

    def __init__(self, native):
        self.function = declare(
            native, "gpt2_pack", ctypes.c_char_p, INT, ADDRESS, LONG, LONG, INT, LONG, ADDRESS, ADDRESS
        )
        self.weights = np.ones([3, 5], np.float32)
        self.to = np.full(4096, SENTINEL, np.uint8)
        self.scales = np.full(3, SENTINEL, np.float32)
        self.weights_are_used = True

    def __call__(self, **changes):
        arguments = dict(type=FLOAT32, weights=self.weights, n=3, depth=5, in_out=0, first=0)
        arguments |= dict(to=self.to, scales=self.scales) | changes
        for name in ("weights", "to", "scales"):
            arguments[name] = address(arguments[name])
        return self.function(*arguments.values())

    @property
    def is_unchanged(self):
        return (self.to == SENTINEL).all() and (self.scales == SENTINEL).all()


@pytest.fixture
def pack(native):
    return PackCall(native)


@pytest.mark.parametrize("type", UNKNOWN_TYPES)
def test_unknown_types(packed_bytes, pack, forward, block_bytes, type):
    assert packed_bytes(type, 3, 5) == -1
    assert block_bytes(type, forward.model) == -1
    for call in (pack, forward):
        assert call(type=type) == b"the type must be GPT2_FLOAT32, GPT2_BFLOAT16 or GPT2_INT8"
        assert call.is_unchanged


@pytest.mark.parametrize("type", TYPES)
def test_packed_bytes(native, packed_bytes, type):
    width = ctypes.c_int.in_dll(native, "gpt2_width").value
    group = (1, 2, 4)[type]
    assert packed_bytes(type, 3, 5) == 4 * width * -(-5 // group)
    for size in IMPOSSIBLE_SIZES:
        assert packed_bytes(type, size, 5) == packed_bytes(type, 3, size) == -1, size
    assert packed_bytes(type, 2**31, 2**31) == (2**62 * 4 // group if type == INT8 else -1)
    assert packed_bytes(type, 2**32, 2**32) == -1


@pytest.mark.parametrize(
    "changes",
    [
        *({"weights": None}, {"to": None}, {"type": INT8, "scales": None}),
        *({name: size} for name in ("n", "depth") for size in IMPOSSIBLE_SIZES),
        *({"first": first} for first in (-1, -MAX, MAX, MAX - 1, 2**61)),
        {"n": 2**31, "depth": 2**31, "type": INT8},
        {"n": 2, "depth": MAX // 4, "in_out": 1},
    ],
)
@pytest.mark.parametrize("type", TYPES)
def test_pack(pack, type, changes):
    message = pack(**({"type": type} | changes))
    assert message and message.endswith((b"must not be NULL", b"must fit the address space"))
    assert pack.is_unchanged


def test_only_int8_needs_scales(pack):
    pack.to[:] = 0
    assert [pack(type=type, scales=None) for type in (FLOAT32, BFLOAT16)] == [None, None]
    assert pack(type=INT8) is None and (pack.scales == np.float32(1) / 127).all()


@pytest.mark.parametrize("number", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("type", TYPES)
def test_numbers_that_are_not_finite_cannot_be_packed(pack, type, number):
    pack.weights[2, 1] = number
    assert pack(type=type) == b"weights must be finite in the packed type"


class ForwardCall:
    """A valid call of gpt2_forward on a tiny model, some of whose arguments or fields are replaced."""

    def __init__(self, native, backend):
        arguments = [INT, ADDRESS, ADDRESS, ADDRESS, LONG, LONG, ADDRESS, LONG, ADDRESS, ADDRESS]
        self.function = declare(native, "gpt2_forward", ctypes.c_char_p, *arguments)
        self.backend = backend
        self.model = CModel.from_buffer_copy(backend.model)
        pool = backend.new_pool()
        self.block = pool.allocate()
        self.pool = pool
        self.addresses = pool.addresses
        self.segments = np.array([[0, 2, 1, self.block], [0, 1, 1, self.block]], np.int32)
        self.tokens = np.array([1, 2, 3], np.int32)
        self.logits = np.full([2, backend.hparams.n_vocab], SENTINEL, np.float32)
        self.log_totals = np.full(2, SENTINEL, np.float32)

    def __call__(self, **changes):
        arguments = dict(type=FLOAT32, model=self.model, cache=None, segments=self.segments, n=2, width=4)
        arguments |= dict(tokens=self.tokens, n_tokens=3, logits=self.logits, log_totals=self.log_totals)
        cache = CCache(changes.pop("n_blocks", len(self.addresses)), changes.pop("blocks", address(self.addresses)))
        arguments["cache"] = cache
        arguments |= changes
        for name in ("model", "cache"):
            arguments[name] = None if arguments[name] is None else ctypes.addressof(arguments[name])
        for name in ("segments", "tokens", "logits", "log_totals"):
            arguments[name] = address(arguments[name])
        return self.function(*arguments.values())

    @property
    def is_unchanged(self):
        is_empty = not self.pool._memory(self.block).any()
        return is_empty and (self.logits == SENTINEL).all() and (self.log_totals == SENTINEL).all()


@pytest.fixture
def forward(native, tiny_dir):
    return ForwardCall(native, load_backend(open_model_dir(tiny_dir)))


@pytest.fixture
def block_bytes(native):
    function = declare(native, "gpt2_block_bytes", LONG, INT, ADDRESS)
    return lambda type, model: function(type, None if model is None else ctypes.addressof(model))


@pytest.mark.parametrize(
    "changes",
    [
        *({name: None} for name in ("model", "cache", "segments", "tokens", "logits", "log_totals")),
        {"blocks": None},
        *({name: size} for name in ("n", "n_tokens") for size in (-1, -MAX, MAX, 2**31, 2**62)),
        *({"width": size} for size in (3, 0, -1, -MAX, MAX)),
        *({"n_blocks": n} for n in (0, -1, -MAX)),
        {"n": 4},
        {"n_tokens": 2},
        {"n_tokens": 0},
    ],
)
def test_forward(forward, changes):
    message = forward(**changes)
    assert message and b"exception" not in message and forward.is_unchanged


SIZES = ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer", "n_inner", "n_token_embd")


@pytest.mark.parametrize("name", SIZES)
def test_impossible_sizes_of_a_model(forward, block_bytes, name):
    for size in (*IMPOSSIBLE_SIZES, 2**31):
        setattr(forward.model, name, size)
        assert forward() == b"a model's sizes must be from 1 to 2^31 - 1" and forward.is_unchanged
        assert block_bytes(FLOAT32, forward.model) == -1
    assert block_bytes(FLOAT32, None) == -1


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"n_embd": 2**31 - 1}, b"n_embd must be at most"),
        ({"n_head": 3}, b"n_embd must be a multiple of n_head"),
        ({"n_layer": 2**31 - 1, "n_embd": 2**29, "n_head": 2**29}, None),
    ],
)
def test_sizes_of_a_model_that_do_not_fit_together(forward, block_bytes, fields, message):
    for name, size in fields.items():
        setattr(forward.model, name, size)
    assert block_bytes(FLOAT32, forward.model) == -1
    if message:
        assert forward().startswith(message) and forward.is_unchanged


@pytest.mark.parametrize("threads", [0, -1, 1025, MAX, -MAX])
def test_impossible_numbers_of_threads(forward, words, threads):
    assert words(threads=threads) and words.is_unchanged
    forward.model.threads = threads
    assert forward() == b"threads must be from 1 to 1024" and forward.is_unchanged


@pytest.mark.parametrize("epsilon", [0, -1e-5, 1, np.nan, np.inf])
def test_impossible_epsilons(forward, epsilon):
    forward.model.epsilon = epsilon
    assert forward() == b"epsilon must be between 0 and 1" and forward.is_unchanged


@pytest.mark.parametrize(
    "name", ["wte.w", "wte.scale", "lm_head.w", "lm_head.scale", "matrices", "wpe", "ln_f", "vectors"]
)
def test_missing_parts_of_a_model(forward, name):
    target = forward.model
    *parents, leaf = name.split(".")
    for parent in parents:
        target = getattr(target, parent)
    setattr(target, leaf, None)
    message = forward()
    assert message.endswith(b"must not be NULL") and forward.is_unchanged


def test_missing_parts_of_a_layer(forward):
    for name, index in (("matrices", 0), ("matrices", 7), ("vectors", 1)):
        table = getattr(forward.model, name)
        kept = table[index]
        table[index] = None
        assert forward() == b"a layer's matrices and vectors must not be NULL" and forward.is_unchanged
        table[index] = kept
    assert forward() is None and not forward.is_unchanged


def test_projections_belong_to_models_whose_sizes_differ(forward):
    forward.model.in_proj = forward.model.wte
    assert forward().startswith(b"in_proj and out_proj must be NULL if") and forward.is_unchanged
    forward.model.in_proj.w = None
    forward.model.n_token_embd = 16
    assert forward().startswith(b"in_proj and out_proj must be NULL if") and forward.is_unchanged


def test_no_segments_and_no_logits_need_no_memory(forward):
    assert forward(n=0, segments=None, tokens=None, n_tokens=0, logits=None, log_totals=None) is None
    assert forward.is_unchanged
    forward.segments[:, 2] = 0
    assert forward(logits=None, log_totals=None) is None


class WordsCall:
    """A valid call of gpt2_random_words, some of whose arguments are replaced."""

    def __init__(self, native):
        arguments = [ADDRESS, ADDRESS, ADDRESS, LONG, ADDRESS, LONG, ADDRESS]
        self.function = declare(native, "gpt2_random_words", ctypes.c_char_p, *arguments)
        self.to = np.full(5, SENTINEL, np.uint32)
        self.arrays = {
            "keys": np.arange(4, dtype=np.uint64),
            "firsts": np.zeros(2, np.uint64),
            "counts": np.array([3, 2]),
            "ids": np.arange(5, dtype=np.int32),
        }

    def __call__(self, n=2, threads=1, **changes):
        arrays = self.arrays | {"to": self.to} | changes
        addresses = {name: address(array) for name, array in arrays.items()}
        first = [addresses[name] for name in ("keys", "firsts", "counts")]
        return self.function(*first, n, addresses["ids"], threads, addresses["to"])

    @property
    def is_unchanged(self):
        return (self.to == SENTINEL).all()


@pytest.fixture
def words(native):
    return WordsCall(native)


@pytest.mark.parametrize(
    "changes",
    [
        *({name: None} for name in ("keys", "firsts", "counts", "to")),
        *({"n": n} for n in (-1, -MAX, MAX, 2**62)),
        *({"counts": np.array(counts)} for counts in ([-1, 6], [3, -MAX], [MAX, 1], [2**62, 2**62], [2**61, 0])),
        {"ids": np.array([0, 1, 2, 3, -1], np.int32)},
        {"ids": np.array([-(2**31), 1, 2, 3, 4], np.int32)},
    ],
)
def test_random_words(words, changes):
    assert words(**changes) and words.is_unchanged
    assert words() is None and not words.is_unchanged


def test_no_streams_need_no_memory(words):
    assert words(n=0, keys=None, firsts=None, counts=None, ids=None, to=None) is None
    assert words(counts=np.zeros(2, np.int64), to=None) is None
