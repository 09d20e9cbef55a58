#!/usr/bin/env python3
"""Command: samples of what a model writes from nothing."""

import sys

from gpt2.cli import command, sample_stream
from gpt2.formats.model_dir import DEFAULT_MODEL, DEFAULT_MODELS_DIR
from gpt2.request import DEFAULT_PRECISION, Sampling


def sample_model(
    model_name=DEFAULT_MODEL,
    seed=None,
    nsamples=0,
    batch_size=1,
    length=None,
    temperature=1.0,
    top_k=0,
    top_p=1.0,
    models_dir=DEFAULT_MODELS_DIR,
    stop=(),
    repetition_penalty=1.0,
    threads=None,
    precision=DEFAULT_PRECISION,
    frequency_penalty=0.0,
    presence_penalty=0.0,
    min_p=0.0,
    no_cache=False,
):
    """Write samples that start from nothing, as many as nsamples says, for ever if it is 0.

    A sample is `length` tokens long; by default the model's window, 1024. Samples are unfiltered.
    """
    sampling = Sampling(temperature, top_k, top_p, repetition_penalty, frequency_penalty, presence_penalty, min_p)
    sample_stream.unconditional(
        sample_stream.Options(
            model_name, models_dir, threads, precision, seed, nsamples, batch_size, length, sampling, stop, not no_cache
        )
    )


if __name__ == "__main__":
    sys.exit(command.main(sample_model))
