"""Reports of task results, as a table or as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

from gpt2.evaluation import paper
from gpt2.evaluation.task import TaskResult


def as_table(result: TaskResult, size: str | None) -> Iterator[str]:
    """Yield the lines of a table with the metrics, the paper's values for a released size, and the protocol.

    Args:
        result: The result.
        size: A released size as from `paper.released_size`, or None.
    """
    yield result.task
    for name, value, column in result.metrics:
        published = paper.published_value(size, column)
        comparison = "" if published is None else f"    the paper, {column}: {published:g}"
        yield f"  {name:<33}{value:>12.4f}{comparison}"
    yield "  of " + ", ".join(f"{count:,} {name}" for name, count in result.counts.items())
    yield f"  protocol: {result.protocol}"


def as_json(result: TaskResult, model: str, size: str | None) -> str:
    """Return the result as a JSON object, with null instead of NaN and infinity.

    Args:
        result: The result.
        model: The path of the model.
        size: A released size as from `paper.released_size`, or None.
    """
    report = {
        "task": result.task,
        "model": model,
        "numbers": {name: value if math.isfinite(value) else None for name, value, _ in result.metrics},
        "paper": {name: paper.published_value(size, column) for name, _, column in result.metrics if column},
        "counts": result.counts,
        "protocol": result.protocol,
    }
    return json.dumps(report, ensure_ascii=False)
