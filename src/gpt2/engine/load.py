"""Which decoder a checkpoint gets: the native one where it can be had, else TensorFlow's."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from functools import partial

import tensorflow as tf

from gpt2.engine.batch import Decoder
from gpt2.engine.native import build
from gpt2.engine.native.backend import NativeDecoder, Packer
from gpt2.engine.quantize import narrow_as_loaded
from gpt2.engine.tensorflow import TensorFlowDecoder
from gpt2.formats import openai
from gpt2.formats.model_dir import ModelDir
from gpt2.hparams import HParams
from gpt2.model import Weights
from gpt2.request import DEFAULT_PRECISION


def native_library(notify: Callable[[str], None] = build.unheard) -> ctypes.CDLL:
    """Raises build.Unavailable."""
    if tf.config.list_physical_devices("GPU"):
        raise build.Unavailable("it is for CPUs")
    return build.load(notify)


def load_decoder(
    directory: ModelDir,
    precision: str = DEFAULT_PRECISION,
    native: bool = True,
    notify: Callable[[str], None] = build.unheard,
) -> Decoder:
    """Reads the weights and keeps them as the decoder needs them. Raises GPT2Error if they are damaged.

    native: whether to try the native library, which everything works without.
    """
    weights, hparams = directory.weights, directory.hparams
    try:
        if not native:
            raise build.Unavailable("not asked for")
        library = native_library(notify)
    except build.Unavailable:
        if precision == DEFAULT_PRECISION:
            return TensorFlowDecoder(openai.load(weights, hparams), hparams)
        return TensorFlowDecoder(openai.load(weights, hparams, partial(narrow_as_loaded, precision)), hparams)
    decoder = NativeDecoder(library, openai.load(weights, hparams, Packer(library, precision)), hparams)
    _give_back_memory()
    return decoder


def _give_back_memory() -> None:
    """What loading needed on the way: the C library keeps it otherwise (glibc's malloc_trim; others have none)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def decoders(weights: Weights, hparams: HParams) -> Iterator[Decoder]:
    """All decoders that there are here, each with these float32 weights."""
    yield TensorFlowDecoder(weights, hparams)
    with contextlib.suppress(build.Unavailable):
        library = native_library()
        packed = openai.store_all(weights, Packer(library, DEFAULT_PRECISION))
        yield NativeDecoder(library, packed, hparams)
