"""The history of a run, step by step: `progress.jsonl`, and the loss curve drawn from it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt2.files import atomic_write, reporting_read_errors
from gpt2.training.checkpoints.run_folder import HISTORY_FILE
from gpt2.training.logs.appended_file import AppendedFile
from gpt2.training.logs.loss_curve import LossCurve

CURVE_FILE = "loss.png"
MAX_LINE_BYTES = 1 << 20  # more than a record has
# Keys of a record.
STEP_KEY = "step"
LOSS_KEY = "loss"
SMOOTHED_LOSS_KEY = "smoothed_loss"
VALIDATION_LOSS_KEY = "validation_loss"
TOKENS_KEY = "tokens"  # tokens that the update trained on


class History:
    """A run's records, one JSON object a line. They are in the file only, because a run may have millions of them."""

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
        self.curve = LossCurve()
        self.validated_step: int | None = None  # the latest one
        self.file = AppendedFile(self.path, self._retained_lines(step))

    def _retained_lines(self, step: int) -> Iterator[bytes]:
        for line, record in _read_records(self.path) if step >= 0 else ():
            if record[STEP_KEY] <= step:
                self._count(record)
                yield line

    def _count(self, record: dict[str, Any]) -> None:
        step = record[STEP_KEY]
        self.curve.losses.add(step, record.get(LOSS_KEY))
        self.curve.validation_losses.add(step, record.get(VALIDATION_LOSS_KEY))
        if VALIDATION_LOSS_KEY in record:
            self.validated_step = max(step, self.validated_step or 0)

    def restore(self) -> None:
        """Write all records again if the file was removed.

        Raises:
            GPT2Error: The file cannot be written.
        """
        self.file.restore()

    def add(self, **record: Any) -> None:
        """Append a record.

        Raises:
            GPT2Error: The record cannot be written now; it is written together with a later one.
        """
        self._count(record)
        self.file.add(_encode_line(record))

    def is_validated(self, step: int) -> bool:
        """Return whether the validation loss after update `step`, the latest one, is recorded."""
        return self.validated_step == step

    def draw_curve(self) -> None:
        """Write the curve of the losses over the steps as a PNG file.

        Raises:
            GPT2Error: The file cannot be written.
        """
        with atomic_write(self.curve_path) as file:
            self.curve.draw(file, self.curve_path.parent.name)


def count_seen_tokens(folder: Path, step: int) -> int:
    """Return the number of tokens that a run trained on in its first `step` updates.

    Updates without a record of their tokens, as older versions wrote them, count as 0.

    Raises:
        UnreadableFileError: The history cannot be read.
    """
    return sum(
        record[TOKENS_KEY]
        for _, record in _read_records(folder / HISTORY_FILE)
        if record[STEP_KEY] <= step and isinstance(record.get(TOKENS_KEY), int)
    )


def _encode_line(record: dict[str, Any]) -> bytes:
    return f"{json.dumps(record)}\n".encode()


def _read_records(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield the valid records, each with its line.

    Invalid lines are skipped, because a killed process can leave the last line incomplete.

    Raises:
        UnreadableFileError: The file exists and cannot be read.
    """
    if not path.is_file():
        return
    with reporting_read_errors(path), path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES):
            with contextlib.suppress(ValueError, RecursionError):
                record = json.loads(line)
                if isinstance(record, dict) and isinstance(record.get(STEP_KEY), int):
                    yield line.strip() + b"\n", record
