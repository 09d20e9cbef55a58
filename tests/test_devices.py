"""Cores, memory and processor features, as the files of a system or a container report them."""

import pytest

from gpt2 import devices


@pytest.mark.parametrize("content, cores", [("100000 100000", 1), ("150000 100000", 2), ("max 100000", 99), ("", 99)])
def test_a_container_s_cpu_quota_limits_the_cores(monkeypatch, tmp_path, content, cores):
    (tmp_path / "cpu.max").write_text(content)
    monkeypatch.setattr(devices, "CGROUP_FOLDER", tmp_path)
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda process: range(99), raising=False)
    assert devices.available_cores() == cores


@pytest.mark.parametrize("limit, expected", [("5000", 2000), ("max", None), ("2000", 0)])
def test_a_container_s_memory_limit_limits_the_memory(monkeypatch, tmp_path, limit, expected):
    monkeypatch.setattr(devices, "CGROUP_FOLDER", tmp_path / "none")
    machine_memory = devices.available_memory()
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text("3000")
    monkeypatch.setattr(devices, "CGROUP_FOLDER", tmp_path)
    available = devices.available_memory()
    assert available == expected if expected is not None else available > machine_memory / 2


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
