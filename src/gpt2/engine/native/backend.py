"""A decoder whose prefill and decode step are one call of the native library each, in float32, bfloat16 or int8."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from gpt2.engine.cache import Rows
from gpt2.engine.native.cache import POINTERS, WIDTH, WORD, ArrayCache, pointers
from gpt2.engine.native.memory import CHUNKS
from gpt2.engine.quantize import rows_of_outputs
from gpt2.hparams import HParams
from gpt2.model import Narrow, Weights

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
KERNELS = (("attn", "c_attn"), ("attn", "c_proj"), ("mlp", "c_fc"), ("mlp", "c_proj"))
# Packed, in the order of `Type` in library.cc.
TYPES: dict[str, np.dtype] = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(np.uint16),
    "int8": np.dtype(np.uint8),
}


class CModel(ctypes.Structure):
    """`Model` in library.cc."""

    _fields_ = [
        *((name, ctypes.c_long) for name in ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer", "threads")),
        ("wte", ctypes.c_void_p),
        ("kernels", POINTERS),
        *((name, ctypes.c_void_p) for name in ("wte_scale", "wpe", "ln_f")),
        ("vectors", POINTERS),
    ]


class NativeDecoder:
    """A `decode.Decoder` for weights whose kernels and wte a `Packer` has made."""

    kernels = "native kernels"

    def __init__(self, library: ctypes.CDLL, weights: Weights, hparams: HParams) -> None:
        self.hparams = hparams
        self.forward = library.gpt2_forward
        self.forward.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 3, ctypes.c_long, ctypes.c_long, ctypes.c_void_p]
        self.forward.restype = ctypes.c_char_p
        wte, ln_f = weights["wte"], weights["ln_f"]
        blocks = [weights[f"h{layer}"] for layer in range(hparams.n_layer)]
        self.type = list(TYPES.values()).index(wte.values.dtype)
        self.cache_type = TYPES["float32" if wte.values.dtype == TYPES["float32"] else "bfloat16"]
        self.kernels_of_layers = [block[part][name]["w"].values for block in blocks for part, name in KERNELS]
        self.vectors = [_vectors(block) for block in blocks]
        # The order of CModel's fields; these arrays live as long as the pointers to them.
        self.ends = wte.values, wte.scale, np.asarray(weights["wpe"]), np.concatenate([ln_f["g"], ln_f["b"]])
        sizes = (hparams.n_vocab, hparams.n_ctx, hparams.n_embd, hparams.n_head, hparams.n_layer, threads())
        at_wte, *at_others = (array.ctypes.data for array in self.ends)
        self.model = CModel(*sizes, at_wte, pointers(self.kernels_of_layers), *at_others, pointers(self.vectors))

    def new_cache(self, batch: int) -> ArrayCache:
        return ArrayCache(self.hparams, batch, self.cache_type)

    def extend(
        self, cache: ArrayCache, rows: Rows, tokens: np.ndarray, starts: np.ndarray, counts: np.ndarray
    ) -> np.ndarray:
        """See `decode.Decoder`; here rows may start anywhere. Raises ValueError for what would leave the cache.

        Without TensorFlow, whose first use after a step, when no cache is warm, takes 0.2 ms, a second one 0.2 more.
        """
        pieces = np.column_stack([cache.places(rows), starts, counts, tokens]).astype(np.int32)
        logits = np.empty([len(rows), self.hparams.n_vocab], np.float32)
        model, seen = ctypes.byref(self.model), ctypes.byref(cache.seen)
        wrong = self.forward(self.type, model, seen, pieces.ctypes.data, *pieces.shape, logits.ctypes.data)
        if wrong:
            raise ValueError(wrong.decode())
        return logits


class Packer:
    """For `checkpoint.load`: kernels [I, O] and wte [V, E] -> packed matrices and the scales of their outputs."""

    def __init__(self, library: ctypes.CDLL, precision: str) -> None:
        self.pack, self.precision = library.gpt2_pack, precision
        size, address = ctypes.c_long, ctypes.c_void_p
        self.pack.argtypes = [ctypes.c_int, POINTERS, ctypes.POINTER(size), size, size, ctypes.c_int, size, address]
        self.pack.restype = None

    def __call__(self, name: str, parts: Iterable[tf.Tensor]) -> Narrow:
        if self.precision == "int8":
            values, scales = zip(*rows_of_outputs(name, parts, self.precision))
            return Narrow(self.packed(values, transposed=True), np.concatenate(scales))
        parts, transposed = list(parts), name.endswith("wte")
        n = sum(part.shape[0 if transposed else 1] for part in parts)
        return Narrow(self.packed(parts, transposed), np.ones(n, np.float32))

    def packed(self, parts: Sequence[tf.Tensor], transposed: bool) -> np.ndarray:
        """Parts [I, O], or [O, I] if transposed, side by side -> [O / WIDTH, I / GROUP, WIDTH, GROUP] (kernels.h)."""
        arrays = [np.ascontiguousarray(part) for part in parts]
        widths = [array.shape[0 if transposed else 1] for array in arrays]
        if len(widths) > 1 and (set(widths[:-1]) != {widths[0]} or widths[0] % WIDTH or widths[-1] > widths[0]):
            raise ValueError("all parts but the last must be equally wide, in whole panels")
        depth, dtype = arrays[0].shape[1 if transposed else 0], TYPES[self.precision]
        group = WORD // dtype.itemsize
        out = CHUNKS.empty((-(-sum(widths) // WIDTH), -(-depth // group), WIDTH, group), dtype)
        sizes = (ctypes.c_long * len(widths))(*widths)
        kind = list(TYPES).index(self.precision)
        self.pack(kind, pointers(arrays), sizes, len(widths), depth, transposed, threads(), out.ctypes.data)
        return out


def threads() -> int:
    """What TensorFlow was told to use; all cores that this process may run on if nothing."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return tf.config.threading.get_intra_op_parallelism_threads() or int(min(available, _quota()))


def _quota() -> float:
    """How many cores' time a container may use (Linux, cgroup v2): more threads than that would wait for each other."""
    try:
        quota, period = CPU_QUOTA.read_text(encoding="ascii").split()
        return max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        return math.inf


def _vectors(block: Weights) -> np.ndarray:
    """All that is not a kernel in a layer, one after another, in the order in which forward.h takes it apart."""
    norms_and_biases = [
        *(block["ln_1"][name] for name in "gb"),
        *(block["attn"][name]["b"] for name in ("c_attn", "c_proj")),
        *(block["ln_2"][name] for name in "gb"),
        *(block["mlp"][name]["b"] for name in ("c_fc", "c_proj")),
    ]
    scales = [block[part][name]["w"].scale for part, name in KERNELS]
    return np.concatenate([*norms_and_biases, *scales])
