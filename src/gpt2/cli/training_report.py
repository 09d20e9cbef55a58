"""The progress of a training run: a progress bar in a terminal, lines in a log."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Iterator

from tqdm import tqdm

from gpt2.cli.command import discard_output, print_error_line
from gpt2.cli.command_lines import generate_command, train_command
from gpt2.training.logs.report import LOSS_LINE, RunResult, TrainingReport, UpdateStats

READER_IS_GONE = (errno.EIO, errno.EPIPE)  # a closed terminal, a closed pipe


class TerminalReport(TrainingReport):
    """A progress bar in a terminal; elsewhere, a line for every `print_every` updates.

    A run must not end because a line cannot be written: if the reader is gone, the rest of the output is dropped.
    """

    def __init__(self, print_every: int, is_train_command: bool = False) -> None:
        """Create a report that prints nothing yet.

        Args:
            print_every: Number of updates between two lines of a log.
            is_train_command: Whether the command train.py can continue the run.
        """
        self.print_every = print_every
        self.is_train_command = is_train_command
        self.bar: tqdm | None = None

    def write_line(self, line: str) -> None:
        """Print a line on stdout, above the progress bar."""
        with self._tolerate_missing_reader():
            tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()

    def notify(self, line: str) -> None:
        """Print a line on stderr, above the progress bar."""
        with self._tolerate_missing_reader(), tqdm.external_write_mode(file=sys.stderr):
            print_error_line(line)

    def start(self, step: int, last_step: int | None) -> None:
        """Show the progress bar in a terminal.

        Args:
            step: Number of updates made so far.
            last_step: Number of the last update; None if the run has no end.
        """
        if sys.stdout.isatty():
            self.bar = tqdm(total=last_step, initial=step, unit="step", dynamic_ncols=True)

    def update(self, update: UpdateStats) -> None:
        """Show the loss and the speed of an update."""
        if self.bar is not None:
            text = f"loss {update.loss:.3f}, avg {update.smoothed_loss:.3f}, {update.tokens_per_second:.0f} tokens/s"
            with self._tolerate_missing_reader():
                self.bar.set_postfix_str(text, refresh=False)
                self.bar.update()
        elif update.step % self.print_every == 0:
            self.write_line(LOSS_LINE.format(**update._asdict()))

    def finish(self) -> None:
        """Close the progress bar."""
        if self.bar is not None:
            with self._tolerate_missing_reader():
                self.bar.close()

    def show_result(self, result: RunResult) -> None:
        """Print where the models are, and the command lines that generate text with them and train them further."""
        more = train_command(result.continuing_settings) if self.is_train_command else ""
        if not result.has_trained:
            advice = f"to make more, type: {more}" if more else "give steps to make more"
            self.notify(f"{result.folder} has made {result.step} updates already; {advice}")
            return
        curve = f", and its losses in {result.loss_curve}" if result.loss_curve else ""
        self.notify(f"the model after {result.step} updates is in {result.folder}{curve}")
        self.notify(f"to generate text with it, type: {generate_command(result.folder)}")
        if best := result.best:
            line = generate_command(best.folder)
            self.notify(f"with the best model (validation loss {best.loss:.3f} after {best.step} updates): {line}")
        if more:
            self.notify(f"to train it further, type: {more}")

    @contextlib.contextmanager
    def _tolerate_missing_reader(self) -> Iterator[None]:
        """Drop all further output on stdout if it has no reader any more; set `closed` for a closed pipe."""
        try:
            yield
        except OSError as error:
            self.closed = self.closed or error.errno == errno.EPIPE
            if error.errno in READER_IS_GONE:
                discard_output(sys.stdout)
