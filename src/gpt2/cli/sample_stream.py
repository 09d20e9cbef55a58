"""What the two classic commands do: find the model, load it, write samples under their banners.

stdout gets what it always got: banners, samples, the prompt. Everything else goes to stderr.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import os
import secrets
import sys
from collections.abc import Iterator
from typing import NamedTuple

from gpt2.cli.command import print_error_line
from gpt2.devices import check_threads
from gpt2.errors import GPT2Error, UsageError, printable_name
from gpt2.files import expand_path
from gpt2.formats.model_dir import find_model, load_vocabulary
from gpt2.interrupt import SignalFlag
from gpt2.request import Request, Sampling, check_precision
from gpt2.text.undecodable import MAX_BOM_BYTES, REPLACE_AND_COUNT, count_undecodable, encoding_from_bom

PROMPT = "Model prompt >>> "
EMPTY_PROMPT = "Prompt should not be empty!"
LONGEST = 16 << 20  # bytes of a prompt
END_OF_ANSWER = "=" * 80


class Options(NamedTuple):
    """The flags that the two commands share."""

    model_name: str
    models_dir: str
    threads: int | None
    precision: str
    seed: int | None
    nsamples: int
    batch_size: int
    length: int | None
    sampling: Sampling
    stop: tuple[str, ...]
    cache: bool


def unconditional(options: Options) -> None:
    """Writes samples that start from nothing; n_ctx tokens each by default, and for ever with nsamples 0."""
    if options.nsamples == 0 and options.length == 0:
        raise UsageError("nsamples 0 is for ever, which length 0 would fill with nothing; give one of them a value")
    samples = SampleStream(options)
    samples.load()
    samples.write(None, samples.n_ctx, options.nsamples or None)


def interactive(options: Options, prompt: str | None, prompt_file: str | None, encoding: str) -> None:
    """Answers prompts, one a line, until stdin ends; or, if one is given, that prompt alone.

    Ctrl-C ends the sample that is being written, and at the prompt the program.
    """
    if prompt is not None and prompt_file is not None:
        raise UsageError("give prompt or prompt_file, not both")
    samples = SampleStream(options)
    undecodable = count_undecodable(encoding, "the prompt")
    if prompt_file is not None:
        prompt = read_prompt(prompt_file, encoding)
    if prompt == "":
        raise UsageError(EMPTY_PROMPT)
    samples.load()
    for text in ask(encoding) if prompt is None else [prompt]:
        undecodable.report()
        samples.write(text, samples.n_ctx // 2, options.nsamples, interruptible=prompt is None)
        print(END_OF_ANSWER, flush=True)


class SampleStream:
    """A model and a stream of samples: the random numbers go on from one prompt to the next."""

    def __init__(self, options: Options) -> None:
        check_precision(options.precision)
        check_threads(options.threads)
        self.options = options
        self.seed = secrets.randbits(32) if options.seed is None else options.seed
        self.request = Request(None, options.length or 0, options.sampling, self.seed, stop=options.stop)
        self.directory = find_model(options.model_name, options.models_dir)
        self.encoder = load_vocabulary(self.directory)
        self.n_ctx = self.directory.hparams.n_ctx
        self.sample_numbers = itertools.count()

    def load(self) -> None:
        """Reads the weights, which takes long: what can be refused without them has been refused before."""
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's would spin beside what starts, and compute nothing
        from gpt2 import generate  # needs packages, which --help does not

        options = self.options
        self.model = generate.load_weights(
            self.directory, self.encoder, options.precision, print_error_line, options.threads, options.cache
        )
        backend = self.model.backend
        about = f"{backend.device} ({options.precision}, {backend.name})"
        print_error_line(f"{self.directory.path.name} on {about}, seed {self.seed}")

    def write(self, prompt: str | None, length: int, nsamples: int | None, interruptible: bool = False) -> None:
        """Writes so many samples (None: for ever) under numbered banners, `length` tokens each unless the user said."""
        length = length if self.options.length is None else self.options.length
        from gpt2 import generate

        request = dataclasses.replace(self.request, prompt=prompt, length=length)
        numbers = itertools.islice(self.sample_numbers, nsamples)
        requests = (dataclasses.replace(request, sample=number) for number in numbers)
        banners = itertools.count(1)
        if self.options.batch_size > 1:
            with SignalFlag() as ctrl_c:
                pieces = generate.stream(self.model, requests, self.options.batch_size)
                for completion in generate.completions_in_order(
                    itertools.takewhile(lambda _: not ctrl_c.received, pieces)
                ):
                    print(banner(next(banners)), completion.text, sep="\n", flush=True)
            if not interruptible:
                ctrl_c.raise_if_received()
            return
        for one in requests:
            with SignalFlag() as ctrl_c:
                print(banner(next(banners)), flush=True)
                for piece in itertools.takewhile(lambda _: not ctrl_c.received, generate.stream(self.model, [one])):
                    print(piece.text, end="", flush=True)
                print(flush=True)
            if not interruptible:
                ctrl_c.raise_if_received()


def banner(number: int) -> str:
    return "=" * 40 + f" SAMPLE {number} " + "=" * 40


def ask(encoding: str) -> Iterator[str]:
    """Prompts from stdin, one a line, until it ends."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  input() then edits the line and remembers earlier ones
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding=encoding, errors=REPLACE_AND_COUNT)
    while True:
        try:
            text = input(PROMPT) if sys.stdin.isatty() else _line()
        except EOFError:
            print(flush=True)
            return
        if text:
            yield text
        else:
            print(EMPTY_PROMPT)


def _line() -> str:
    """What `input` does, which would read a line without an end until memory ends. Raises EOFError."""
    print(PROMPT, end="", flush=True)
    try:
        line = sys.stdin.readline(LONGEST + 1)
    except UnicodeError as error:
        raise GPT2Error(f"the prompt cannot be read: {error}") from error
    if not line:
        raise EOFError
    _check_length(line)
    return line.removesuffix("\n")


def read_prompt(prompt_file: str, encoding: str) -> str:
    """The whole file, or all of stdin if `-`, without the newline that ends its last line.

    Raises GPT2Error if it cannot be read, UsageError if it is longer than any prompt.
    """
    try:
        if prompt_file == "-":
            data = sys.stdin.buffer.read(LONGEST + 1)
        else:
            with expand_path(prompt_file).open("rb") as file:
                data = file.read(LONGEST + 1)
    except OSError as error:
        raise GPT2Error(f"the prompt file {printable_name(prompt_file)} cannot be read: {error.strerror}") from error
    _check_length(data)
    text = data.decode(encoding_from_bom(data[:MAX_BOM_BYTES], encoding), errors=REPLACE_AND_COUNT)
    return text.removesuffix("\n").removesuffix("\r")


def _check_length(prompt: str | bytes) -> None:
    if len(prompt) > LONGEST:
        raise UsageError(f"the prompt is longer than {LONGEST:,} bytes; a model sees the last few thousand")
