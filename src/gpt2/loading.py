"""Which decoder a checkpoint gets: the native one where it can be had, else TensorFlow's."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType

import tensorflow as tf

from gpt2 import checkpoint
from gpt2.decoder import Decoder
from gpt2.hparams import HParams
from gpt2.model import Weights
from gpt2.model_dir import ModelDir
from gpt2.native import build
from gpt2.native.decoder import NativeDecoder, pack
from gpt2.precision import narrow_as_loaded
from gpt2.request import DEFAULT_PRECISION


def native_ops(notify: Callable[[str], None] = build.unheard) -> ModuleType:
    """Raises build.Unavailable."""
    if tf.config.list_physical_devices("GPU"):
        raise build.Unavailable("it is for CPUs")
    return build.ops(notify)


def load_decoder(
    directory: ModelDir,
    precision: str = DEFAULT_PRECISION,
    native: bool = True,
    notify: Callable[[str], None] = build.unheard,
) -> Decoder:
    """Reads the weights and keeps them as the decoder needs them. Raises GPT2Error if they are damaged.

    native: whether to try the native ops, which everything works without.
    """
    weights, hparams = directory.weights, directory.hparams
    try:
        if not native:
            raise build.Unavailable("not asked for")
        ops = native_ops(notify)
    except build.Unavailable:
        if precision == DEFAULT_PRECISION:
            return Decoder(checkpoint.load(weights, hparams), hparams)
        return Decoder(checkpoint.load(weights, hparams, partial(narrow_as_loaded, precision)), hparams)
    decoder = NativeDecoder(ops, checkpoint.load(weights, hparams, partial(pack, ops, precision)), hparams)
    _give_back_memory()
    return decoder


def _give_back_memory() -> None:
    """What loading needed on the way: the C library keeps it otherwise (glibc's malloc_trim; others have none)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def decoders(weights: Weights, hparams: HParams) -> Iterator[Decoder]:
    """All decoders that there are here, each with these float32 weights."""
    yield Decoder(weights, hparams)
    with contextlib.suppress(build.Unavailable):
        ops = native_ops()
        yield NativeDecoder(ops, checkpoint.store_all(weights, partial(pack, ops, DEFAULT_PRECISION)), hparams)
