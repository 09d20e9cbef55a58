"""What a person sees of a run while it goes on: a line in the terminal, or lines in a log, and files in its folder.

Where the old tools had a line for it, it is theirs.
"""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from gpt2.errors import GPT2Error
from gpt2.training.events import EventWriter
from gpt2.training.history import LOSS, SMOOTHED, STEP, VALIDATION, History
from gpt2.training.run_folder import Progress
from gpt2.training.settings import Settings

BEGINNING = "[{step} | {seconds:2.2f}]"
LOSS_LINE = BEGINNING + " loss={loss:2.2f} avg={smoothed:2.2f}"
VALIDATION_LINE = BEGINNING + " validation loss = {loss:2.2f}"
SAMPLE = "======== SAMPLE {} ========\n{}\n"


class Report:
    """In a terminal, one line that moves; elsewhere, a line for each update."""

    def __init__(self, settings: Settings, progress: Progress, last: int | None, tokens_per_step: int) -> None:
        self.settings, self.progress, self.tokens_per_step = settings, progress, tokens_per_step
        self.started = time.monotonic() - progress.seconds
        self.history = History(settings.run_folder, progress.step)
        self.events = EventWriter(settings.run_folder)
        self.bar = tqdm(
            total=last,
            initial=progress.step,
            unit="step",
            dynamic_ncols=True,
            disable=not sys.stdout.isatty(),
        )

    @property
    def seconds(self) -> float:
        """How long the run has gone on, without what was lost."""
        return time.monotonic() - self.started

    def say(self, line: str) -> None:
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()

    def update(self, loss: float, rate: float, seconds: float) -> None:
        """One update was made, in so many seconds."""
        progress = self.progress
        speed = self.tokens_per_step / seconds
        self.events.scalars(progress.step, loss=loss, learning_rate=rate)
        record = {STEP: progress.step, LOSS: loss, SMOOTHED: progress.smoothed, "learning_rate": rate}
        self.history.add(**record, seconds=round(self.seconds, 2), tokens_per_second=round(speed, 1))
        if self.bar.disable and progress.step % self.settings.print_every == 0:
            line = LOSS_LINE.format(step=progress.step, seconds=self.seconds, loss=loss, smoothed=progress.smoothed)
            self.say(line)
        elif not self.bar.disable:
            self.bar.set_postfix_str(
                f"loss {loss:.3f}, avg {progress.smoothed:.3f}, {speed:.0f} tokens/s", refresh=False
            )
            self.bar.update()

    def validation(self, loss: float, bits_per_byte: float) -> None:
        step = self.progress.step
        line = VALIDATION_LINE.format(step=step, seconds=self.seconds, loss=loss)
        self.say(f"{line} ({bits_per_byte:.3f} bits per byte)")
        self.events.scalars(step, val_loss=loss, val_bits_per_byte=bits_per_byte)
        self.history.add(**{STEP: step, VALIDATION: loss, "validation_bits_per_byte": bits_per_byte})

    def samples(self, texts: list[str]) -> None:
        """Writes the samples' file, as the old tools did, and shows the last one."""
        shown = [SAMPLE.format(number, text) for number, text in enumerate(texts, start=1)]
        path = self.settings.sample_folder / f"samples-{self.progress.step}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(shown), encoding="utf-8", errors="replace")
        except OSError as error:
            raise GPT2Error(f"the samples cannot be written to {path}: {error.strerror}") from error
        self.events.text(self.progress.step, "sample", texts[-1])
        self.say(shown[-1])

    def saved(self) -> None:
        self.history.draw()

    def close(self) -> None:
        self.bar.close()
        self.events.close()
