"""Which backend a model gets: the native one where it can be had, else TensorFlow's."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gpt2 import devices, tensorflow_startup
from gpt2.engine.backend import Backend
from gpt2.engine.native import build
from gpt2.engine.native.backend import NativeBackend
from gpt2.engine.native.packed_store import Store
from gpt2.errors import GPT2Error
from gpt2.files import no_callback
from gpt2.formats.directory import ModelDir
from gpt2.formats.openai import checkpoint
from gpt2.formats.weights import Weights, wrap_arrays
from gpt2.hparams import HParams
from gpt2.request import DEFAULT_PRECISION


def native_library(notify: Callable[[str], None] = no_callback, threads: int | None = None) -> ctypes.CDLL:
    """Raises build.NoLibrary, saying why.

    Where there is a driver for GPUs TensorFlow is started, with so many threads, since it alone knows whether it can
    use one; elsewhere it is not imported.
    """
    if tensorflow_startup.can_use_gpu(threads):
        raise build.NoLibrary("the native step is for CPUs")
    return build.load(notify)


def load_backend(
    directory: ModelDir,
    precision: str = DEFAULT_PRECISION,
    native: bool = True,
    notify: Callable[[str], None] = no_callback,
    threads: int | None = None,
    cache: bool = True,
) -> Backend:
    """Reads the weights and keeps them as the backend needs them.

    Raises GPT2Error if they are damaged or nothing here can compute, UsageError for `threads`.
    native: whether to try the native library, which everything works without. notify: told what takes long. threads:
    that compute; all cores if None. cache: whether what is packed may be kept, and found, for the next process
    (`native.store`).
    """
    devices.check_threads(threads)
    weights, hparams = directory.read(), directory.hparams
    try:
        if not native:
            raise build.NoLibrary("not asked for")
        library = native_library(notify, threads)
    except build.NoLibrary as reason:
        device = _start(threads, reason)
        from gpt2.engine.tensorflow import TensorFlowBackend, as_tensors  # imports TensorFlow

        return TensorFlowBackend(as_tensors(weights, precision), hparams, device, f"TensorFlow: {reason}")
    backend = NativeBackend(library, weights, hparams, precision, threads, Store(library, notify) if cache else None)
    _give_back_memory()
    return backend


def backends(weights: Mapping[str, Any], hparams: HParams, threads: int | None = None) -> Iterator[Backend]:
    """All backends that there are here, each with these weights: nested, float32, of OpenAI's layout."""
    held: Weights = wrap_arrays(weights, checkpoint.layout)
    if tensorflow_startup.is_tensorflow_installed():
        from gpt2.engine.tensorflow import TensorFlowBackend, as_tensors  # imports TensorFlow

        yield TensorFlowBackend(as_tensors(held), hparams)
    with contextlib.suppress(build.NoLibrary):
        yield NativeBackend(native_library(threads=threads), held, hparams, threads=threads)


def _start(threads: int | None, no_library: build.NoLibrary) -> str:
    try:
        return tensorflow_startup.start_tensorflow(threads, return_memory=True)
    except GPT2Error as error:
        raise GPT2Error(f"{error}. Not the native step: {no_library}") from error
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        raise GPT2Error(f"TensorFlow is not installed. Not the native step: {no_library}") from error


def _give_back_memory() -> None:
    """What loading needed on the way: the C library keeps it otherwise (glibc's malloc_trim; others have none)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
