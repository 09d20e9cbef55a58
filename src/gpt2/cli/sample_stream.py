"""A stream of samples under numbered banners, as the two classic commands print them.

stdout receives banners, samples and prompts, as it always did. Everything else goes to stderr.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import secrets
from collections.abc import Iterator

from gpt2.cli.command import print_error_line
from gpt2.cli.models import ModelChoice
from gpt2.interrupt import SignalFlag
from gpt2.request import Request


class SampleStream:
    """A model and its samples, whose random numbers continue from one prompt to the next."""

    def __init__(self, choice: ModelChoice, request: Request, seed: int | None, batch_size: int) -> None:
        """Find the model, but do not read its weights yet.

        Args:
            choice: The model.
            request: The parameters of every sample; its prompt, length, seed and number are set later.
            seed: The seed of the random numbers; None draws one.
            batch_size: Number of samples that are generated together; 1 streams their text.

        Raises:
            GPT2Error: The model is missing or damaged.
            UsageError: A value is not allowed.
        """
        self.choice = choice
        self.batch_size = batch_size
        self.seed = secrets.randbits(32) if seed is None else seed
        self.request = dataclasses.replace(request, seed=self.seed)
        self.directory, self.encoder = choice.find()
        self.n_ctx = self.directory.hparams.n_ctx
        self.sample_numbers = itertools.count()

    def load(self) -> None:
        """Read the weights, and print the device and the seed.

        Reading takes long, so the constructor has raised all errors that do not depend on the weights.

        Raises:
            GPT2Error: The model's files are damaged.
        """
        # NumPy's threads have no work and would spin while the engine's threads compute.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        from gpt2 import generate  # imports packages that --help does not need

        self.model = generate.load_weights(
            self.directory,
            self.encoder,
            self.choice.precision,
            print_error_line,
            self.choice.threads,
            self.choice.cache,
        )
        backend = self.model.backend
        device = f"{backend.device} ({self.choice.precision}, {backend.name})"
        print_error_line(f"{self.directory.path.name} on {device}, seed {self.seed}")

    def print_samples(self, prompt: str | None, length: int, count: int | None, interruptible: bool = False) -> None:
        """Print samples under numbered banners.

        Args:
            prompt: The text to continue; None generates text without a prompt.
            length: New tokens of each sample.
            count: Number of samples; None generates samples without end.
            interruptible: Whether Ctrl-C only ends the sample that is being generated, not the program.
        """
        request = dataclasses.replace(self.request, prompt=prompt, length=length)
        numbers = itertools.islice(self.sample_numbers, count)
        requests = (dataclasses.replace(request, sample=number) for number in numbers)
        if self.batch_size > 1:
            self._print_batches(requests, interruptible)
        else:
            self._print_streams(requests, interruptible)

    def _print_batches(self, requests: Iterator[Request], interruptible: bool) -> None:
        """Print each sample when it is complete, in order."""
        from gpt2 import generate

        with SignalFlag() as ctrl_c:
            chunks = generate.stream(self.model, requests, self.batch_size)
            until_ctrl_c = itertools.takewhile(lambda _: not ctrl_c.received, chunks)
            for number, completion in enumerate(generate.completions_in_order(until_ctrl_c), start=1):
                print(banner(number), completion.text, sep="\n", flush=True)
        if not interruptible:
            ctrl_c.raise_if_received()

    def _print_streams(self, requests: Iterator[Request], interruptible: bool) -> None:
        """Print the samples one by one, each while it is generated."""
        for number, request in enumerate(requests, start=1):
            with SignalFlag() as ctrl_c:
                print(banner(number), flush=True)
                self._print_text(request, ctrl_c)
            if not interruptible:
                ctrl_c.raise_if_received()

    def _print_text(self, request: Request, ctrl_c: SignalFlag) -> None:
        """Print the text of a sample while it is generated, until Ctrl-C."""
        from gpt2 import generate

        for chunk in generate.stream(self.model, [request]):
            if ctrl_c.received:
                break
            print(chunk.text, end="", flush=True)
        print(flush=True)


def banner(number: int) -> str:
    """Return the line above a sample; numbers start at 1."""
    return "=" * 40 + f" SAMPLE {number} " + "=" * 40
