#!/usr/bin/env python3
"""Command: prompts from the terminal, a pipe or a file, and how a model goes on."""

import sys

from gpt2.cli import command, sample_stream
from gpt2.formats.model_dir import DEFAULT_MODEL, DEFAULT_MODELS_DIR
from gpt2.request import DEFAULT_PRECISION, Sampling


def interact_model(
    model_name=DEFAULT_MODEL,
    seed=None,
    nsamples=1,
    batch_size=1,
    length=None,
    temperature=1.0,
    top_k=0,
    top_p=1.0,
    models_dir=DEFAULT_MODELS_DIR,
    stop=(),
    repetition_penalty=1.0,
    threads=None,
    prompt=None,
    prompt_file=None,
    encoding="utf-8",
    precision=DEFAULT_PRECISION,
    frequency_penalty=0.0,
    presence_penalty=0.0,
    min_p=0.0,
    no_cache=False,
):
    """Ask for prompts, one a line, and write nsamples continuations of each.

    A continuation is `length` tokens long; by default half the model's window, 512. Ctrl-C ends the sample that is
    being written, Ctrl-D the program. Samples are unfiltered.
    """
    sampling = Sampling(temperature, top_k, top_p, repetition_penalty, frequency_penalty, presence_penalty, min_p)
    sample_stream.interactive(
        sample_stream.Options(
            model_name, models_dir, threads, precision, seed, nsamples, batch_size, length, sampling, stop, not no_cache
        ),
        prompt,
        prompt_file,
        encoding,
    )


if __name__ == "__main__":
    sys.exit(command.main(interact_model))
