#!/usr/bin/env python3
"""Command: how good a model is: the paper's tasks, and perplexity of any text."""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))  # where src/'s content is if it was moved up
sys.path.insert(0, str(CHECKOUT / "src"))

from gpt2.cli import command
from gpt2.cli.models import ModelFlags, TextFlags
from gpt2.commands import evaluate
from gpt2.formats.model_dir import DEFAULT_MODEL, DEFAULT_MODELS_DIR
from gpt2.request import DEFAULT_PRECISION


def evaluate_model(
    tasks=None,
    in_text=None,
    text=None,
    model_name=DEFAULT_MODEL,
    models_dir=DEFAULT_MODELS_DIR,
    data=None,
    data_dir=None,
    window=None,
    stride=None,
    no_start=False,
    limit=None,
    json=False,
    precision=DEFAULT_PRECISION,
    threads=None,
    encoding="utf-8",
    csv_header=False,
    no_cache=False,
):
    """Perplexity of a text (--in_text), or the numbers of tasks, each with the protocol by which it was found.

    The tasks are lambada, lambada-word, cbt-cn, cbt-ne, wikitext2, wikitext103, wikitext-as-it-is, ptb, enwik8, text8
    and hellaswag. Their data are downloaded once, or given by --data. Beside a number of a released size stands what
    the paper reports; docs/evaluation.md says which of them can be expected to agree.
    """
    chosen = ModelFlags(model_name, models_dir, precision, threads, not no_cache)
    source = TextFlags(in_text, text, encoding, csv_header)
    trials = evaluate.Trials(tasks, data, data_dir, window, stride, limit, no_start, json)
    evaluate.evaluate(chosen, source, trials)


if __name__ == "__main__":
    sys.exit(command.main(evaluate_model))
