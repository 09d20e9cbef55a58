#!/usr/bin/env python3
"""Command: the modules that `import gpt2` and the start of each command import, compared with another commit.

    python benchmarks/imports.py --before CHECKOUT_OF_AN_EARLIER_COMMIT

Each of CASES runs with `-X importtime` in both checkouts. A module of another package that only this checkout imports
is listed as new; the product's own modules are only counted, because a move renames them. Milliseconds are those of
one run and vary; the lists do not. The exit status is 1 if there is a new module.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

from peers.turns import NO_BYTECODE

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ["--model_name", "shakespeare", "--length", "5", "--seed", "1"]
CASES = [
    ["-c", "import gpt2"],
    ["-c", "import gpt2.generate"],
    ["-c", "import gpt_2_simple"],
    ["-c", "import lm.inference"],
    *([script, "--help"] for script in ("download_model.py", "encode.py", "train.py")),
    ["src/generate_unconditional_samples.py", "--help"],
    ["src/interactive_conditional_samples.py", "--help"],
    *([f"scripts/{path.name}", "--help"] for path in sorted(ROOT.glob("scripts/*.py"))),
    *(["-c", f"from lm.command import {name}; {name}()", "--help"] for name in ("gpt_2", "gpt_2_gen", "sp_train")),
    ["-c", "from gpt_2_simple.gpt_2 import cmd; cmd()", "--help"],
    ["src/generate_unconditional_samples.py", *SAMPLES, "--nsamples", "1"],
    ["src/interactive_conditional_samples.py", *SAMPLES, "--prompt", "ROMEO:"],
    ["scripts/score.py", "--model_name", "shakespeare", "README.md"],
]
LINE = re.compile(r"import time: +(\d+) \| +(\d+) \|( +)(\S+)")
OWN = ("gpt2", "gpt_2_simple", "lm")


def imported(checkout, words):
    """Return the imported modules of a case, each with its own microseconds."""
    environment = {name: value for name, value in os.environ.items() if name != NO_BYTECODE}
    environment["PYTHONPATH"] = str(checkout / "src")
    command = [sys.executable, "-X", "importtime", *words]
    run = subprocess.run(command, cwd=checkout, env=environment, input="", capture_output=True, text=True)
    modules = {match[4]: int(match[1]) for match in map(LINE.match, run.stderr.splitlines()) if match}
    if run.returncode or not modules:
        sys.exit(f"error: {' '.join(words)} in {checkout} ended with status {run.returncode}: {run.stderr[-500:]}")
    return modules


def is_own(module):
    return module.partition(".")[0] in OWN


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="a checkout of this project at another commit")
    checkouts = [parser.parse_args().before.resolve(), ROOT]
    any_new = False
    for words in CASES:
        for checkout in checkouts:  # compiles the modules
            imported(checkout, words)
        before, after = (imported(checkout, words) for checkout in checkouts)
        new = sorted(name for name in after.keys() - before.keys() if not is_own(name))
        any_new = any_new or bool(new)
        for modules in before, after:
            own = sum(map(is_own, modules))
            print(f"{len(modules) - own:5} + {own:3} own {sum(modules.values()) / 1000:7.0f} ms", end=" | ")
        print(" ".join(words), "| new:" if new else "| nothing new", *new, flush=True)
    sys.exit(any_new)


if __name__ == "__main__":
    main()
