"""The team of threads, compiled alone and watched by ThreadSanitizer."""

import shutil
import subprocess
from pathlib import Path

import pytest

from gpt2.engine.native.build import COMPILERS

OPTIONS = ("-std=c++17", "-O1", "-g", "-fsanitize=thread", "-pthread")


def test_no_thread_reads_what_another_writes(tmp_path):
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    (tmp_path / "empty.cc").write_text("int main() {}")

    def ran(source):
        program = tmp_path / "program"
        compiled = subprocess.run([compiler, *OPTIONS, str(source), "-o", str(program)], capture_output=True)
        return compiled if compiled.returncode else subprocess.run([program], capture_output=True, timeout=100)

    if ran(tmp_path / "empty.cc").returncode:
        pytest.skip("ThreadSanitizer does not work here")
    result = ran(Path(__file__).with_name("team_stress.cc"))
    assert (result.returncode, result.stdout, result.stderr) == (0, b"60\n", b"")
