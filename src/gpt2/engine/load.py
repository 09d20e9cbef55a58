"""The choice of a backend for a model: the native backend if it works on this machine, else TensorFlow's."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gpt2 import devices, tensorflow_startup
from gpt2.engine.backend import Backend
from gpt2.engine.native import build
from gpt2.engine.native.backend import NativeBackend
from gpt2.engine.native.cache_folder import NoLibraryError
from gpt2.engine.native.packed_store import PackedStore
from gpt2.errors import GPT2Error
from gpt2.files import no_callback
from gpt2.formats.directory import ModelDir
from gpt2.formats.openai import checkpoint
from gpt2.formats.weights import Weights, wrap_arrays
from gpt2.hparams import HParams
from gpt2.request import DEFAULT_PRECISION


def native_library(notify: Callable[[str], None] = no_callback, threads: int | None = None) -> ctypes.CDLL:
    """Return the native library, if this machine computes on its CPU.

    If there is a GPU driver, TensorFlow is started to check whether it can use a GPU. Otherwise it is not imported.

    Args:
        notify: Called with a line of text before each especially slow step.
        threads: The number of TensorFlow's threads, if it is started.

    Raises:
        NoLibraryError: There is no library, or a GPU that TensorFlow can use.
    """
    if tensorflow_startup.can_use_gpu(threads, notify):
        raise NoLibraryError("it computes on CPUs only")
    return build.load(notify)


def load_backend(
    directory: ModelDir,
    precision: str = DEFAULT_PRECISION,
    native: bool = True,
    notify: Callable[[str], None] = no_callback,
    threads: int | None = None,
    cache: bool = True,
) -> Backend:
    """Load a model's weights into the best backend of this machine.

    Args:
        directory: The model's files.
        precision: The weights' precision in memory.
        native: Whether to try the native library, which is optional.
        notify: Called with a line of text before each especially slow step.
        threads: Number of compute threads; None for one per core.
        cache: Whether packed weights may be stored, and loaded, for the next process (`native.packed_store`).

    Returns:
        The backend.

    Raises:
        GPT2Error: The weights are damaged, or no backend works on this machine.
        UsageError: The number of threads is not allowed.
    """
    devices.check_threads(threads)
    weights = directory.read()
    hparams = directory.hparams
    try:
        if not native:
            raise NoLibraryError("it was not requested")
        library = native_library(notify, threads)
    except NoLibraryError as error:
        device = _start_tensorflow(threads, error, notify)
        from gpt2.engine.tensorflow import TensorFlowBackend, as_tensors  # imports TensorFlow

        return TensorFlowBackend(as_tensors(weights, precision), hparams, device, f"TensorFlow: {error}")
    store = PackedStore(library, notify) if cache else None
    backend = NativeBackend(library, weights, hparams, precision, threads, store)
    _trim_memory()
    return backend


def all_backends(weights: Mapping[str, Any], hparams: HParams, threads: int | None = None) -> Iterator[Backend]:
    """Yield every backend that works on this machine, each with the same weights.

    Args:
        weights: Nested float32 weights in OpenAI's layout.
        hparams: The model's sizes.
        threads: Number of compute threads; None for one per core.
    """
    named_weights: Weights = wrap_arrays(weights, checkpoint.layout)
    if tensorflow_startup.is_tensorflow_installed():
        from gpt2.engine.tensorflow import TensorFlowBackend, as_tensors  # imports TensorFlow

        yield TensorFlowBackend(as_tensors(named_weights), hparams)
    with contextlib.suppress(NoLibraryError):
        yield NativeBackend(native_library(threads=threads), named_weights, hparams, threads=threads)


def _start_tensorflow(threads: int | None, no_library: NoLibraryError, notify: Callable[[str], None]) -> str:
    """Start TensorFlow and return its device; errors also say why the native library is not used."""
    try:
        return tensorflow_startup.start_tensorflow(threads, return_memory=True, notify=notify)
    except GPT2Error as error:
        raise GPT2Error(f"{error}. The native step is not available either: {no_library}") from error
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        raise GPT2Error(f"TensorFlow is not installed, and the native step is not available: {no_library}") from error


def _trim_memory() -> None:
    """Return unused memory to the system after loading, which glibc does not do by itself."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
