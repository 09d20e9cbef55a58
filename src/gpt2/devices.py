"""Cores, memory, processor features and GPU drivers of this machine, without TensorFlow."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import re
import sys
from pathlib import Path
from typing import NamedTuple

from gpt2.errors import UsageError

CPU = "CPU"  # the name of the device that is always available
MAX_THREADS = 1024
CGROUP_FOLDER = Path("/sys/fs/cgroup")
NO_LIMIT = 1 << 62  # bytes; cgroup v1 reports the absence of a limit as a larger number
PROCESS_CGROUPS_FILE = Path("/proc/self/cgroup")
CPU_INFO_FILE = Path("/proc/cpuinfo")
MEMORY_INFO_FILE = Path("/proc/meminfo")
THREAD_SIBLINGS_FILE = "/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"
# Files that exist if a driver is loaded: NVIDIA's (native or under WSL) or AMD's. On a Mac, a package is needed.
NVIDIA_DRIVER_PATHS = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")
AMD_DRIVER_PATHS = ("/dev/kfd",)
METAL_DRIVER_PACKAGE = "tensorflow-metal"
AMX_FLAG = "amx_bf16"  # Intel's matrix unit, in cpu_flags()
# Linux on x86-64: the number of arch_prctl, ARCH_REQ_XCOMP_PERM and the tile registers. library.cc makes the same call.
REQUEST_AMX_SYSCALL = (158, 0x1023, 18)


class ControlGroupFiles(NamedTuple):
    """The names of a control group's files and statistics, which differ between the versions of cgroups.

    Attributes:
        limits: Pairs of a limit's file and the file of the usage that it limits.
        cache: Statistics of page cache and kernel memory that the system can reclaim.
        mapped: The statistic of files that processes have mapped; they are part of the page cache.
    """

    limits: tuple[tuple[str, str], ...]
    cache: tuple[str, ...]
    mapped: str


CGROUP_V2 = ControlGroupFiles(
    (("memory.max", "memory.current"), ("memory.high", "memory.current")),  # above "high", processes are slowed down
    ("active_file", "inactive_file", "slab_reclaimable"),
    "file_mapped",
)
CGROUP_V1 = ControlGroupFiles(
    (
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ("memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes"),  # memory and swap together
    ),
    ("total_active_file", "total_inactive_file"),
    "total_mapped_file",
)


def available_cores() -> int:
    """Return the number of cores that this process may use, limited by its affinity and by its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(min(allowed, _container_cores()))


def _container_cores() -> float:
    """Return the container's CPU quota in cores (Linux, cgroup v2); additional threads would only wait."""
    try:
        quota, period = (CGROUP_FOLDER / "cpu.max").read_text(encoding="ascii").split()
        return max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        return math.inf


def physical_cores() -> int | None:
    """Return the number of physical cores that this process may run on, counting hyper-threads of one core once.

    Returns:
        The number that Linux reports, or None on other systems.
    """
    try:
        siblings_files = [THREAD_SIBLINGS_FILE.format(core=core) for core in os.sched_getaffinity(0)]
        return len({Path(path).read_text(encoding="ascii") for path in siblings_files})
    except (AttributeError, OSError):
        return None


def check_threads(threads: int | None) -> None:
    """Check a number of threads; None means all cores.

    Raises:
        UsageError: The number is not between 1 and MAX_THREADS.
    """
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise UsageError(f"threads must be from 1 to {MAX_THREADS}, not {threads}")


def cpu_name() -> str:
    """Return the processor's model name on Linux, and its architecture on other systems."""
    try:
        match = re.search(r"^model name\s*:\s*(.*)", CPU_INFO_FILE.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        match = None
    return match[1] if match else platform.machine()


def cpu_flags() -> set[str]:
    """Return the features of an x86 processor, such as "avx2"; empty on systems other than Linux."""
    try:
        match = re.search(r"^flags\s*:(.*)", CPU_INFO_FILE.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return set()
    return set(match[1].split()) if match else set()


def is_amx_permitted() -> bool:
    """Return whether the processor has Intel's matrix unit and the system lets this process use it."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    import ctypes  # only text generation needs it

    return ctypes.CDLL(None).syscall(*map(ctypes.c_long, REQUEST_AMX_SYSCALL)) == 0


def available_memory() -> float:
    """Return the number of bytes that this process can still allocate, limited by the machine and by its container."""
    return min(_machine_memory(), _container_memory())


def _machine_memory() -> float:
    """Return the machine's available memory in bytes."""
    with contextlib.suppress(OSError):
        memory_info = MEMORY_INFO_FILE.read_text(encoding="ascii")
        if match := re.search(r"^MemAvailable:\s+(\d+) kB", memory_info, re.MULTILINE):
            return 1024 * int(match[1])
    import psutil  # supports other systems, but is slow to import

    return psutil.virtual_memory().available


def _container_memory() -> float:
    """Return the container's remaining memory in bytes (Linux): the smallest of its control groups and their parents.

    Page cache that no process has mapped counts as free, as in the system's MemAvailable, because the system drops it
    when a process needs the memory. Mapped files, such as stored weights, are in use.
    """
    groups = [(folder, CGROUP_V2) for folder in _control_groups("", CGROUP_FOLDER)]
    groups += [(folder, CGROUP_V1) for folder in _control_groups("memory", CGROUP_FOLDER / "memory")]
    return min((_group_memory(folder, names) for folder, names in groups), default=math.inf)


def _control_groups(controller: str, root: Path) -> list[Path]:
    """Return the folders of this process's control group and of its parents that are visible.

    Args:
        controller: The controller of cgroup v1, or an empty string for cgroup v2.
        root: The folder that the hierarchy is mounted on.
    """
    path = ""
    with contextlib.suppress(OSError, ValueError):
        for line in PROCESS_CGROUPS_FILE.read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if controller in controllers.split(","):
                path = group.strip("/")
    # In a container, the path may be the host's, and only the mounted folder itself exists.
    parts = () if ".." in path else Path(path).parts
    folders = [root.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
    return [folder for folder in folders if folder.is_dir()]


def _group_memory(folder: Path, names: ControlGroupFiles) -> float:
    """Return the remaining memory of one control group in bytes; infinity if it has no limit."""
    limits = []
    for limit_file, usage_file in names.limits:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            limit = int((folder / limit_file).read_text(encoding="ascii"))
            if limit < NO_LIMIT:
                limits.append((limit, int((folder / usage_file).read_text(encoding="ascii"))))
    if not limits:
        return math.inf
    statistics = _read_statistics(folder / "memory.stat")
    cache = sum(statistics.get(name, 0) for name in names.cache) - statistics.get(names.mapped, 0)
    return max(0, min(limit - max(0, used - max(0, cache)) for limit, used in limits))


def _read_statistics(path: Path) -> dict[str, int]:
    """Return the numbers in a file of lines `name number`; empty if it cannot be read."""
    try:
        return {name: int(value) for name, value in map(str.split, path.read_text(encoding="ascii").splitlines())}
    except (OSError, ValueError):
        return {}


def has_nvidia_driver() -> bool:
    """Return whether a driver for NVIDIA GPUs is loaded."""
    return any(Path(path).exists() for path in NVIDIA_DRIVER_PATHS)


def has_gpu_driver() -> bool:
    """Return whether a driver for NVIDIA, AMD or Apple GPUs is present."""
    if sys.platform == "darwin":
        import importlib.metadata

        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return bool(importlib.metadata.version(METAL_DRIVER_PACKAGE))
    return has_nvidia_driver() or any(Path(path).exists() for path in AMD_DRIVER_PATHS)
