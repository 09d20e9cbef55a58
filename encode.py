#!/usr/bin/env python3
"""Command: text into a file of ids, which training reads at once."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))  # it runs before anything is installed

from gpt2.cli import command
from gpt2.data.documents import DEFAULT_COMBINE_CHARACTERS
from gpt2.formats.model_dir import DEFAULT_MODEL, DEFAULT_MODELS_DIR, find_vocabulary
from gpt2.text.undecodable import check_encoding


def encode_text(
    in_text,
    out,
    model_name=DEFAULT_MODEL,
    models_dir=DEFAULT_MODELS_DIR,
    combine=DEFAULT_COMBINE_CHARACTERS,
    encoding="utf-8",
    csv_header=False,
    workers=None,
):
    """Encode text of any size into a training set: OUT.npy, or for old programs OUT.npz if that is what OUT says.

    A file is a document, and so is a row of a .csv; <|endoftext|> stands between documents.
    """
    from gpt2.cli.progress_bars import ENCODING, bar  # needs packages, which --help does not
    from gpt2.data import documents, encode

    path = encode.out_path(out)
    check_encoding(encoding)
    print("Reading files", flush=True)
    encoder = find_vocabulary(model_name, models_dir)
    print("Writing", path, flush=True)
    rows = documents.CsvFormat(header=csv_header)
    with bar(ENCODING) as report:
        written = encode.encode(in_text, out, encoder, encoding, rows, combine, workers, report)
    command.print_error_line(f"{written.tokens:,} tokens of {written.documents:,} documents")


if __name__ == "__main__":
    sys.exit(command.main(encode_text))
