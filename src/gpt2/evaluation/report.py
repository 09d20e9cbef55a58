"""Results for people, and for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

from gpt2.evaluation import paper
from gpt2.evaluation.task import TaskResult


def as_table(result: TaskResult, size: str | None) -> Iterator[str]:
    """Lines: the numbers, beside them the paper's for a released size, and the protocol. size: see `paper.size_of`."""
    yield result.task
    for name, value, column in result.numbers:
        reported = paper.published_value(size, column)
        beside = "" if reported is None else f"    the paper, {column}: {reported:g}"
        yield f"  {name:<33}{value:>12.4f}{beside}"
    yield "  of " + ", ".join(f"{count:,} {name}" for name, count in result.counts.items())
    yield f"  protocol: {result.protocol}"


def as_json(result: TaskResult, model: str, size: str | None) -> str:
    """One object; a number that there is not is null."""
    reported = {name: paper.published_value(size, column) for name, _, column in result.numbers if column}
    numbers = {name: value if math.isfinite(value) else None for name, value, _ in result.numbers}
    found = {"task": result.task, "model": model, **{"numbers": numbers, "paper": reported, "counts": result.counts}}
    return json.dumps({**found, "protocol": result.protocol}, ensure_ascii=False)
