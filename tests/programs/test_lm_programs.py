"""Programs written for transformer-lm, run unchanged, each in its own process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]


def run(program, *arguments):
    """Run a program; return the JSON in the last line of its stderr, its stdout, and the other lines of its stderr."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, str(HERE / program), *map(str, arguments)],
        capture_output=True,
        timeout=300,
        env={**environ, "PYTHONPATH": str(CHECKOUT / "src")},
    )
    assert result.returncode == 0, result.stderr.decode()
    *notices, results = result.stderr.decode().splitlines()
    return json.loads(results), result.stdout.decode(), notices


def check(results, out, notices, prefix, stop, n_vocab):
    text = prefix.replace(" ", "")
    assert results["sentence"].startswith(prefix) and results["until"].startswith(prefix)
    assert results["inserted"] and prefix + results["inserted"] == results["whole"]
    assert len([line for line in notices if "prefix_too = False" in line]) == 1
    assert out.count("DEBUG:") and out.splitlines()[-1] == f"DEBUG: {results['until']}"
    assert results["until"].endswith(stop.replace("▁", ""))
    assert len(results["top"]) == 10 and 0 < sum(p for _, p in results["top"]) <= 1.0001
    assert "".join(piece for _, piece in results["occurred"]).replace("▁", "") == text
    assert results["shape"] == [len(results["occurred"]), n_vocab]


def test_the_tutorial(lm_dir):
    import lm.inference as lmi

    mw = lmi.ModelWrapper.load(lm_dir)
    prefix = "Das blaue Pferd"
    _, stop = next(pair for pair in mw.get_next_top_k(mw.tokenize(prefix), 8) if pair[1].isalpha())
    check(*run("lm_tutorial.py", lm_dir, prefix, stop), prefix, stop, 120)


@pytest.mark.parametrize(
    "prefix", ["Das blaue Pferd", "Wenn der Regen niederbraust, wenn der Sturm das Feld durchsaust,"]
)
def test_the_tutorial_with_a_trained_model(german, prefix):
    check(*run("lm_tutorial.py", german, prefix, "."), prefix, ".", 2000)
