#!/usr/bin/env python3
"""The command that generates samples without a prompt."""

import sys

from gpt2.cli import command
from gpt2.cli.models import ModelChoice
from gpt2.cli.sample_stream import SampleStream
from gpt2.errors import UsageError
from gpt2.flags import (
    BatchSize,
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


def sample_model(
    model_name: ModelName = DEFAULT_MODEL,
    seed: Seed = None,
    nsamples: SampleCount = 0,
    batch_size: BatchSize = 1,
    length: Length = None,
    temperature: Temperature = 1.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    models_dir: ModelsDir = DEFAULT_MODELS_DIR,
    stop: Stop = (),
    repetition_penalty: RepetitionPenalty = 1.0,
    threads: Threads = None,
    precision: Precision = DEFAULT_PRECISION,
    frequency_penalty: FrequencyPenalty = 0.0,
    presence_penalty: PresencePenalty = 0.0,
    min_p: MinP = 0.0,
    no_cache: NoCache = False,
) -> None:
    """Generate samples without a prompt: nsamples of them, or endlessly if nsamples is 0.

    A sample has `length` tokens; by default it fills the model's window, 1024. Samples are unfiltered.
    """
    if nsamples == 0 and length == 0:
        raise UsageError("nsamples 0 is endless, and length 0 generates nothing; give one of them another value")
    sampling = Sampling(temperature, top_k, top_p, repetition_penalty, frequency_penalty, presence_penalty, min_p)
    request = Request(prompt=None, length=length or 0, sampling=sampling, stop=stop)
    model = ModelChoice(model_name, models_dir, precision, threads, not no_cache)
    samples = SampleStream(model, request, seed, batch_size)
    samples.load()
    if length is None:
        length = samples.n_ctx
    samples.print_samples(None, length, nsamples or None)


if __name__ == "__main__":
    sys.exit(command.main(sample_model))
