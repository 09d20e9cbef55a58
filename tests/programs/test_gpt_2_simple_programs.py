"""Programs written for gpt-2-simple, run unchanged, each in its own process."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
TEXT = "the cat sat on the mat and the dog sat on the log\n" * 40


@pytest.fixture
def workdir(tmp_path, tiny_dir):
    """A working directory with a text, the model 124M, and the runs run1 and authors/one."""
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    for folder in ("models/124M", "checkpoint/run1", "checkpoint/authors/one"):
        shutil.copytree(tiny_dir, tmp_path / folder)
    tiny.write_model(tmp_path / "models/wider", n_embd=64)
    return tmp_path


def run(program, workdir):
    """Run a program; return the JSON that it writes to the last line of stderr, and its stdout."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, str(HERE / program)],
        capture_output=True,
        cwd=workdir,
        timeout=300,
        env={**environ, "PYTHONPATH": str(CHECKOUT / "src")},
    )
    assert result.returncode == 0, result.stderr.decode()
    return json.loads(result.stderr.decode().splitlines()[-1]), result.stdout.decode()


def test_a_server_that_reloads_the_model_at_its_eighth_request(workdir):
    results, out = run("simple_server.py", workdir)
    assert len(set(results["answers"])) == 1 and results["answers"][0].startswith("the cat") and results["graph"]
    assert out.count("Loading checkpoint") == 2


def test_habits(workdir):
    results, out = run("simple_habits.py", workdir)
    assert results["same"] == [True] * 10 and results["mocked"] == ["mocked"]
    assert len(results["loop"]) > len("the cat") and out.count("=" * 20) == 5


def test_finetune(workdir):
    shutil.rmtree(workdir / "checkpoint")
    results, out = run("simple_finetune.py", workdir)
    first, second = results["texts"]
    assert all(results["files"]) and first != second and "Saving checkpoint/authors/one/model-4\n" in out
    assert "was started with model_name " in results["error"] and "leave model_name out to resume" in results["error"]


def test_workers(workdir):
    results, _ = run("simple_workers.py", workdir)
    cat, dog = results["main"]
    assert results["forked"] == [cat, dog] * 3 and results["workers"] == [cat] * 2
    assert results["threads"] == [cat, dog] * 4 and results["executors"] == [cat, dog] * 2


def test_names_of_the_star_import(workdir):
    results, _ = run("simple_star.py", workdir)
    assert len(set(results["texts"])) == 1


def test_import_after_uninstalling_the_old_package_deleted_files(tmp_path):
    shutil.copytree(CHECKOUT / "src/gpt_2_simple", tmp_path / "gpt_2_simple")
    shutil.copy(CHECKOUT / "src/gpt_2_simple.py", tmp_path)
    for name in ("__init__.py", "gpt_2.py"):
        (tmp_path / "gpt_2_simple" / name).unlink()
    command = [sys.executable, "-S", "-c", "import gpt_2_simple"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode and "ImportError: gpt_2_simple is incomplete" in result.stderr
