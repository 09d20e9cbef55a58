"""What there is to compute with: devices, cores, memory. Starts TensorFlow, without its chatter, where it is needed."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import platform
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from gpt2.errors import GPT2Error, UsageError

LEGACY_KERAS = "TF_USE_LEGACY_KERAS"
# Files that exist where a driver is loaded: NVIDIA's natively and under WSL, AMD's. On a Mac it is a package.
NVIDIA_DRIVER = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")
AMD_DRIVER = ("/dev/kfd",)
METAL_PACKAGE = "tensorflow-metal"
CGROUP = Path("/sys/fs/cgroup")
CPU_INFO, MEMORY_INFO = Path("/proc/cpuinfo"), Path("/proc/meminfo")
SIBLINGS = "/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"
CPU = "CPU"
TILES = "amx_bf16"  # among cpu_flags: Intel's matrix unit
# Linux on x86-64: arch_prctl, ARCH_REQ_XCOMP_PERM and the unit's registers, as library.cc asks for them too.
ASK_FOR_TILES = (158, 0x1023, 18)
MAX_THREADS = 1024
HOLDING = threading.RLock()


def available_cores() -> int:
    """How many cores this process may use: those it may run on, or a container's share of them if that is less."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(min(allowed, _quota()))


def _quota() -> float:
    """How many cores' time a container may use (Linux, cgroup v2): more threads than that would wait for each other."""
    try:
        quota, period = (CGROUP / "cpu.max").read_text(encoding="ascii").split()
        return max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        return math.inf


def check_threads(threads: int | None) -> None:
    """Raises UsageError for a number of threads that nobody means; None is all cores."""
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise UsageError(f"threads must be from 1 to {MAX_THREADS}, not {threads}")


def cpu_name() -> str:
    """The processor's name, as Linux says it; elsewhere its kind."""
    try:
        found = re.search(r"^model name\s*:\s*(.*)", CPU_INFO.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.machine()


def whole_cores() -> int | None:
    """On how many cores of the processor those lie that this process may run on, of which two may be threads of one.

    As Linux says it; None where nobody does.
    """
    try:
        together = [SIBLINGS.format(core=core) for core in os.sched_getaffinity(0)]
        return len({Path(path).read_text(encoding="ascii") for path in together})
    except (AttributeError, OSError):
        return None


def cpu_flags() -> set[str]:
    """What an x86 processor can do, such as "avx2", as Linux says it; elsewhere nothing."""
    try:
        found = re.search(r"^flags\s*:(.*)", CPU_INFO.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return set()
    return set(found[1].split()) if found else set()


def tiles_allowed() -> bool:
    """Whether there is Intel's matrix unit, and the system lets this process use it."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    import ctypes  # only where text is written

    return ctypes.CDLL(None).syscall(*map(ctypes.c_long, ASK_FOR_TILES)) == 0


def available_memory() -> float:
    """Bytes that a process can still take, of the machine's memory or of what a container allows."""
    return min(_memory_available(), _memory_left())


def _memory_available() -> float:
    """Of the machine's memory."""
    with contextlib.suppress(OSError):
        if found := re.search(r"^MemAvailable:\s+(\d+) kB", MEMORY_INFO.read_text(encoding="ascii"), re.MULTILINE):
            return 1024 * int(found[1])
    import psutil  # knows other systems, and takes a while to import

    return psutil.virtual_memory().available


def _memory_left() -> float:
    """Of what a container may use (Linux, cgroup v2)."""
    try:
        allowed, used = (int((CGROUP / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        return max(0, allowed - used)
    except (OSError, ValueError):  # no such file, or "max"
        return math.inf


def has_tensorflow() -> bool:
    """Whether it is installed."""
    return importlib.util.find_spec("tensorflow") is not None


def has_gpu(threads: int | None = None) -> bool:
    """Whether TensorFlow can use a GPU here; it is started, with so many threads, only if there is a driver for one."""
    if not _driver() or not has_tensorflow():
        return False
    start(threads, return_memory=True)
    return any(name.startswith("GPU") for name in tensorflow_devices())


def _driver() -> bool:
    if sys.platform == "darwin":
        import importlib.metadata

        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return bool(importlib.metadata.version(METAL_PACKAGE))
    return any(Path(path).exists() for path in NVIDIA_DRIVER + AMD_DRIVER)


def start(threads: int | None = None, first: Callable[[], object] | None = None, return_memory: bool = False) -> str:
    """Imports TensorFlow and returns what it computes on, such as "CPU".

    threads: of one operation and of operations side by side; None lets TensorFlow decide.
    first: called as soon as TensorFlow is there, for what has to come before its first operation.
    return_memory: TensorFlow's own allocator on CPUs keeps what it once had; this takes the system's, which makes
        large products of TensorFlow's 15 to 20% slower.
    To be called before anything else imports TensorFlow, whose messages cannot be silenced afterwards. Raises
    UsageError for `threads`, GPT2Error if the processor is too old for TensorFlow.
    """
    check_threads(threads)
    if return_memory:
        os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")
    import_tensorflow()
    import tensorflow as tf

    with holding_back_stderr():
        gpus = tf.config.list_physical_devices("GPU")
        with contextlib.suppress(RuntimeError):  # TensorFlow has computed before, and its settings are fixed since
            for gpu in gpus:
                tf.config.experimental.set_memory_growth(gpu, True)
            if threads is not None:
                tf.config.threading.set_intra_op_parallelism_threads(threads)
                tf.config.threading.set_inter_op_parallelism_threads(threads)
        if first is not None:
            first()
        tf.config.list_logical_devices()  # creates them, with more messages
    tf.get_logger().setLevel("ERROR")
    if threads not in (None, tf.config.threading.get_intra_op_parallelism_threads()):
        warnings.warn(f"threads={threads} comes too late: TensorFlow has started already", stacklevel=2)
    return _gpu_names(gpus) if gpus else CPU + unusable_gpu()


def import_tensorflow() -> None:
    """Imports TensorFlow without its chatter, and starts nothing. Raises GPT2Error if the processor is too old."""
    _check_processor()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with holding_back_stderr(), _keras_left_out():
        import tensorflow  # noqa: F401


def _check_processor() -> None:
    """TensorFlow's packages are compiled for AVX: without it their import ends the process, and nothing is said.

    Others have built it for older processors, so that only a trial tells.
    """
    flags = cpu_flags()
    if not flags or "avx" in flags or "tensorflow" in sys.modules:
        return
    import subprocess  # seldom needed

    if subprocess.run([sys.executable, "-c", "import tensorflow"], capture_output=True).returncode < 0:
        raise GPT2Error(
            "this processor has no AVX, without which this TensorFlow does not start: text is written without "
            "TensorFlow where there is a C++ compiler, for all else use another computer or another TensorFlow"
        )


def tensorflow_devices() -> list[str]:
    """The devices that TensorFlow sees, such as "CPU:0"."""
    import tensorflow as tf

    return [found.name.removeprefix("/physical_device:") for found in tf.config.list_physical_devices()]


def unusable_gpu() -> str:
    """Says so if there is an NVIDIA GPU; to be asked when TensorFlow found none."""
    if not any(Path(path).exists() for path in NVIDIA_DRIVER):
        return ""
    return " (TensorFlow cannot use the NVIDIA GPU here; pip install 'tensorflow[and-cuda]' brings what it needs)"


def _gpu_names(gpus: list) -> str:
    import tensorflow as tf

    return ", ".join(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus)


@contextlib.contextmanager
def _keras_left_out() -> Iterator[None]:
    """TensorFlow imports Keras at its own import, which takes 0.6 s and which nothing here uses.

    Told that Keras 2 is wanted, it looks for another package, which is seldom there, and leaves it at that; `tf.keras`
    is still found when somebody asks for it.
    """
    asked = os.environ.get(LEGACY_KERAS)
    os.environ.setdefault(LEGACY_KERAS, "1")
    try:
        yield
    finally:
        if asked is None:
            del os.environ[LEGACY_KERAS]


@contextlib.contextmanager
def holding_back_stderr() -> Iterator[None]:
    """Holds back what is written to file descriptor 2, and lets it out only if an exception passes.

    TensorFlow's C++ logs at import, before it reads TF_CPP_MIN_LOG_LEVEL and past Python's logging. One thread at a
    time: of two, the second would put back what the first held.
    """
    with HOLDING, _stderr_held():
        yield


@contextlib.contextmanager
def _stderr_held() -> Iterator[None]:
    import tempfile  # a text that is written without TensorFlow needs none

    try:
        real = os.dup(2)
    except OSError:  # there is none to be written to
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(real, held.read())
            raise
        finally:
            os.dup2(real, 2)
            os.close(real)
