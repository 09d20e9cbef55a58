#!/usr/bin/env python3
"""The command that continues prompts from the terminal, a pipe or a file."""

import sys
from typing import Annotated

from gpt2.cli import command
from gpt2.cli.models import ModelChoice
from gpt2.cli.prompts import EMPTY_PROMPT, ask_for_prompts, read_prompt
from gpt2.cli.sample_stream import SampleStream
from gpt2.errors import UsageError
from gpt2.flags import (
    BatchSize,
    Encoding,
    Flag,
    FrequencyPenalty,
    Length,
    MinP,
    ModelName,
    ModelsDir,
    NoCache,
    Precision,
    PresencePenalty,
    RepetitionPenalty,
    SampleCount,
    Seed,
    Stop,
    Temperature,
    Threads,
    TopK,
    TopP,
)
from gpt2.formats.model_dir import DEFAULT_MODEL, DEFAULT_MODELS_DIR
from gpt2.request import DEFAULT_PRECISION, Request, Sampling
from gpt2.text.undecodable import count_undecodable

END_OF_ANSWER = "=" * 80


def interact_model(
    model_name: ModelName = DEFAULT_MODEL,
    seed: Seed = None,
    nsamples: SampleCount = 1,
    batch_size: BatchSize = 1,
    length: Length = None,
    temperature: Temperature = 1.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    models_dir: ModelsDir = DEFAULT_MODELS_DIR,
    stop: Stop = (),
    repetition_penalty: RepetitionPenalty = 1.0,
    threads: Threads = None,
    prompt: Annotated[str | None, Flag(help="answer this prompt and exit")] = None,
    prompt_file: Annotated[
        str | None, Flag(expects="a file", help="answer the prompt in this file and exit; - reads all of stdin")
    ] = None,
    encoding: Encoding = "utf-8",
    precision: Precision = DEFAULT_PRECISION,
    frequency_penalty: FrequencyPenalty = 0.0,
    presence_penalty: PresencePenalty = 0.0,
    min_p: MinP = 0.0,
    no_cache: NoCache = False,
) -> None:
    """Ask for prompts, one per line, and generate nsamples continuations of each.

    A continuation has `length` tokens; by default it fills half the model's window, 512. Ctrl-C ends the current
    sample, and Ctrl-D ends the program. Samples are unfiltered.
    """
    if prompt is not None and prompt_file is not None:
        raise UsageError("give prompt or prompt_file, not both")
    sampling = Sampling(temperature, top_k, top_p, repetition_penalty, frequency_penalty, presence_penalty, min_p)
    request = Request(prompt=None, length=length or 0, sampling=sampling, stop=stop)
    model = ModelChoice(model_name, models_dir, precision, threads, not no_cache)
    samples = SampleStream(model, request, seed, batch_size)
    undecodable = count_undecodable(encoding, "the prompt")
    if prompt_file is not None:
        prompt = read_prompt(prompt_file, encoding)
    if prompt == "":
        raise UsageError(EMPTY_PROMPT)
    samples.load()
    if length is None:
        length = samples.n_ctx // 2
    for text in ask_for_prompts(encoding) if prompt is None else [prompt]:
        undecodable.report()
        samples.print_samples(text, length, nsamples, interruptible=prompt is None)
        print(END_OF_ANSWER, flush=True)


if __name__ == "__main__":
    sys.exit(command.main(interact_model))
