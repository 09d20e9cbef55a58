"""The team of threads, compiled separately and run under ThreadSanitizer."""

import shutil
import subprocess
from pathlib import Path

import pytest

from gpt2.engine.native.build import COMPILERS

OPTIONS = ("-std=c++17", "-O1", "-g", "-fsanitize=thread", "-pthread")


def test_threads_have_no_data_races(tmp_path):
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    (tmp_path / "empty.cc").write_text("int main() {}")

    def compile_and_run(source):
        program = tmp_path / "program"
        compiled = subprocess.run([compiler, *OPTIONS, str(source), "-o", str(program)], capture_output=True)
        return compiled if compiled.returncode else subprocess.run([program], capture_output=True, timeout=100)

    if compile_and_run(tmp_path / "empty.cc").returncode:
        pytest.skip("ThreadSanitizer does not work here")
    result = compile_and_run(Path(__file__).with_name("team_stress.cc"))
    assert (result.returncode, result.stdout, result.stderr) == (0, b"60\n", b"")
