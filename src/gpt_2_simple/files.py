"""Files: the models that are downloaded, and text that is made into training sets."""

from __future__ import annotations

from pathlib import Path

from gpt2.cli.progress_bars import ENCODING, FETCHING, bar, bars
from gpt2.data.documents import COMBINE, CsvFormat, find_text_files, first_column
from gpt2.data.text_file import TextFiles
from gpt2.errors import GPT2Error, UsageError
from gpt2.files import atomic_write, creating_folder, expand_path
from gpt2.formats import download, transfer
from gpt2.formats.model_dir import find_model, find_vocabulary

START, END = "<|startoftext|>", "<|endoftext|>"  # what stands around the rows of a .csv
ROWS = CsvFormat(header=True, start=START)  # the end comes with the next document


def download_file_with_progress(url_base: str, sub_dir: str, model_name: str, file_name: str) -> None:
    """Downloads `url_base`/models/`model_name`/`file_name` into `sub_dir`, going on where it was interrupted.

    Its size and its MD5 are checked where the server sends them; `download_gpt2` checks what is in the files. Raises
    GPT2Error if the server does not give it or it cannot be written.
    """
    url = f"{url_base}/models/{model_name}/{file_name}"
    try:
        with creating_folder(Path(sub_dir)), bar(FETCHING.format(file_name)) as report:
            transfer.fetch(url, Path(sub_dir, file_name), lambda path: "", report)
    except transfer.Unavailable as error:
        raise GPT2Error(f"{url} cannot be had: {error}; try again later or elsewhere") from error


def download_gpt2(
    model_dir: str = "models", model_name: str = "124M", *, base_urls: tuple[str, ...] = download.BASE_URLS
) -> None:
    """Downloads a released model into the folder `model_dir`/`model_name`; what is there and right is left alone.

    Files are checked as `gpt2.formats.download.problem` says. base_urls: servers to try in turn. Raises GPT2Error, and
    UsageError for an unknown name.
    """
    with bars(FETCHING) as report:
        download.download_model(model_name, expand_path(model_dir), base_urls, report)


def is_gpt2_downloaded(model_dir: str = "models", model_name: str = "124M") -> bool:
    """Whether the model is there and complete, under either of its names; the `.meta` file may be missing."""
    try:
        find_model(model_name, model_dir)
    except GPT2Error:
        return False
    return True


def encode_csv(
    csv_path: str,
    out_path: str = "csv_encoded.txt",
    header: bool = True,
    start_token: str = START,
    end_token: str = END,
) -> None:
    """Writes the first column of a `.csv` as text, each row between the two tokens on a line of its own.

    header: the first row is left out. Blank rows are, too. Raises GPT2Error if a file cannot be read or written, and
    UsageError for what is no name of a file.
    """
    if Path(out_path).is_dir():
        raise UsageError(f"out_path must be the name of a file, not {out_path!r}")
    paths = find_text_files(csv_path)
    if len(paths) > 1:
        raise UsageError(f"csv_path must be one file, and {csv_path!r} means {len(paths)}")
    files = TextFiles("utf-8")
    with atomic_write(Path(out_path)) as out, files.open(paths[0]) as (_, text):
        for first in first_column(text, header):
            out.write(f"{start_token}{first}{end_token}\n".encode())
    files.report()


def encode_dataset(
    file_path: str,
    model_dir: str = "models",
    out_path: str = "text_encoded.npz",
    model_name: str = "124M",
    combine: int = COMBINE,
) -> None:
    """Encodes text of any size into a training set, on all cores; a name that ends in .npy gives the faster format."""
    from gpt2.data import encode

    encode.out_path(out_path)  # a name that cannot be is refused before the vocabulary is read
    print("Reading files")
    encoder = find_vocabulary(model_name, model_dir)
    print("Writing", out_path)
    with bar(ENCODING) as report:
        encode.encode(file_path, out_path, encoder, rows=ROWS, combine=combine, report=report)
