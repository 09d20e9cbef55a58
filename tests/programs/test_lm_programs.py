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
    """Run a program; return the JSON that it writes to the last line of stderr, and its stdout."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, str(HERE / program), *map(str, arguments)],
        capture_output=True,
        timeout=300,
        env={**environ, "PYTHONPATH": str(CHECKOUT / "src")},
    )
    assert result.returncode == 0, result.stderr.decode()
    return json.loads(result.stderr.decode().splitlines()[-1]), result.stdout.decode()


def check(results, out, prefix, stop, n_vocab):
    text = prefix.replace(" ", "")
    assert results["sentence"] and results["until"].startswith(prefix) and results["with_prefix"].startswith(prefix)
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
    results, out = run("lm_tutorial.py", lm_dir, prefix, stop)
    check(results, out, prefix, stop, 120)


@pytest.mark.parametrize(
    "prefix", ["Das blaue Pferd", "Wenn der Regen niederbraust, wenn der Sturm das Feld durchsaust,"]
)
def test_the_tutorial_with_a_trained_model(german, prefix):
    results, out = run("lm_tutorial.py", german, prefix, ".")
    check(results, out, prefix, ".", 2000)
