#!/usr/bin/env python3
"""Command: a vocabulary of one's own, for a language or a kind of text that GPT-2's does not suit."""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))  # where src/'s content is if it was moved up
sys.path.insert(0, str(CHECKOUT / "src"))

from gpt2.cli import command
from gpt2.errors import UsageError
from gpt2.files import expand_path


def train_tokenizer(in_text, out, n_vocab=50257, encoding="utf-8", csv_header=False):
    """Train a byte-level BPE on text and write its encoder.json and vocab.bpe to the folder OUT.

    The vocabulary is for models that are trained from nothing; a model that is fine-tuned keeps its own.
    """
    from gpt2.cli.progress_bars import READING, bar  # needs packages, which --help does not
    from gpt2.data import documents, train_bpe

    if not out:
        raise UsageError("out must be the name of a folder, not ''")
    rows = documents.CsvFormat(header=csv_header)
    with bar(READING) as report:
        encoder = train_bpe.train(in_text, expand_path(out), n_vocab, encoding, rows, report)
    command.print_error_line(f"{encoder.n_vocab:,} ids in {out}")


if __name__ == "__main__":
    sys.exit(command.main(train_tokenizer))
