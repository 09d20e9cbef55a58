"""Text and ids damaged in hundreds of ways give ids or an error of one line, and never hang or use much memory."""

import contextlib
import gzip
import io
import os
import random
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import tiny

from gpt2.data import dataset, documents, train_bpe
from gpt2.errors import GPT2Error
from gpt2.formats.openai.vocabulary import load_encoder

CASES = 60  # of each kind of damage, in every run
SLOW_CASES = 1500  # with the mark `slow`
MAX_MEMORY_BYTES = 64 << 20  # far above what small files need
LINE_ENDS = ["\n", "\r", "\r\n", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", ""]
FRAGMENTS = ['"', ",", ";", "\t", "'", " ", "\0", "\ufeff", "é", "🦄", "a" * 300, "<|endoftext|>", "1", "\\", "\u0301"]
CODECS = ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-be", "latin-1", "utf-7", "gbk"]
NAMES = ["a.txt", "b.csv", "c.txt.gz", "d.csv.gz", "e", "f\nf.txt", os.fsdecode(b"\xff\xfe.txt"), "g.json", "h'\".CSV"]
NAMES += ["i.tsv", "j.tsv.gz", "k.pdf"]
ENCODINGS = ["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32-le", "latin-1", "utf-7", "gbk", "iso2022_jp", "cp1252"]


@pytest.fixture(scope="module")
def small_vocabulary(tmp_path_factory):
    """Return a vocabulary of 300 ids."""
    folder = tmp_path_factory.mktemp("vocabulary")
    tiny.write_vocabulary(folder)
    return load_encoder(folder)


def cases():
    """Return the numbers of the cases of every run, and of the slow ones."""
    slow = pytest.param(range(CASES, SLOW_CASES), id="many", marks=pytest.mark.slow)
    return [pytest.param(range(CASES), id="some"), slow]


def random_text(rng: random.Random) -> bytes:
    """Return characters of many kinds, in an encoding that may change within the text."""
    parts = []
    for _ in range(rng.randrange(4)):
        words = [rng.choice(rng.choice([FRAGMENTS, LINE_ENDS])) for _ in range(rng.randrange(40))]
        parts.append("".join(words).encode(rng.choice(CODECS), "replace"))
    return b"".join(parts)


def damage(rng: random.Random, data: bytes) -> bytes:
    """Flip some bits, and sometimes cut the end off or append bytes."""
    data = bytearray(data)
    for _ in range(rng.choice([0, 1, 1, 3, 20])):
        if data:
            data[rng.randrange(min(len(data), rng.choice([12, 200, 1 << 30])))] ^= 1 << rng.randrange(8)
    if rng.random() < 0.3:
        data = data[: rng.randrange(len(data) + 1)]
    if rng.random() < 0.2:
        data += rng.randbytes(rng.randrange(50))
    return bytes(data)


def write_text(rng: random.Random, folder: Path) -> Path:
    """Write a text file, which may be compressed and damaged."""
    path = folder / rng.choice(NAMES)
    data = rng.choice([random_text(rng), random_text(rng), rng.randbytes(rng.randrange(500)), b"[" * 5000])
    if path.name.endswith(".gz") and rng.random() < 0.9:
        data = damage(rng, gzip.compress(data)) if rng.random() < 0.6 else gzip.compress(data)
    path.write_bytes(data)
    return path


def random_array(rng: random.Random) -> np.ndarray:
    """Return ids, some of a type or shape that files of ids do not have."""
    count = rng.choice([0, 1, 50, 700])
    ids = np.random.default_rng(rng.randrange(1 << 30)).integers(300, size=count)
    ids = ids.astype(rng.choice(["<u2", ">u2", "<i8", "<u4", "i1", "f4", "U3", "M8[s]", "?"]))
    return ids.reshape(rng.choice([(-1,), (-1,), (1, -1), (-1, 1, 1)])) if rng.random() < 0.3 else ids


def write_token_file(rng: random.Random, folder: Path) -> Path:
    """Write a damaged file of ids."""
    file = io.BytesIO()
    name = rng.choice(["a.npy", "a.npz"])
    if name == "a.npy":
        np.save(file, random_array(rng))
    else:
        save = rng.choice([np.savez, np.savez_compressed])
        save(file, *[random_array(rng) for _ in range(rng.randrange(3))])
    path = folder / name
    path.write_bytes(damage(rng, file.getvalue()))
    return path


def write_header(rng: random.Random, folder: Path) -> Path:
    """Write a `.npy` with a made-up header."""
    types = ["'<u2'", "'|O'", "[('a','<u2')]", "'<u2,<u2'", "('<u2', (2,))", "'<u2' 'x'"]
    shapes = ["(3,)", "(10**15,)", "(-1,)", "(1e3,)", "()", "(999999999999999999999,)", "(3L,)", "(True,)", "3"]
    junk = ["None", "(" * 300, "-" * 5000 + "1", "[" * 99 + "]" * 99, "\\", "\n\t", "{}", "lambda: 0"]
    values = [*types, *shapes, *junk]
    header = "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}".format(*rng.choices(values, k=3))
    if rng.random() < 0.5:
        header = f"{{'descr': '<u2', 'fortran_order': False, 'shape': {rng.choice(values)}, }}"
    version = rng.choice([b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\4\0"])
    length = len(header).to_bytes(2 if version == b"\1\0" else 4, "little")
    path = folder / "a.npy"
    path.write_bytes(b"\x93NUMPY" + version + length + header.encode() + bytes(rng.randrange(99)))
    return path


@pytest.mark.parametrize("numbers", cases())
@pytest.mark.parametrize("write", [write_text, write_token_file, write_header])
def test_damaged_files_give_ids_or_an_error_of_one_line(tmp_path, small_vocabulary, write, numbers):
    for number in numbers:
        rng = random.Random(f"{write.__name__} {number}")
        folder = tmp_path / str(number)
        folder.mkdir()
        path = write(rng, folder)
        source = rng.choice([path, path, folder])
        encoding = rng.choice(ENCODINGS)
        column = rng.choice([None, None, "text", "column1", '"', ""])
        prefix = rng.choice(["", "<|startoftext|>"])
        csv_format = documents.CsvFormat(rng.random() < 0.5, column, prefix, first_column=rng.random() < 0.4)
        with check_messages(number, folder):
            ids = np.asarray(dataset.load(str(source), small_vocabulary, encoding, csv_format, workers=1))
            assert ids.ndim == 1 and len(ids) and ids.min() >= 0 and ids.max() < small_vocabulary.n_vocab


@pytest.mark.parametrize("numbers", cases())
def test_damaged_text_gives_a_vocabulary_or_an_error_of_one_line(tmp_path, numbers):
    pytest.importorskip("tokenizers")
    for number in numbers:
        rng = random.Random(f"vocabulary {number}")
        folder = tmp_path / str(number)
        folder.mkdir()
        path = write_text(rng, folder)
        out = tmp_path / f"vocabulary {number}"
        with check_messages(number, folder):
            try:
                encoder = train_bpe.train(str(path), out, 257, rng.choice(ENCODINGS))
            except GPT2Error:
                assert not out.exists(), number
                raise
            assert load_encoder(out).fingerprint == encoder.fingerprint


@contextlib.contextmanager
def check_messages(number, folder):
    """Check that errors and warnings in the block name the file in one line, and how much memory it takes."""
    tracemalloc.start()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        messages = [str(warning.message) for warning in caught if "created on Python 2" not in str(warning.message)]
    except GPT2Error as error:
        messages = [str(error)]
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MAX_MEMORY_BYTES, (number, peak)
    for line in messages:
        assert line.isprintable() and str(folder) in line, (number, line)
        assert len(line) < 2000, (number, line)
