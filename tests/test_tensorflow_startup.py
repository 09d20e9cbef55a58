"""What TensorFlow's start writes to stderr, tried in child processes; old processors and thread counts."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from gpt2 import generate, tensorflow_startup
from gpt2.cli import diagnostics
from gpt2.engine import load
from gpt2.errors import UsageError
from gpt2.formats.model_dir import open_model_dir
from gpt2.training.settings.settings import TrainingSettings

SRC = Path(__file__).resolve().parents[1] / "src"
IMPORTS = "import os; from gpt2 import tensorflow_startup\n"
HOLD_BACK = "with tensorflow_startup.hold_back_stderr(): "


def run(code: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(SRC)!r})\n" + code
    return subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, text=True)


def test_native_log_output_is_held_back():
    result = run(IMPORTS + HOLD_BACK + "os.write(2, b'chatter\\n')\nos.write(2, b'after\\n')")
    assert (result.returncode, result.stderr) == (0, "after\n")


def test_log_output_is_released_if_the_start_fails():
    result = run(IMPORTS + HOLD_BACK + "os.write(2, b'chatter\\n'); raise ImportError('no such library')")
    assert "chatter\nTraceback" in result.stderr


def test_a_closed_stderr_does_no_harm():
    result = run("import os; os.close(2)\n" + IMPORTS + HOLD_BACK + "print('done')")
    assert (result.returncode, result.stdout) == (0, "done\n")


def test_a_second_start_works_and_warns_about_a_late_thread_count():
    result = run(IMPORTS + "for threads in (1, 1, None, 2): tensorflow_startup.start_tensorflow(threads)")
    assert result.returncode == 0 and result.stderr.count("Warning") == 1
    assert "threads=2 is ignored, because TensorFlow has already started" in result.stderr


def start_without_avx(tmp_path: Path, tensorflow: str) -> subprocess.CompletedProcess[str]:
    """Start a TensorFlow with this source code on a processor without AVX."""
    (tmp_path / "tensorflow.py").write_text(tensorflow)
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: old\nflags\t\t: fpu sse4_2 popcnt\n")
    code = f"""
import os, pathlib
os.environ["PYTHONPATH"] = {str(tmp_path)!r}
sys.path.insert(0, {str(tmp_path)!r})
from gpt2 import devices, tensorflow_startup, tensorflow_startup
from gpt2.errors import GPT2Error
devices.CPU_INFO_FILE = pathlib.Path({str(tmp_path / "cpuinfo")!r})
try:
    tensorflow_startup.start_tensorflow()
except GPT2Error as error:
    print(error)
"""
    return run(code)


def test_a_processor_that_is_too_old_for_tensorflow(tmp_path):
    """TensorFlow's import kills the process, so it is tried in a child process first."""
    result = start_without_avx(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGILL)")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("this processor does not have AVX, which this build of TensorFlow needs: ")


def test_a_tensorflow_that_was_built_for_an_old_processor(tmp_path):
    reached = "import sys\nif 'gpt2' in sys.modules: raise ImportError('this one was reached')"
    assert "ImportError: this one was reached" in start_without_avx(tmp_path, reached).stderr


@pytest.mark.parametrize("threads", [0, -1, 1025, 1_000_000_000])
def test_an_absurd_thread_count_is_rejected_everywhere(threads, tiny_dir):
    """Every function that takes a thread count rejects it before it does any work."""
    for function in (
        tensorflow_startup.start_tensorflow,
        partial(generate.load, str(tiny_dir)),
        lambda threads: load.load_backend(open_model_dir(tiny_dir), threads=threads),
        lambda threads: TrainingSettings("text.txt", threads=threads),
        lambda threads: next(diagnostics.examine(threads=threads)),
    ):
        with pytest.raises(UsageError, match=f"threads must be from 1 to 1024, not {threads}"):
            function(threads=threads)
