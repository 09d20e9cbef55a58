"""Functions that import TensorFlow without its log output, start it, and list its devices."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator

from gpt2 import devices
from gpt2.errors import GPT2Error
from gpt2.files import no_callback

START_NOTE = "starting TensorFlow, which can take half a minute"
LEGACY_KERAS_VARIABLE = "TF_USE_LEGACY_KERAS"
Notify = Callable[[str], object]  # called with a line of text for the user
STDERR_LOCK = threading.RLock()


def is_tensorflow_installed() -> bool:
    """Return whether the package tensorflow is installed, without importing it."""
    return importlib.util.find_spec("tensorflow") is not None


def can_use_gpu(threads: int | None = None, notify: Notify = no_callback) -> bool:
    """Return whether TensorFlow can use a GPU on this machine.

    If there is no GPU driver, TensorFlow is not started.

    Args:
        threads: Number of TensorFlow's threads, if it is started.
        notify: Called with START_NOTE before TensorFlow is started.
    """
    if not devices.has_gpu_driver() or not is_tensorflow_installed():
        return False
    start_tensorflow(threads, return_memory=True, notify=notify)
    return any(name.startswith("GPU") for name in visible_devices())


def start_tensorflow(
    threads: int | None = None,
    before_first_operation: Callable[[], object] | None = None,
    return_memory: bool = False,
    notify: Notify = no_callback,
) -> str:
    """Import TensorFlow, configure it and create its devices.

    Call this before anything else imports TensorFlow, whose messages cannot be silenced afterwards.

    Args:
        threads: Number of threads within one operation, and number of operations that run in parallel.
            None lets TensorFlow decide.
        before_first_operation: Called as soon as TensorFlow is imported, for setup that must precede its first
            operation.
        return_memory: Whether freed memory is returned to the system. TensorFlow's CPU allocator retains it. The
            system's allocator returns it, but makes large matrix products in TensorFlow 15 to 20% slower.
        notify: Called with START_NOTE, unless TensorFlow is imported already or is not installed.

    Returns:
        The name of the device that computes, such as "CPU".

    Raises:
        UsageError: `threads` is out of range.
        GPT2Error: The processor is too old for TensorFlow.
    """
    devices.check_threads(threads)
    if "tensorflow" not in sys.modules and is_tensorflow_installed():
        notify(START_NOTE)
    if return_memory:
        os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")
    import_tensorflow()
    import tensorflow as tf

    with hold_back_stderr():
        gpus = tf.config.list_physical_devices("GPU")
        with contextlib.suppress(RuntimeError):  # the settings are fixed once TensorFlow has run an operation
            for gpu in gpus:
                tf.config.experimental.set_memory_growth(gpu, True)
            if threads is not None:
                tf.config.threading.set_intra_op_parallelism_threads(threads)
                tf.config.threading.set_inter_op_parallelism_threads(threads)
        if before_first_operation is not None:
            before_first_operation()
        tf.config.list_logical_devices()  # creates the devices, which logs more messages
    tf.get_logger().setLevel("ERROR")
    if threads not in (None, tf.config.threading.get_intra_op_parallelism_threads()):
        warnings.warn(f"threads={threads} is ignored, because TensorFlow has already started", stacklevel=2)
    return _gpu_names(gpus) if gpus else devices.CPU + unusable_gpu_note()


def import_tensorflow() -> None:
    """Import TensorFlow without its log output and without starting it.

    Raises:
        GPT2Error: The processor is too old for TensorFlow.
    """
    _check_processor()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with hold_back_stderr(), _skip_keras():
        import tensorflow  # noqa: F401


def _check_processor() -> None:
    """Raise GPT2Error if TensorFlow would crash on this processor.

    TensorFlow's official packages are compiled for AVX. On a processor without it, importing them ends the process
    without a message. Other builds support older processors, so a child process tries the import.
    """
    flags = devices.cpu_flags()
    if not flags or "avx" in flags or "tensorflow" in sys.modules:
        return
    import subprocess  # rarely needed

    if subprocess.run([sys.executable, "-c", "import tensorflow"], capture_output=True).returncode < 0:
        raise GPT2Error(
            "this processor does not have AVX, which this build of TensorFlow needs: with a C++ compiler, text is "
            "generated without TensorFlow; for everything else, use another computer or another build of TensorFlow"
        )


def visible_devices() -> list[str]:
    """Return the names of the devices that TensorFlow sees, such as "CPU:0"."""
    import tensorflow as tf

    return [device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices()]


def unusable_gpu_note() -> str:
    """Return advice on making an NVIDIA GPU usable, or an empty string if no driver for one is loaded.

    Call this only if TensorFlow sees no GPU.
    """
    if not devices.has_nvidia_driver():
        return ""
    return (
        " (TensorFlow cannot use the NVIDIA GPU here; install its libraries with: pip install 'tensorflow[and-cuda]')"
    )


def _gpu_names(gpus: list) -> str:
    import tensorflow as tf

    return ", ".join(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus)


@contextlib.contextmanager
def _skip_keras() -> Iterator[None]:
    """Prevent TensorFlow's import from importing Keras 3, which takes 0.6 s and is not used here.

    If Keras 2 is requested, TensorFlow looks for another package, which is rarely installed, and continues without it.
    `tf.keras` still works when a program uses it later.
    """
    previous = os.environ.get(LEGACY_KERAS_VARIABLE)
    os.environ.setdefault(LEGACY_KERAS_VARIABLE, "1")
    try:
        yield
    finally:
        if previous is None:
            del os.environ[LEGACY_KERAS_VARIABLE]


@contextlib.contextmanager
def hold_back_stderr() -> Iterator[None]:
    """Hold back everything written to file descriptor 2, and release it only if the block raises an exception.

    TensorFlow's C++ code logs during import before it reads TF_CPP_MIN_LOG_LEVEL, and it bypasses Python's logging.
    Only one thread at a time may do this: a second one would restore the first one's temporary file as stderr.
    """
    with STDERR_LOCK, _redirect_stderr():
        yield


@contextlib.contextmanager
def _redirect_stderr() -> Iterator[None]:
    import tempfile  # generating text without TensorFlow does not need it

    try:
        stderr = os.dup(2)
    except OSError:  # stderr is closed
        yield
        return
    with tempfile.TemporaryFile() as buffer:
        os.dup2(buffer.fileno(), 2)
        try:
            yield
        except Exception:
            buffer.seek(0)
            os.write(stderr, buffer.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
