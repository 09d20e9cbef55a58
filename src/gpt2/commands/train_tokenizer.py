"""The command train_tokenizer.py, which trains a vocabulary for another language or kind of text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gpt2.cli.command import print_error_line
from gpt2.errors import UsageError
from gpt2.files import expand_path
from gpt2.flags import Column, CsvHeader, Encoding, Flag, InText, NoHeader


@dataclass(frozen=True)
class TrainTokenizerFlags:
    """The flags of train_tokenizer.py."""

    in_text: InText
    out: Annotated[str, Flag(expects="a path", help="the folder to write")]
    n_vocab: Annotated[
        int,
        Flag(help="size of the vocabulary: 256 bytes, the merges and <|endoftext|>; GPT-2 has 50257"),
    ] = 50257
    encoding: Encoding = "utf-8"
    csv_header: CsvHeader = False
    column: Column = None
    no_header: NoHeader = False


def train_tokenizer(flags: TrainTokenizerFlags) -> None:
    """Train a byte-level BPE on text and write its encoder.json and vocab.bpe to the folder OUT.

    The vocabulary is for models that are trained from scratch; a fine-tuned model retains its vocabulary.
    """
    from gpt2.cli.progress_bars import READING, bar  # imports packages that --help does not need
    from gpt2.data import documents, train_bpe

    if not flags.out:
        raise UsageError("out must be the name of a folder, not ''")
    folder = expand_path(flags.out)
    rows = documents.CsvFormat.from_flags(flags.column, flags.no_header, flags.csv_header)
    with bar(READING) as report:
        encoder = train_bpe.train(flags.in_text, folder, flags.n_vocab, flags.encoding, rows, report)
    print_error_line(f"{encoder.n_vocab:,} ids in {flags.out}")
