"""Programs written for transformer-lm, run as they are: each in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]


def run(program, *arguments):
    """What the program writes for this test, the last line on stderr, and what it prints."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, str(HERE / program), *map(str, arguments)],
        capture_output=True,
        timeout=300,
        env={**kept, "PYTHONPATH": str(CHECKOUT / "src")},
    )
    assert result.returncode == 0, result.stderr.decode()
    return json.loads(result.stderr.decode().splitlines()[-1]), result.stdout.decode()


def check(found, out, prefix, stop, n_vocab):
    text = prefix.replace(" ", "")
    assert found["sentence"] and found["until"].startswith(prefix) and found["whole"].startswith(prefix)
    assert out.count("DEBUG:") and out.splitlines()[-1] == f"DEBUG: {found['until']}"
    assert found["until"].endswith(stop.replace("▁", ""))
    assert len(found["top"]) == 10 and 0 < sum(p for _, p in found["top"]) <= 1.0001
    assert "".join(piece for _, piece in found["occurred"]).replace("▁", "") == text
    assert found["shape"] == [len(found["occurred"]), n_vocab]


def test_the_tutorial(lm_dir):
    import lm.inference as lmi

    mw = lmi.ModelWrapper.load(lm_dir)
    prefix = "Das blaue Pferd"
    _, stop = next(pair for pair in mw.get_next_top_k(mw.tokenize(prefix), 8) if pair[1].isalpha())
    found, out = run("lm_tutorial.py", lm_dir, prefix, stop)
    check(found, out, prefix, stop, 120)


@pytest.mark.parametrize(
    "prefix", ["Das blaue Pferd", "Wenn der Regen niederbraust, wenn der Sturm das Feld durchsaust,"]
)
def test_the_tutorial_with_a_trained_model(german, prefix):
    found, out = run("lm_tutorial.py", german, prefix, ".")
    check(found, out, prefix, ".", 2000)
