"""What a person sees of a training run: a line that moves in a terminal, or lines in a log."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Iterator

from tqdm import tqdm

from gpt2.cli.command import drop, print_error_line
from gpt2.training.logs.report import LOSS_LINE, TrainingReport, UpdateStats

GONE = (errno.EIO, errno.EPIPE)  # the terminal, the reader of a pipe


class TerminalReport(TrainingReport):
    """In a terminal, one line that moves; elsewhere, a line for every `print_every` updates.

    A run must not end because a line cannot be written: where nobody reads any more, nothing more is written.
    """

    def __init__(self, print_every: int) -> None:
        self.print_every = print_every
        self.bar: tqdm | None = None

    def write_line(self, line: str) -> None:
        with self._writing():
            tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()

    def notify(self, line: str) -> None:
        with self._writing(), tqdm.external_write_mode(file=sys.stderr):
            print_error_line(line)

    def start(self, step: int, last: int | None) -> None:
        if sys.stdout.isatty():
            self.bar = tqdm(total=last, initial=step, unit="step", dynamic_ncols=True)

    def update(self, update: UpdateStats) -> None:
        if self.bar is not None:
            text = f"loss {update.loss:.3f}, avg {update.smoothed:.3f}, {update.tokens_per_second:.0f} tokens/s"
            with self._writing():
                self.bar.set_postfix_str(text, refresh=False)
                self.bar.update()
        elif update.step % self.print_every == 0:
            self.write_line(LOSS_LINE.format(**update._asdict()))

    def finish(self) -> None:
        if self.bar is not None:
            with self._writing():
                self.bar.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.closed = self.closed or error.errno == errno.EPIPE
            if error.errno in GONE:
                drop(sys.stdout)
