"""What became of a run, step by step: `progress.jsonl`, and the loss curve drawn from it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from gpt2.files import atomic_write, reporting_read_errors
from gpt2.training.logs.appended_file import AppendedFile

HISTORY_FILE, CURVE_FILE = "progress.jsonl", "loss.png"
STEP_KEY, LOSS_KEY, SMOOTHED_LOSS_KEY, VALIDATION_LOSS_KEY = "step", "loss", "smoothed_loss", "validation_loss"
TOKENS_KEY = "tokens"  # that an update saw


class History:
    """A run's records, one JSON object a line. Those after `step`, of updates that were lost, are dropped."""

    def __init__(self, folder: Path, step: int) -> None:
        self.path, self.curve = folder / HISTORY_FILE, folder / CURVE_FILE
        self.records = [record for record in _read(self.path) if record[STEP_KEY] <= step]
        self.file = self._begun()

    def _begun(self) -> AppendedFile:
        return AppendedFile(self.path, b"".join(map(_line, self.records)))

    def restore(self) -> None:
        """Writes all again if the file was removed. Raises GPT2Error."""
        if not self.path.is_file():
            self.file = self._begun()

    def add(self, **record: Any) -> None:
        """Raises GPT2Error if it cannot be written now; it is then written with a later one."""
        self.records.append(record)
        self.file.add(_line(record))

    def is_validated(self, step: int) -> bool:
        return any(record[STEP_KEY] == step and VALIDATION_LOSS_KEY in record for record in reversed(self.records))

    def draw(self) -> None:
        """Writes the curve of the losses over the steps as a PNG."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for name, style in (
            (LOSS_KEY, {"alpha": 0.3}),
            (SMOOTHED_LOSS_KEY, {}),
            (VALIDATION_LOSS_KEY, {"marker": "o"}),
        ):
            points = [(record[STEP_KEY], record[name]) for record in self.records if name in record]
            if points:
                axes.plot(*zip(*points), label=name.replace("_", " "), **style)
        axes.set(xlabel="updates", ylabel="nats per token", title=self.curve.parent.name)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
        with atomic_write(self.curve) as file:
            figure.savefig(file, format="png", dpi=100)


def count_seen_tokens(folder: Path, step: int) -> int:
    """How many tokens a run saw in its first `step` updates, as far as that was recorded. Raises Unreadable."""
    records = _read(folder / HISTORY_FILE)
    return sum(
        record[TOKENS_KEY] for record in records if record[STEP_KEY] <= step and isinstance(record.get(TOKENS_KEY), int)
    )


def _line(record: dict[str, Any]) -> bytes:
    return f"{json.dumps(record)}\n".encode()


def _read(path: Path) -> list[dict[str, Any]]:
    """The records that are whole: a killed process may have left the last one incomplete. Raises Unreadable."""
    if not path.is_file():
        return []
    records = []
    with reporting_read_errors(path):
        lines = path.read_bytes().splitlines()
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get(STEP_KEY), int):
                records.append(record)
    return records
