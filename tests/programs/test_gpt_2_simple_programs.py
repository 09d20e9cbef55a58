"""Programs written on gpt-2-simple, run as they are: each in a process of its own."""

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
def place(tmp_path, tiny_dir):
    """A working directory with a text, the model 124M, and the runs run1 and authors/one."""
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    for folder in ("models/124M", "checkpoint/run1", "checkpoint/authors/one"):
        shutil.copytree(tiny_dir, tmp_path / folder)
    tiny.write_model(tmp_path / "models/wider", n_embd=64)
    return tmp_path


def run(program, place):
    """What the program writes for this test, the last line on stderr, and what it prints."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, str(HERE / program)],
        capture_output=True,
        cwd=place,
        timeout=300,
        env={**kept, "PYTHONPATH": str(CHECKOUT / "src")},
    )
    assert result.returncode == 0, result.stderr.decode()
    return json.loads(result.stderr.decode().splitlines()[-1]), result.stdout.decode()


def test_a_server_that_begins_anew_at_its_eighth_request(place):
    found, out = run("simple_server.py", place)
    assert len(set(found["answers"])) == 1 and found["answers"][0].startswith("the cat") and found["graph"]
    assert out.count("Loading checkpoint") == 2


def test_habits(place):
    found, out = run("simple_habits.py", place)
    assert found["same"] == [True] * 10 and found["mocked"] == ["mocked"]
    assert len(found["loop"]) > len("the cat") and out.count("=" * 20) == 5


def test_finetune(place):
    shutil.rmtree(place / "checkpoint")
    found, out = run("simple_finetune.py", place)
    first, second = found["texts"]
    assert all(found["files"]) and first != second and "Saving checkpoint/authors/one/model-4\n" in out
    assert "was begun with model_name " in found["refused"] and "leave model_name out to go on" in found["refused"]


def test_workers(place):
    found, _ = run("simple_workers.py", place)
    cat, dog = found["main"]
    assert found["forked"] == [cat, dog] * 3 and found["workers"] == [cat] * 2
    assert found["threads"] == [cat, dog] * 4 and found["executors"] == [cat, dog] * 2


def test_what_lies_behind_the_functions(place):
    found, _ = run("simple_star.py", place)
    assert len(set(found["texts"])) == 1


def test_the_old_package_s_uninstallation_took_files_along(tmp_path):
    shutil.copytree(CHECKOUT / "src/gpt_2_simple", tmp_path / "gpt_2_simple")
    shutil.copy(CHECKOUT / "src/gpt_2_simple.py", tmp_path)
    for name in ("__init__.py", "gpt_2.py"):
        (tmp_path / "gpt_2_simple" / name).unlink()
    command = [sys.executable, "-S", "-c", "import gpt_2_simple"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode and "ImportError: gpt_2_simple is incomplete" in result.stderr
