"""The first machine's tasks in addition to the updates: validation, samples, checkpoints and the log."""

from __future__ import annotations

from collections.abc import Callable

from gpt2.training.prepared_run import PreparedRun
from gpt2.training.run_writer import RunWriter
from gpt2.training.samples import SampleGenerator
from gpt2.training.validation import Validator


class ChiefTasks:
    """The tasks of the machine that writes the run's folder."""

    def __init__(self, run: PreparedRun, writer: RunWriter, is_stop_requested: Callable[[], bool]) -> None:
        """Set the run, the writer of its folder, and the function that says whether the run should end soon."""
        self.run = run
        self.writer = writer
        self.validator = Validator(run, writer, is_stop_requested)
        self.sample_generator = SampleGenerator(run, writer, is_stop_requested)

    def start(self) -> bool:
        """Validate the model before the first update if that is due. Return whether training should stop early."""
        self.run.report.write_line("Training...")
        return self.validator.validate_if_missing()

    def record_update(self, loss: float, learning_rate: float, seconds: float) -> None:
        """Log and report the latest update, which took `seconds`; a failed write is only a warning."""
        stats = self.writer.log.update_stats(loss, seconds)
        with self.writer.tolerate_failure():
            self.writer.log.record_update(stats, learning_rate)
        self.run.report.update(stats)

    def run_due(self) -> bool:
        """Validate, generate samples and save if they are due, and return whether training should stop early."""
        stops_early = self.validator.validate_if_due()
        self.sample_generator.write_if_due()
        self.writer.save_if_due()
        return stops_early

    def finish(self, interrupted: bool) -> None:
        """Save the latest updates.

        Raises:
            GPT2Error: The checkpoint cannot be written, or a weight is not finite.
        """
        if interrupted:
            self.run.report.write_line("interrupted")
        self.writer.save_unsaved()

    def flush_log(self) -> None:
        """Write the records that did not fit on the disk before; a failed write is only a warning."""
        with self.writer.tolerate_failure():
            self.writer.log.flush()
