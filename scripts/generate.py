#!/usr/bin/env python3
"""Command: a file of prompts in, a file of what a model writes for them out."""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))  # where src/'s content is if it was moved up
sys.path.insert(0, str(CHECKOUT / "src"))

from gpt2.cli import bulk_job, command
from gpt2.cli.bulk_flags import BULK_FLAGS
from gpt2.cli.models import ModelFlags
from gpt2.formats.model_dir import DEFAULT_MODEL, DEFAULT_MODELS_DIR
from gpt2.request import DEFAULT_PRECISION, Sampling


def generate(
    prompts,
    out,
    model_name=DEFAULT_MODEL,
    length=None,
    temperature=1.0,
    top_k=0,
    top_p=1.0,
    seed=None,
    stop=(),
    n=1,
    batch_size=32,
    precision=DEFAULT_PRECISION,
    models_dir=DEFAULT_MODELS_DIR,
    repetition_penalty=1.0,
    frequency_penalty=0.0,
    presence_penalty=0.0,
    min_p=0.0,
    logprobs=None,
    ignore_eos=False,
    column=None,
    template=None,
    id_column="id",
    in_form=None,
    out_form=None,
    delimiter=None,
    no_header=False,
    encoding="utf-8",
    threads=None,
    processes=1,
    ray=None,
):
    """Write a text for each prompt of a file: one a line, or JSON lines, csv, Parquet.

    A job that was interrupted goes on with the same command, and writes no row twice. The rows of JSON lines may have
    settings of their own, by OpenAI's names. Each text depends on its prompt, its settings and its seed alone; a row
    without a seed has the job's and its own number.
    """
    sampling = Sampling(temperature, top_k, top_p, repetition_penalty, frequency_penalty, presence_penalty, min_p)
    bulk_job.generate(
        ModelFlags(model_name, models_dir, precision, threads),
        bulk_job.Files(prompts, out, in_form, out_form, column, id_column, template, delimiter, encoding, no_header),
        bulk_job.Wanted(length, sampling, seed, stop, n, logprobs, ignore_eos),
        bulk_job.Workers(batch_size, processes, ray),
    )


if __name__ == "__main__":
    sys.exit(command.main(generate, flags=BULK_FLAGS))
