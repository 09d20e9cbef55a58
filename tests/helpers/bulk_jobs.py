"""Helpers that run jobs with the tiny model and read their output."""

from __future__ import annotations

import csv
import importlib.util
import json
import random
import sys
from pathlib import Path
from typing import Any

from gpt2.cli import command

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "generate.py"
spec = importlib.util.spec_from_file_location("generate_command", SCRIPT)
assert spec and spec.loader
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
WORDS = ["the", "cat", "sat", "on", "mat", "and", "dog", "log"]
PART_ROWS = 16
FIXED = ["--seed=1", "--length=6", "--top_k=40"]


def run(prompts: Any, out: Any, *flags: str) -> int:
    """Run the command and return its exit status."""
    return command.main(module.generate, [str(prompts), str(out), *flags])


def command_line(*arguments: Any) -> list[str]:
    """Return the command line of a separate process that writes Parquet files of PART_ROWS rows."""
    code = f"""
import runpy, sys
sys.path.insert(0, {str(SCRIPT.parents[1] / "src")!r})
from gpt2.bulk import output
output.PART_ROWS = {PART_ROWS}
runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
"""
    return [sys.executable, "-c", code, *map(str, arguments)]


def ragged(count: int, seed: int = 1, own_seeds: bool = False) -> list[dict[str, Any]]:
    """Return rows of various lengths and settings: greedy and sampled, with stop strings, with several texts."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        row: dict[str, Any] = {"id": f"row {number}", "prompt": " ".join(rng.choices(WORDS, k=rng.randint(1, 12)))}
        row["length"] = rng.choice([1, 2, 3, 5, 9, 40])
        row |= rng.choice([{"temperature": 0}, {"top_k": 40}, {"top_p": 0.9, "temperature": 0.8}, {}])
        row |= rng.choice([{}, {}, {"stop": ["a", "\n"]}, {"n": 2}, {"repetition_penalty": 1.3}, {"ignore_eos": True}])
        if own_seeds or rng.random() < 0.3:
            row["seed"] = rng.randrange(1000)
        rows.append(row)
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def cells(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def content(out: Path) -> Any:
    """Return the content of an output of any format; JSON lines are sorted."""
    if out.is_dir():
        from pyarrow import parquet

        return [row for part in sorted(out.glob("*.parquet")) for row in parquet.read_table(part).to_pylist()]
    text = out.read_text(encoding="utf-8")
    return sorted(text.splitlines()) if out.suffix == ".jsonl" else text
