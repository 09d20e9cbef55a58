"""A decoder whose prefill and decode step are one native op each, in float32, bfloat16 or int8.

Panels: the op reads kernels and wte as [O / WIDTH, I / GROUP, WIDTH, GROUP] (kernels.h); the keys of a head are such a
matrix [D, P] in the place of [P, D], and its values [P / GROUP, D', GROUP] in the place of [P, D'].
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf

from gpt2.cache import KeyValueCache, Rows
from gpt2.decoder import Decoder
from gpt2.hparams import HParams
from gpt2.model import Narrow, Weights
from gpt2.precision import rows_of_outputs

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
WIDTH = 32  # columns of a panel, as in kernels.h
WORD = 4  # bytes; a group is what fits into one
KERNELS = (("attn", "c_attn"), ("attn", "c_proj"), ("mlp", "c_fc"), ("mlp", "c_proj"))


class NativeDecoder(Decoder):
    """Like `Decoder`, for weights that `pack` has made."""

    kernels = "native kernels"

    def __init__(self, ops: ModuleType, weights: Weights, hparams: HParams) -> None:
        super().__init__(weights, hparams)
        self.ops = ops
        wte, ln_f = weights["wte"], weights["ln_f"]
        blocks = [weights[f"h{layer}"] for layer in range(hparams.n_layer)]
        self.cache_type = tf.float32 if wte.values.dtype == tf.float32 else tf.bfloat16
        self.arguments: dict[str, Any] = {
            "wte": wte.values,
            "wte_scale": wte.scale,
            "wpe": weights["wpe"],
            "ln_f": tf.stack([ln_f["g"], ln_f["b"]]),
            "kernels": [block[part][name]["w"].values for block in blocks for part, name in KERNELS],
            "vectors": [_vectors(block) for block in blocks],
            "n_head": hparams.n_head,
            "threads": threads(),
        }

    def new_cache(self, batch: int) -> KeyValueCache:
        return KeyValueCache(self.hparams, batch, self.cache_type, WIDTH, WORD // self.cache_type.size)

    def extend(
        self, cache: KeyValueCache, rows: Rows, tokens: np.ndarray, starts: np.ndarray, counts: np.ndarray
    ) -> tf.Tensor:
        """See `Decoder.extend`; here rows may start anywhere. The op writes into the cache's own memory."""
        pieces = np.column_stack([cache.places(rows), starts, counts, tokens])  # one tensor: each costs 10 us to make
        return self.ops.gpt2_forward(
            pieces=tf.constant(pieces, tf.int32), keys=cache.keys, values=cache.values, **self.arguments
        )


def pack(ops: ModuleType, precision: str, name: str, parts: Iterable[tf.Tensor]) -> Narrow:
    """For `checkpoint.load`: kernels [I, O] and wte [V, E] -> panels and the scales of their outputs."""
    if precision == "int8":
        values, scales = zip(*rows_of_outputs(name, parts, precision))
        return Narrow(ops.gpt2_pack(parts=values, transposed=1, threads=threads()), tf.concat(scales, axis=0))
    transposed = name.endswith("wte")
    cast = [tf.cast(part, precision) for part in parts]
    n = sum(part.shape[0 if transposed else 1] for part in cast)
    return Narrow(ops.gpt2_pack(parts=cast, transposed=int(transposed), threads=threads()), tf.ones([n]))


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


def _vectors(block: Weights) -> tf.Tensor:
    """All that is not a kernel in a layer, one after another, in the order in which forward.h takes it apart."""
    norms_and_biases = [
        *(block["ln_1"][name] for name in "gb"),
        *(block["attn"][name]["b"] for name in ("c_attn", "c_proj")),
        *(block["ln_2"][name] for name in "gb"),
        *(block["mlp"][name]["b"] for name in ("c_fc", "c_proj")),
    ]
    return tf.concat([*norms_and_biases, *(block[part][name]["w"].scale for part, name in KERNELS)], axis=0)
