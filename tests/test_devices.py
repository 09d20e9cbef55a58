"""What TensorFlow's start may write, tried in processes of their own; processors, cores and threads."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from gpt2 import devices, generate
from gpt2.cli import diagnostics
from gpt2.engine import load
from gpt2.errors import UsageError
from gpt2.formats.model_dir import open_model_dir
from gpt2.training.settings.settings import TrainingSettings

SRC = Path(__file__).resolve().parents[1] / "src"


def run(code):
    code = f"import sys; sys.path.insert(0, {str(SRC)!r})\n" + code
    return subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, text=True)


HOLD = "import os; from gpt2 import devices\nwith devices.holding_back_stderr(): os.write(2, b'chatter\\n')"


def test_native_chatter_is_held_back():
    result = run(HOLD + "\nos.write(2, b'after\\n')")
    assert (result.returncode, result.stderr) == (0, "after\n")


def test_chatter_is_let_out_when_the_start_fails():
    assert "chatter\nTraceback" in run(HOLD + "; raise ImportError('no such library')").stderr


def test_a_closed_stderr_is_no_obstacle():
    result = run("import os; os.close(2)\n" + HOLD.replace("os.write(2, b'chatter\\n')", "print('done')"))
    assert (result.returncode, result.stdout) == (0, "done\n")


def test_a_second_start_is_no_obstacle_and_says_what_comes_too_late():
    code = "from gpt2 import devices\nfor threads in (1, 1, None, 2): devices.start(threads)"
    result = run(code)
    assert result.returncode == 0 and result.stderr.count("Warning") == 1
    assert "threads=2 comes too late: TensorFlow has started already" in result.stderr


@pytest.mark.parametrize("content, cores", [("100000 100000", 1), ("150000 100000", 2), ("max 100000", 99), ("", 99)])
def test_a_container_s_share_of_the_cores_is_heeded(monkeypatch, tmp_path, content, cores):
    (tmp_path / "cpu.max").write_text(content)
    monkeypatch.setattr(devices, "CGROUP", tmp_path)
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda process: range(99), raising=False)
    assert devices.available_cores() == cores


@pytest.mark.parametrize("allowed, left", [("5000", 2000), ("max", None), ("2000", 0)])
def test_a_container_s_share_of_the_memory_is_heeded(monkeypatch, tmp_path, allowed, left):
    monkeypatch.setattr(devices, "CGROUP", tmp_path / "none")
    everything = devices.available_memory()
    (tmp_path / "memory.max").write_text(allowed)
    (tmp_path / "memory.current").write_text("3000")
    monkeypatch.setattr(devices, "CGROUP", tmp_path)
    found = devices.available_memory()
    assert found == left if left is not None else found > everything / 2


def old_processor(tmp_path, tensorflow):
    """The start, without AVX, of a TensorFlow with this content."""
    (tmp_path / "tensorflow.py").write_text(tensorflow)
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: old\nflags\t\t: fpu sse4_2 popcnt\n")
    code = f"""
import os, pathlib
os.environ["PYTHONPATH"] = {str(tmp_path)!r}
sys.path.insert(0, {str(tmp_path)!r})
from gpt2 import devices
from gpt2.errors import GPT2Error
devices.CPU_INFO = pathlib.Path({str(tmp_path / "cpuinfo")!r})
try:
    devices.start()
except GPT2Error as error:
    print(error)
"""
    return run(code)


def test_a_processor_that_is_too_old_for_tensorflow(tmp_path):
    """Its import ends the process, which is found out in another one."""
    result = old_processor(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGILL)")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("this processor has no AVX, without which this TensorFlow does not start: ")


def test_a_tensorflow_that_was_built_for_an_old_processor(tmp_path):
    reached = "import sys\nif 'gpt2' in sys.modules: raise ImportError('this one was reached')"
    assert "ImportError: this one was reached" in old_processor(tmp_path, reached).stderr


@pytest.mark.parametrize("threads", [0, -1, 1025, 1_000_000_000])
def test_a_number_of_threads_that_nobody_means(threads, tiny_dir):
    """Is refused wherever it can be given, before anything is done."""
    for given in (
        devices.start,
        partial(generate.load, str(tiny_dir)),
        lambda threads: load.load_backend(open_model_dir(tiny_dir), threads=threads),
        lambda threads: TrainingSettings("text.txt", threads=threads),
        lambda threads: next(diagnostics.examine(threads=threads)),
    ):
        with pytest.raises(UsageError, match=f"threads must be from 1 to 1024, not {threads}"):
            given(threads=threads)


def test_threads_that_are_allowed():
    for threads in (None, 1, devices.MAX_THREADS):
        devices.check_threads(threads)


def test_the_flags_of_the_processor(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "CPU_INFO", tmp_path / "cpuinfo")
    assert devices.cpu_flags() == set()
    (tmp_path / "cpuinfo").write_text("flags\t\t: avx avx2\nbugs\t\t: x\n\nflags\t\t: avx avx2\n")
    assert devices.cpu_flags() == {"avx", "avx2"}


def test_two_threads_of_one_core_are_one_core(tmp_path, monkeypatch):
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(devices, "SIBLINGS", str(tmp_path / "{core}"))
    assert devices.whole_cores() is None
    for core, together in enumerate(("0-1", "0-1", "2", "3")):
        (tmp_path / str(core)).write_text(together)
    assert devices.whole_cores() == 3


def test_a_processor_without_a_name_is_its_kind(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "CPU_INFO", tmp_path / "cpuinfo")
    assert devices.cpu_name() == devices.platform.machine()
    devices.CPU_INFO.write_text("processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: avx\n")
    assert devices.cpu_name() == "AMD EPYC"
