"""The history of a run, step by step: `progress.jsonl`, and the loss curve drawn from it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from gpt2.files import atomic_write, reporting_read_errors
from gpt2.training.checkpoints.run_folder import HISTORY_FILE
from gpt2.training.logs.appended_file import AppendedFile

CURVE_FILE = "loss.png"
# Keys of a record.
STEP_KEY = "step"
LOSS_KEY = "loss"
SMOOTHED_LOSS_KEY = "smoothed_loss"
VALIDATION_LOSS_KEY = "validation_loss"
TOKENS_KEY = "tokens"  # tokens that the update trained on
CURVE_STYLES: dict[str, dict[str, Any]] = {
    LOSS_KEY: {"alpha": 0.3},
    SMOOTHED_LOSS_KEY: {},
    VALIDATION_LOSS_KEY: {"marker": "o"},
}


class History:
    """A run's records, one JSON object a line."""

    def __init__(self, folder: Path, step: int) -> None:
        """Read the history in a run's folder and drop the records of lost updates.

        Args:
            folder: The run's folder.
            step: The update that the run resumes from; later records are dropped. -1 drops all.

        Raises:
            GPT2Error: The file cannot be read or written.
        """
        self.path = folder / HISTORY_FILE
        self.curve_path = folder / CURVE_FILE
        self.records = [record for record in _read_records(self.path) if record[STEP_KEY] <= step]
        self.file = self._create_file()

    def _create_file(self) -> AppendedFile:
        return AppendedFile(self.path, b"".join(map(_encode_line, self.records)))

    def restore(self) -> None:
        """Write all records again if the file was removed.

        Raises:
            GPT2Error: The file cannot be written.
        """
        if not self.path.is_file():
            self.file = self._create_file()

    def add(self, **record: Any) -> None:
        """Append a record.

        Raises:
            GPT2Error: The record cannot be written now; it is written together with a later one.
        """
        self.records.append(record)
        self.file.add(_encode_line(record))

    def is_validated(self, step: int) -> bool:
        """Return whether the validation loss after update `step` is recorded."""
        return any(record[STEP_KEY] == step and VALIDATION_LOSS_KEY in record for record in reversed(self.records))

    def draw_curve(self) -> None:
        """Write the curve of the losses over the steps as a PNG file."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for key, style in CURVE_STYLES.items():
            points = [(record[STEP_KEY], record[key]) for record in self.records if key in record]
            if points:
                axes.plot(*zip(*points), label=key.replace("_", " "), **style)
        axes.set(xlabel="updates", ylabel="nats per token", title=self.curve_path.parent.name)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
        with atomic_write(self.curve_path) as file:
            figure.savefig(file, format="png", dpi=100)


def count_seen_tokens(folder: Path, step: int) -> int:
    """Return the number of tokens that a run trained on in its first `step` updates.

    Updates without a record of their tokens, as older versions wrote them, count as 0.

    Raises:
        UnreadableFileError: The history cannot be read.
    """
    return sum(
        record[TOKENS_KEY]
        for record in _read_records(folder / HISTORY_FILE)
        if record[STEP_KEY] <= step and isinstance(record.get(TOKENS_KEY), int)
    )


def _encode_line(record: dict[str, Any]) -> bytes:
    return f"{json.dumps(record)}\n".encode()


def _read_records(path: Path) -> list[dict[str, Any]]:
    """Return the valid records.

    Invalid lines are skipped, because a killed process can leave the last line incomplete.

    Raises:
        UnreadableFileError: The file exists and cannot be read.
    """
    if not path.is_file():
        return []
    with reporting_read_errors(path):
        lines = path.read_bytes().splitlines()
    records = []
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get(STEP_KEY), int):
                records.append(record)
    return records
