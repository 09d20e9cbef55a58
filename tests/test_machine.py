"""What TensorFlow's start may write, tried in processes of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

from gpt2 import machine

SRC = Path(__file__).resolve().parents[1] / "src"


def run(code):
    code = f"import sys; sys.path.insert(0, {str(SRC)!r})\n" + code
    return subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, text=True)


HOLD = "import os; from gpt2 import machine\nwith machine._native_stderr_held(): os.write(2, b'chatter\\n')"


def test_native_chatter_is_held_back():
    result = run(HOLD + "\nos.write(2, b'after\\n')")
    assert (result.returncode, result.stderr) == (0, "after\n")


def test_chatter_is_let_out_when_the_start_fails():
    assert "chatter\nTraceback" in run(HOLD + "; raise ImportError('no such library')").stderr


def test_a_closed_stderr_is_no_obstacle():
    result = run("import os; os.close(2)\n" + HOLD.replace("os.write(2, b'chatter\\n')", "print('done')"))
    assert (result.returncode, result.stdout) == (0, "done\n")


def test_a_second_start_is_no_obstacle_and_says_what_comes_too_late():
    code = "from gpt2 import machine\nfor threads in (1, 1, None, 2): machine.start(threads)"
    result = run(code)
    assert result.returncode == 0 and result.stderr.count("Warning") == 1
    assert "threads=2 comes too late: TensorFlow has started already" in result.stderr


@pytest.mark.parametrize("content, cores", [("100000 100000", 1), ("150000 100000", 2), ("max 100000", 99), ("", 99)])
def test_a_container_s_share_of_the_cores_is_heeded(monkeypatch, tmp_path, content, cores):
    (tmp_path / "cpu.max").write_text(content)
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda process: range(99), raising=False)
    assert machine.cores() == cores


@pytest.mark.parametrize("allowed, left", [("5000", 2000), ("max", None), ("2000", 0)])
def test_a_container_s_share_of_the_memory_is_heeded(monkeypatch, tmp_path, allowed, left):
    monkeypatch.setattr(machine, "CGROUP", tmp_path / "none")
    everything = machine.available_memory()
    (tmp_path / "memory.max").write_text(allowed)
    (tmp_path / "memory.current").write_text("3000")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    found = machine.available_memory()
    assert found == left if left is not None else found > everything / 2
