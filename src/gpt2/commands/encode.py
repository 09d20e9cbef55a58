"""The command encode.py, which encodes text into a file of token ids for training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gpt2.cli.command import print_error_line
from gpt2.data.documents import DEFAULT_COMBINE_CHARACTERS
from gpt2.flags import Column, CsvHeader, Encoding, Flag, InText, ModelName, ModelsDir, NoHeader
from gpt2.formats.model_dir import DEFAULT_MODEL, DEFAULT_MODELS_DIR, find_vocabulary
from gpt2.text.undecodable import check_encoding


@dataclass(frozen=True)
class EncodeFlags:
    """The flags of encode.py."""

    in_text: InText
    out: Annotated[str, Flag(expects="a path", help="the file to write")]
    model_name: ModelName = DEFAULT_MODEL
    models_dir: ModelsDir = DEFAULT_MODELS_DIR
    combine: Annotated[
        int,
        Flag(help="minimum number of characters of a chunk in an .npz; an .npy has no chunks", minimum=1),
    ] = DEFAULT_COMBINE_CHARACTERS
    encoding: Encoding = "utf-8"
    csv_header: CsvHeader = False
    workers: Annotated[
        int | None,
        Flag(help="number of processes that encode; all cores if not given", minimum=1),
    ] = None
    column: Column = None
    no_header: NoHeader = False


def encode_text(flags: EncodeFlags) -> None:
    """Encode text of any size into a training set: OUT.npy, or OUT.npz for old programs.

    Each file is a document, and so is each row of a .csv or .tsv; <|endoftext|> separates documents.
    """
    from gpt2.cli.progress_bars import ENCODING, bar  # imports packages that --help does not need
    from gpt2.data import documents, encode

    path = encode.out_path(flags.out)
    check_encoding(flags.encoding)
    rows = documents.CsvFormat.from_flags(flags.column, flags.no_header, flags.csv_header)
    print("Reading files", flush=True)
    encoder = find_vocabulary(flags.model_name, flags.models_dir)
    print("Writing", path, flush=True)
    with bar(ENCODING) as report:
        written = encode.encode(
            flags.in_text, flags.out, encoder, flags.encoding, rows, flags.combine, flags.workers, report
        )
    print_error_line(f"{written.tokens:,} tokens of {written.documents:,} documents")
