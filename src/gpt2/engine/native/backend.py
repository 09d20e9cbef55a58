"""A backend whose prefill and decode step are one call of the native library each, in float32, bfloat16 or int8.

Without TensorFlow, from the files to the logits.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from gpt2 import machine
from gpt2.engine.backend import Rows
from gpt2.engine.cache import slot_bytes
from gpt2.engine.native.cache import POINTERS, WORD, ArrayCache, pointers
from gpt2.engine.native.memory import CHUNKS
from gpt2.errors import GPT2Error
from gpt2.formats.weights import Layout, Weight, Weights, nest
from gpt2.hparams import HParams
from gpt2.request import BFLOAT16, DEFAULT_PRECISION, FLOAT32, INT8

NO_MEMORY = b"no memory"  # as library.cc says it
READERS = 2  # one weight is read while another is packed
MATRICES = (("attn", "c_attn"), ("attn", "c_proj"), ("mlp", "c_fc"), ("mlp", "c_proj"))
# What a packed weight is to NumPy, in the order of `Type` in library.cc.
TYPES: dict[str, np.dtype] = {
    FLOAT32: np.dtype(np.float32),
    BFLOAT16: np.dtype(np.uint16),
    INT8: np.dtype(np.uint8),
}


class CModel(ctypes.Structure):
    """`Model` in library.cc."""

    _fields_ = [
        *((name, ctypes.c_long) for name in ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer", "threads")),
        ("wte", ctypes.c_void_p),
        ("matrices", POINTERS),
        *((name, ctypes.c_void_p) for name in ("wte_scale", "wpe", "ln_f")),
        ("vectors", POINTERS),
    ]


class NativeBackend:
    """See `engine.backend.Backend`. Raises GPT2Error if the weights turn out to be damaged, MemoryError.

    precision: of the weights in memory. threads: all cores if None; fewer compute where the system grants no more.
    """

    name = "the native step"
    device = machine.CPU

    def __init__(
        self,
        library: ctypes.CDLL,
        weights: Weights,
        hparams: HParams,
        precision: str = DEFAULT_PRECISION,
        threads: int | None = None,
    ) -> None:
        self.hparams, self.width = hparams, panel_width(library)
        self.forward = library.gpt2_forward
        self.forward.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 3, ctypes.c_long, ctypes.c_long, ctypes.c_void_p]
        self.forward.restype = ctypes.c_char_p
        self.type = list(TYPES).index(precision)
        self.cache_type = TYPES[FLOAT32 if precision == FLOAT32 else BFLOAT16]
        self.slot_bytes = slot_bytes(hparams, self.cache_type.itemsize)
        threads = threads or machine.cores()
        packer = Packer(library, precision, threads)
        kept = nest(zip(weights, _prepared(packer, weights.values())))
        wte, ln_f = kept["wte"], kept["ln_f"]
        blocks = [kept[f"h{layer}"] for layer in range(hparams.n_layer)]
        self.matrices = [block[part][name]["w"].values for block in blocks for part, name in MATRICES]
        self.vectors = [_vectors(block) for block in blocks]
        # The order of CModel's fields; these arrays live as long as the pointers to them.
        self.ends = wte.values, wte.scale, kept["wpe"], np.concatenate([ln_f["g"], ln_f["b"]])
        sizes = (hparams.n_vocab, hparams.n_ctx, hparams.n_embd, hparams.n_head, hparams.n_layer, threads)
        at_wte, *at_others = (array.ctypes.data for array in self.ends)
        self.model = CModel(*sizes, at_wte, pointers(self.matrices), *at_others, pointers(self.vectors))

    def new_cache(self, batch: int) -> ArrayCache:
        return ArrayCache(self.hparams, batch, self.cache_type, self.width)

    def extend(
        self, cache: ArrayCache, rows: Rows, tokens: np.ndarray, starts: np.ndarray, counts: np.ndarray
    ) -> np.ndarray:
        """See `Backend`. Raises MemoryError too."""
        pieces = np.column_stack([cache.places(rows), starts, counts, tokens]).astype(np.int32)
        logits = np.empty([len(rows), self.hparams.n_vocab], np.float32)
        model, seen = ctypes.byref(self.model), ctypes.byref(cache.held.seen)
        check(self.forward(self.type, model, seen, pieces.ctypes.data, *pieces.shape, logits.ctypes.data))
        return logits


def check(wrong: bytes | None) -> None:
    """Raises what a function of the library returned, if it did."""
    if wrong == NO_MEMORY:
        raise MemoryError
    if wrong:
        raise ValueError(wrong.decode())


def panel_width(library: ctypes.CDLL) -> int:
    """WIDTH in kernels.h, which depends on the processor."""
    return ctypes.c_int.in_dll(library, "gpt2_width").value


class Packed(NamedTuple):
    """A matrix as the native library reads it."""

    values: np.ndarray  # [O / WIDTH, I / GROUP, WIDTH, GROUP] (kernels.h)
    scale: np.ndarray  # [O] float32, by which each output is multiplied


class Packer:
    """What the native library keeps of weights: matrices packed, all else as it is."""

    def __init__(self, library: ctypes.CDLL, precision: str, threads: int) -> None:
        self.pack, self.width, self.threads = library.gpt2_pack, panel_width(library), threads
        size, address = ctypes.c_long, ctypes.c_void_p
        self.pack.argtypes = [ctypes.c_int, address, size, size, ctypes.c_int, size, size, address, address]
        self.pack.restype = ctypes.c_char_p
        self.type, self.dtype = list(TYPES).index(precision), TYPES[precision]

    def prepared(self, weight: Weight) -> np.ndarray | Packed:
        return weight.array() if weight.layout is None else self.packed(weight)

    def packed(self, weight: Weight) -> Packed:
        """A matrix, packed piece by piece where its outputs are rows."""
        outputs, depth = weight.shape if weight.layout is Layout.OUT_IN else weight.shape[::-1]
        group = WORD // self.dtype.itemsize
        width = self.width
        values = CHUNKS.zeros((-(-outputs // width), -(-depth // group), width, group), self.dtype)
        scale: np.ndarray = np.ones(outputs, np.float32)
        first = 0
        for piece in weight.pieces() if weight.layout is Layout.OUT_IN else [weight.array()]:
            piece, n = np.ascontiguousarray(piece), len(piece) if weight.layout is Layout.OUT_IN else outputs
            places = values.ctypes.data, scale.ctypes.data
            in_out = weight.layout is Layout.IN_OUT
            check(self.pack(self.type, piece.ctypes.data, n, depth, in_out, first, self.threads, *places))
            first += n
        return Packed(values, scale)


def _prepared(packer: Packer, weights: Iterable[Weight]) -> list[np.ndarray | Packed]:
    """Raises GPT2Error, also where the system grants no threads."""
    with ThreadPoolExecutor(READERS) as readers:
        try:
            results = readers.map(packer.prepared, weights)
        except RuntimeError as error:
            raise GPT2Error(f"{error}: close other programs, or raise the limit that ulimit -u shows") from error
        return list(results)


def _vectors(block: Mapping) -> np.ndarray:
    """All that is not a matrix in a layer, one after another, in the order in which forward.h takes it apart."""
    norms_and_biases = [
        *(block["ln_1"][name] for name in "gb"),
        *(block["attn"][name]["b"] for name in ("c_attn", "c_proj")),
        *(block["ln_2"][name] for name in "gb"),
        *(block["mlp"][name]["b"] for name in ("c_fc", "c_proj")),
    ]
    scales = [block[part][name]["w"].scale for part, name in MATRICES]
    return np.concatenate([*norms_and_biases, *scales])
