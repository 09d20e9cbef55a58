"""Cores, memory and processor features, as the files of a system or a container report them."""

import pytest

from gpt2 import devices


@pytest.mark.parametrize("content, cores", [("100000 100000", 1), ("150000 100000", 2), ("max 100000", 99), ("", 99)])
def test_a_container_s_cpu_quota_limits_the_cores(monkeypatch, tmp_path, content, cores):
    (tmp_path / "cpu.max").write_text(content)
    monkeypatch.setattr(devices, "CGROUP_FOLDER", tmp_path)
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda process: range(99), raising=False)
    assert devices.available_cores() == cores


GB = 1 << 30
UNLIMITED = (1 << 63) - 4096  # what cgroup v1 reports without a limit


@pytest.fixture
def cgroup(monkeypatch, tmp_path):
    """Return a function that writes a control group and returns the memory that is then available."""
    process = tmp_path / "cgroup"
    process.write_text("0::/\n")
    (tmp_path / "root").mkdir()
    monkeypatch.setattr(devices, "CGROUP_FOLDER", tmp_path / "root")
    monkeypatch.setattr(devices, "PROCESS_CGROUPS_FILE", process)
    monkeypatch.setattr(devices, "_machine_memory", lambda: 64 * GB)

    def write(path="", processes=None, stat="", **values):
        folder = tmp_path / "root" / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.stat").write_text(stat)
        for name, value in values.items():
            (folder / f"memory.{name.replace('__', '.')}").write_text(f"{value}\n")
        if processes is not None:
            process.write_text(processes)
        return devices.available_memory()

    return write


@pytest.mark.parametrize("limit, expected", [("5000", 2000), ("max", 64 * GB), ("2000", 0), ("damaged", 64 * GB)])
def test_a_container_s_memory_limit_limits_the_memory(cgroup, limit, expected):
    assert cgroup(max=limit, current=3000) == expected


def test_this_machine_s_memory_is_read():
    assert devices.available_memory() > 1 << 20


@pytest.mark.parametrize(
    "statistics, used",
    [
        ({"inactive_file": 3.5 * GB}, 0.4 * GB),
        ({"active_file": 3.5 * GB}, 0.4 * GB),  # files that were read twice
        ({"active_file": GB, "inactive_file": 2.5 * GB, "anon": 0.4 * GB}, 0.4 * GB),
        ({"inactive_file": 3 * GB, "slab_reclaimable": 0.5 * GB, "slab_unreclaimable": 0.1 * GB}, 0.4 * GB),
        ({"file": 3.5 * GB, "shmem": 3.5 * GB, "inactive_file": 0}, 3.9 * GB),  # shared memory cannot be dropped
        ({"inactive_file": 3.5 * GB, "file_mapped": 1.5 * GB}, 1.9 * GB),  # mapped weights are in use
        ({"inactive_file": 9 * GB}, 0),
        ({"inactive_file": GB, "file_mapped": 2 * GB}, 3.9 * GB),
        ({}, 3.9 * GB),
    ],
)
def test_page_cache_in_a_container_is_free(cgroup, statistics, used):
    stat = "".join(f"{name} {int(value)}\n" for name, value in statistics.items())
    expected = pytest.approx(4 * GB - used, abs=2)
    assert cgroup(stat=stat, max=4 * GB, current=int(3.9 * GB)) == expected
    # The same in cgroup v1, which reports no kernel memory.
    if "slab_reclaimable" not in statistics:
        stat = "".join(f"total_{name}\n" for name in stat.replace("file_mapped", "mapped_file").splitlines())
        cgroup(max="max")
        values = {"limit_in_bytes": 4 * GB, "usage_in_bytes": int(3.9 * GB)}
        assert cgroup("memory", "4:memory:/\n", f"inactive_file {9 * GB}\n{stat}", **values) == expected


def test_the_smallest_limit_of_nested_control_groups(cgroup):
    processes = "1:name=systemd:/\n0::/pod/container\n"
    assert cgroup("pod/container", processes, max="max", current=GB) == 64 * GB
    assert cgroup("pod", max=8 * GB, current=2 * GB) == 6 * GB
    assert cgroup("pod/container", max=4 * GB, current=GB) == 3 * GB
    assert cgroup("pod", max=8 * GB, current=7 * GB, stat=f"inactive_file {GB}\n") == 2 * GB
    assert cgroup("", max=2 * GB, current=GB) == GB
    assert cgroup("pod/other", max=GB, current=GB) == GB  # of other processes


def test_memory_above_which_processes_are_slowed_down(cgroup):
    assert cgroup(max=4 * GB, high=3 * GB, current=GB) == 2 * GB
    assert cgroup(high="max") == 3 * GB


def test_control_groups_of_version_1(cgroup):
    processes = "9:cpu,cpuacct:/other\n4:memory:/docker/0123\n0::/\n"
    values = {"limit_in_bytes": UNLIMITED, "usage_in_bytes": 30 * GB}
    assert cgroup("memory", processes, **values) == 64 * GB
    assert cgroup("memory/docker/0123", limit_in_bytes=4 * GB, usage_in_bytes=3 * GB) == GB
    assert cgroup("memory/docker", limit_in_bytes=3 * GB, usage_in_bytes=3 * GB, stat=f"total_active_file {GB}") == GB
    swap = {"memsw__limit_in_bytes": 4 * GB, "memsw__usage_in_bytes": int(3.5 * GB)}
    assert cgroup("memory/docker/0123", **swap) == GB / 2


def test_a_path_of_the_host_in_a_container(cgroup):
    """The container sees only its own control group, under another name."""
    values = {"limit_in_bytes": 4 * GB, "usage_in_bytes": 3 * GB}
    assert cgroup("memory", "4:memory:/docker/0123456789\n", **values) == GB
    assert cgroup("", "0::/../../system.slice\n", max=2 * GB, current=int(1.5 * GB)) == GB / 2


@pytest.mark.parametrize("processes", ["", "nonsense\n", "0::\n", "0::/gone\n", "\0\n"])
def test_unusual_lists_of_control_groups(cgroup, processes):
    assert cgroup("", processes, max=2 * GB, current=GB, stat="nonsense\n") == GB


def test_allowed_thread_counts():
    for threads in (None, 1, devices.MAX_THREADS):
        devices.check_threads(threads)


def test_processor_flags(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "CPU_INFO_FILE", tmp_path / "cpuinfo")
    assert devices.cpu_flags() == set()
    (tmp_path / "cpuinfo").write_text("flags\t\t: avx avx2\nbugs\t\t: x\n\nflags\t\t: avx avx2\n")
    assert devices.cpu_flags() == {"avx", "avx2"}


def test_two_threads_of_one_core_count_once(tmp_path, monkeypatch):
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(devices, "THREAD_SIBLINGS_FILE", str(tmp_path / "{core}"))
    assert devices.physical_cores() is None
    for core, siblings in enumerate(("0-1", "0-1", "2", "3")):
        (tmp_path / str(core)).write_text(siblings)
    assert devices.physical_cores() == 3


def test_a_processor_without_a_name_is_named_by_its_architecture(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "CPU_INFO_FILE", tmp_path / "cpuinfo")
    assert devices.cpu_name() == devices.platform.machine()
    devices.CPU_INFO_FILE.write_text("processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: avx\n")
    assert devices.cpu_name() == "AMD EPYC"
