"""Downloads of pretrained models, and conversion of text into training sets."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from gpt2.cli.progress_bars import ENCODING, FETCHING, bar, bars
from gpt2.data.documents import DEFAULT_COMBINE_CHARACTERS, CsvFormat, check_files, find_text_files, first_column
from gpt2.data.text_file import TextFileReader
from gpt2.errors import GPT2Error, UsageError
from gpt2.files import atomic_write, creating_folder, expand_path
from gpt2.formats import download, transfer
from gpt2.formats.model_dir import find_model, find_vocabulary

START_TOKEN, END_TOKEN = "<|startoftext|>", "<|endoftext|>"  # enclose each row of a .csv
# As in the old tool: the first column, without the first row. The end token precedes the next document.
CSV_FORMAT = CsvFormat(header=True, prefix=START_TOKEN, first_column=True)


def download_file_with_progress(url_base: str, sub_dir: str, model_name: str, file_name: str) -> None:
    """Download a file of a model, or resume its interrupted download.

    If the server sends the file's size and MD5, they are checked. `download_gpt2` also checks the content of files.

    Args:
        url_base: The server; the file's URL is `url_base`/models/`model_name`/`file_name`.
        sub_dir: Folder to write to.
        model_name: Name of the model.
        file_name: Name of the file.

    Raises:
        GPT2Error: If the file cannot be downloaded or written.
    """
    url = f"{url_base}/models/{model_name}/{file_name}"
    try:
        with creating_folder(Path(sub_dir)), bars(FETCHING) as report:
            verifying = partial(report.verifying, file_name)
            transfer.fetch(url, Path(sub_dir, file_name), lambda path: "", partial(report, file_name), verifying)
    except transfer.UnavailableError as error:
        raise GPT2Error(f"{url} could not be downloaded: {error}; try again later or from another server") from error


def download_gpt2(
    model_dir: str = "models", model_name: str = "124M", *, base_urls: tuple[str, ...] = download.BASE_URLS
) -> None:
    """Download a released model into the folder `model_dir`/`model_name`, except files that are already valid.

    Files are checked as `gpt2.formats.download.find_problem` describes.

    Args:
        model_dir: Folder that contains the pretrained models.
        model_name: Name of the model.
        base_urls: Servers to try in turn.

    Raises:
        GPT2Error: If a file cannot be downloaded or written.
        UsageError: If the name is unknown.
    """
    with bars(FETCHING) as report:
        download.download_model(model_name, expand_path(model_dir), base_urls, report, report.verifying)


def is_gpt2_downloaded(model_dir: str = "models", model_name: str = "124M") -> bool:
    """Return whether the model exists and is complete, under either of its names; the `.meta` file is optional."""
    try:
        find_model(model_name, model_dir)
    except GPT2Error:
        return False
    return True


def encode_csv(
    csv_path: str,
    out_path: str = "csv_encoded.txt",
    header: bool = True,
    start_token: str = START_TOKEN,
    end_token: str = END_TOKEN,
) -> None:
    """Write the first column of a `.csv` file as text, one row per line. Blank rows are left out.

    Args:
        csv_path: The `.csv` file.
        out_path: File to write.
        header: Whether to leave out the first row.
        start_token: Text before each row.
        end_token: Text after each row.

    Raises:
        GPT2Error: If a file cannot be read or written.
        UsageError: If a path is not the name of one file.
    """
    if Path(out_path).is_dir():
        raise UsageError(f"out_path must be the name of a file, not {out_path!r}")
    paths = find_text_files(csv_path)
    if len(paths) > 1:
        raise UsageError(f"csv_path must be one file, but {csv_path!r} matches {len(paths)} files")
    check_files(paths, csv_format=CSV_FORMAT)
    text_files = TextFileReader("utf-8")
    with atomic_write(Path(out_path)) as out, text_files.open(paths[0]) as (_, text):
        for cell in first_column(text, header):
            out.write(f"{start_token}{cell}{end_token}\n".encode())
    text_files.report()


def encode_dataset(
    file_path: str,
    model_dir: str = "models",
    out_path: str = "text_encoded.npz",
    model_name: str = "124M",
    combine: int = DEFAULT_COMBINE_CHARACTERS,
) -> None:
    """Encode text of any size into a training set, on all cores.

    Args:
        file_path: A text file, folder or glob.
        model_dir: Folder that contains the pretrained models.
        out_path: File to write; a name that does not end in `.npz` selects the faster format `.npy`.
        model_name: Model whose vocabulary is used.
        combine: Minimum number of characters of a chunk in an `.npz`.

    Raises:
        GPT2Error: If the model is missing or damaged, or if a file cannot be read or written.
        UsageError: If `out_path` is not the name of a file.
    """
    from gpt2.data import encode

    encode.out_path(out_path)  # rejects an invalid name before the vocabulary is loaded
    print("Reading files")
    encoder = find_vocabulary(model_name, model_dir)
    print("Writing", out_path)
    with bar(ENCODING) as report:
        encode.encode(file_path, out_path, encoder, csv_format=CSV_FORMAT, combine=combine, report=report)
