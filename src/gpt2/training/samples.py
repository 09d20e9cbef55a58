"""Samples generated during training."""

from __future__ import annotations

from collections.abc import Callable

from gpt2.data import windows
from gpt2.engine.batch import Batch
from gpt2.engine.tensorflow import TensorFlowBackend
from gpt2.engine.token_sequence import TokenSequence
from gpt2.request import Sampling
from gpt2.training.prepared_run import PreparedRun
from gpt2.training.run_writer import RunWriter

MAX_SAMPLE_TOKENS = 1023  # as in the old tools; less if the model's window is smaller


class SampleGenerator:
    """A generator of a run's samples, on the machine that writes its folder."""

    def __init__(self, run: PreparedRun, writer: RunWriter, is_stop_requested: Callable[[], bool]) -> None:
        """Set the run.

        Args:
            run: The run.
            writer: The writer of its folder.
            is_stop_requested: Returns True once the run should end soon; the samples are then dropped.
        """
        self.run = run
        self.writer = writer
        self.is_stop_requested = is_stop_requested
        self._backend: TensorFlowBackend | None = None

    def write_if_due(self) -> None:
        """Generate and write samples if they are due by `sample_every`; a failure is only a warning."""
        every = self.run.settings.sample_every
        if every > 0 and self.run.progress.step % every == 0:
            with self.writer.tolerate_failure():
                self._write_samples()

    def _write_samples(self) -> None:
        report = self.run.report
        report.write_line("Generating samples...")
        samples = self._generate()
        if not self.is_stop_requested():
            texts = [self.run.start.encoder.decode(ids) for ids in samples]
            report.write_line(self.writer.log.write_samples(texts))

    def _generate(self) -> list[list[int]]:
        """Return the ids of the samples.

        As in the old tools, each sample starts with a random token of the training text, and includes this token.
        """
        run = self.run
        settings = run.settings
        if self._backend is None:
            self._backend = TensorFlowBackend(run.trainer.weights, run.start.hparams)
        length = settings.sample_length
        if length is None:
            length = min(MAX_SAMPLE_TOKENS, run.start.hparams.n_ctx - 1)
        seed = run.progress.seed
        random = windows.random_generator(seed, run.progress.step, windows.SAMPLE_NUMBERS)
        positions = random.integers(len(run.split.train), size=settings.sample_num)
        samples = [[int(run.split.train[position])] for position in positions]
        sampling = Sampling(top_k=0 if settings.top_p else settings.top_k, top_p=settings.top_p)
        with Batch(self._backend) as batch:
            if length:
                for number, ids in enumerate(samples):
                    batch.add(TokenSequence(list(ids), sampling, seed, number, length))
            while batch and not self.is_stop_requested():
                for choice in batch.step():
                    samples[choice.sequence].append(choice.id)
                    if len(samples[choice.sequence]) > length:
                        batch.remove(choice.sequence)
        return samples
