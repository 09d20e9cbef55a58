#!/usr/bin/env python3
"""Command: what a model thinks of a text, token by token."""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))  # where src/'s content is if it was moved up
sys.path.insert(0, str(CHECKOUT / "src"))

from gpt2.cli import command
from gpt2.cli.models import ModelFlags, TextFlags
from gpt2.commands import score
from gpt2.formats.model_dir import DEFAULT_MODEL, DEFAULT_MODELS_DIR
from gpt2.request import DEFAULT_PRECISION


def score_text(
    in_text=None,
    text=None,
    by="token",
    next=None,
    likeliest=0,
    form=None,
    out=None,
    model_name=DEFAULT_MODEL,
    models_dir=DEFAULT_MODELS_DIR,
    window=None,
    stride=None,
    precision=DEFAULT_PRECISION,
    threads=None,
    encoding="utf-8",
    csv_header=False,
    no_cache=False,
):
    """Log-probability, surprise in bits and rank of each token, word, line or file; of stdin if no text is given.

    Log-probabilities are natural logarithms; a rank of 1 is the likeliest token's, and of several tokens it is the
    largest. Each token sees at least half a window before it, unless --stride says otherwise; <|endoftext|> stands
    before each text. --next 20 lists the tokens that may follow instead.
    """
    chosen = ModelFlags(model_name, models_dir, precision, threads, not no_cache)
    source = TextFlags(in_text, text, encoding, csv_header)
    if next is None:
        score.score(chosen, source, score.Wanted(by, likeliest, form, out, window, stride))
    else:
        score.following(chosen, source, next, form, out)


if __name__ == "__main__":
    sys.exit(command.main(score_text))
