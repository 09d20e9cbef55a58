"""Files that are not plain text are rejected before any work, and text that only looks like another format is not."""

import bz2
import codecs
import gzip
import io
import lzma
import pickle
import random
import sqlite3
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import tiny

from gpt2.data import dataset, documents, encode, file_kinds, train_bpe
from gpt2.errors import GPT2Error
from gpt2.formats.openai.vocabulary import load_encoder
from gpt_2_simple import files as simple
from lm import data as lm

TEXT = "the cat sat on the mat\n"


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    """Return a vocabulary of 300 ids."""
    folder = tmp_path_factory.mktemp("vocabulary")
    tiny.write_vocabulary(folder)
    return load_encoder(folder)


def zip_of(*names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, TEXT)
    return file.getvalue()


def tar_of(mode):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        entry = tarfile.TarInfo("a.txt")
        entry.size = len(TEXT)
        archive.addfile(entry, io.BytesIO(TEXT.encode()))
    return file.getvalue()


def sqlite():
    database = sqlite3.connect(":memory:")
    database.execute("create table t (a text)")
    return database.serialize() if hasattr(database, "serialize") else b"SQLite format 3\0" + bytes(84)


def saved(save, **arrays):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def safetensors():
    header = b'{"wte":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    return struct.pack("<Q", len(header)) + header + bytes(4)


PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<< /Type /Catalog >>\nendobj\n"
RANDOM_BYTES = random.Random(1).randbytes(5000)
# Content of a file, whatever its name, and the kind that the message names.
CONTENTS = [
    (gzip.compress(TEXT.encode()), "compressed by gzip"),
    (bz2.compress(TEXT.encode()), "compressed"),
    (lzma.compress(TEXT.encode()), "compressed"),
    (lzma.compress(TEXT.encode() * 99, format=lzma.FORMAT_ALONE), "compressed"),
    (b"\x28\xb5\x2f\xfd\x04\x58" + bytes(9), "compressed"),
    (b"7z\xbc\xaf\x27\x1c\0\4", "an archive"),
    (b"Rar!\x1a\x07\x01\0", "an archive"),
    (b"!<arch>\ndebian-binary   1\0", "an archive"),
    (tar_of("w"), "a tar archive"),
    (zip_of("a.txt"), "a zip archive"),
    (zip_of("[Content_Types].xml", "word/document.xml"), "an Office document"),
    (zip_of("[Content_Types].xml", "xl/workbook.xml"), "a spreadsheet"),
    (zip_of("archive/data.pkl"), "a PyTorch file"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "an old Office document"),
    (rb"{\rtf1\ansi hello}", "an RTF document"),
    (PDF, "a PDF"),
    (b"%PDF-1.4\n1 0 obj\n<< >>\nendobj\n", "a PDF"),
    (codecs.BOM_UTF8 + PDF, "a PDF"),
    (b"\r\n\n" + PDF, "a PDF"),
    (codecs.BOM_UTF8 + rb" {\rtf1\ansi hello}", "an RTF document"),
    (codecs.BOM_UTF8 + RANDOM_BYTES, "binary data"),
    (codecs.BOM_UTF8 + zip_of("a.txt"), "a zip archive"),
    (b"PAR1\x15\x04\x15\x10", "a Parquet file"),
    (b"ARROW1\0\0\xff\xff", "an Arrow or Feather file"),
    (b"Obj\x01\x04\x14avro.codec", "an Avro or ORC file"),
    (sqlite(), "an SQLite database"),
    (b"\x89HDF\r\n\x1a\n\0\0", "an HDF5 file"),
    (pickle.dumps(["a"], 2), "a Python pickle"),
    (pickle.dumps(["a"], 5), "a Python pickle"),
    (saved(np.save, arr=np.zeros(3)), "a NumPy file"),
    (saved(np.savez, a=np.zeros(3)), "a NumPy archive"),
    (safetensors(), "a safetensors file"),
    (b"GGUF\x03\0\0\0" + bytes(16), "a GGUF file"),
    (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "an image"),
    (b"\xff\xd8\xff\xe0\0\x10JFIF", "an image"),
    (b"GIF89a\x01\0\x01\0", "an image"),
    (b"BM\x46\0\0\0\0\0\0\0", "an image"),
    (b"RIFF\x24\0\0\0WAVEfmt ", "a sound or a video"),
    (b"ID3\x03\0\0", "a sound or a video"),
    (b"\0\0\0\x18ftypmp42", "a sound or a video"),
    (b"\x7fELF\x02\x01\x01\0", "a program"),
    (b"MZ\x90\0\x03\0\0\0", "a program"),
    (b"\xca\xfe\xba\xbe\0\0\0\x34", "a program"),
    (b"\0asm\x01\0\0\0", "a program"),
    (b"wOF2\0\x01\0\0", "a font"),
    (RANDOM_BYTES, "binary data"),
    (np.random.default_rng(2).integers(50257, size=5000).astype("<u2").tobytes(), "binary data"),
    (np.random.default_rng(1).normal(size=999).astype("<f4").tobytes(), "binary data"),
    (bytes(5000), "binary data"),
    (TEXT.encode("utf-16-le"), "UTF-16 without a byte-order mark"),
    (TEXT.encode("utf-16-be"), "UTF-16 without a byte-order mark"),
]
# Names of files whose content says nothing, and the kind that the message names.
NAMES = [
    ("a.jsonl", "JSON"),
    ("a.JSON", "JSON"),
    ("a.ndjson", "JSON"),
    ("a.jsonl.gz", "JSON"),
    ("a.parquet", "a Parquet file"),
    ("a.pdf", "a PDF"),
    ("a.docx", "an Office document"),
    ("a.xlsx", "a spreadsheet"),
    ("a.zip", "a zip archive"),
    ("a.tar", "a tar archive"),
    ("a.7z", "an archive"),
    ("a.zst", "compressed"),
    ("a.epub", "an e-book"),
    ("a.rtf", "an RTF document"),
    ("a.db.sqlite3", "an SQLite database"),
]
LOOKALIKES = [
    "PK is a text that starts with PK\n",
    "A sentence about %PDF-1.7\n%PDF-1.4\n1 0 obj\n",
    "%PDF-1.4 is how a PDF starts.\n",
    "\n%PDF-1.4 has 3 0 objects\n",
    '{"text": "in a .txt, JSON is text"}\n',
    "[1] A footnote, or a list\n",
    "PAR1 and GIF89a, BZh91AY&SY, RIFF, ID3, OggS\n",
    "GIF89a is a format of images\n",
    "BM is not a bitmap\n",
    "MZ\n" * 90,
    "Obj\n",
    "ORC is short for orchestra\n",
    "{\\rtfm} is a macro\n",
    "GGUF\n",
    "SQLite format 3\n",
    "<html><body>text</body></html>\n",
    "\x1b[1mbold\x1b[0m N\bNA\bA\bM\x0c\n" * 50,
    "one\0two\n",
    "日本語のテキスト\n" * 300,
    "\u0080\u0081é" * 300,
]


def rejections(path, folder, vocabulary):
    """Yield the functions that read text, each with arguments that let it read `path`."""
    yield lambda: dataset.load(path, vocabulary)
    yield lambda: encode.encode(path, str(folder / "out"), vocabulary)
    yield lambda: train_bpe.train(path, folder / "vocabulary", 257)


@pytest.mark.parametrize("content, kind", CONTENTS, ids=[f"{kind}-{i}" for i, (_, kind) in enumerate(CONTENTS)])
@pytest.mark.parametrize("name", ["a.txt", "a", "a.csv", "a.txt.gz"])
def test_the_content_decides_whatever_the_name(tmp_path, vocabulary, content, kind, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(GPT2Error, match=rf"^{path} is {kind}, not plain text; [^\n]+$"):
        dataset.load(str(path), vocabulary)


@pytest.mark.parametrize("name, kind", NAMES)
def test_the_extension_decides_for_formats_that_have_one(tmp_path, vocabulary, name, kind):
    path = tmp_path / name
    path.write_bytes(gzip.compress(TEXT.encode()) if name.endswith(".gz") else TEXT.encode())
    with pytest.raises(GPT2Error, match=rf"{name} is {kind}, not plain text; [^\n]*a name that ends in .txt$"):
        dataset.load(str(path), vocabulary)


@pytest.mark.parametrize("text", LOOKALIKES)
@pytest.mark.filterwarnings("ignore:NUL characters")
def test_text_that_looks_like_another_format_is_text(tmp_path, text):
    for name in ("a.txt", "b", "c.md"):
        (tmp_path / name).write_text(text, encoding="utf-8")
    paths = documents.find_text_files(str(tmp_path))
    documents.check_files(paths)
    assert [part.text for part in documents.read(paths)] == [text] * 3


@pytest.mark.parametrize("encoding", ["latin-1", "cp1251", "gbk", "shift_jis", "koi8-r", "iso2022_jp", "cp437", "big5"])
def test_text_in_other_encodings_is_not_binary(tmp_path, encoding):
    path = tmp_path / "a.txt"
    path.write_bytes(("Москва, café, 日本語, 中文\n" * 200).encode(encoding, "ignore"))
    for expected in ("utf-8", encoding):
        assert file_kinds.find_kind(path, expected) is None


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
@pytest.mark.filterwarnings("ignore:read as utf")
def test_text_with_a_byte_order_mark_is_read(tmp_path, vocabulary, encoding):
    (tmp_path / "a.txt").write_bytes(TEXT.encode(encoding))
    (tmp_path / "b.txt").write_text(TEXT)
    load = [dataset.load(str(tmp_path / name), vocabulary).tolist() for name in ("a.txt", "b.txt")]
    assert load[0] == load[1]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_names_the_flag_that_reads_it(tmp_path, vocabulary, encoding):
    (tmp_path / "a.txt").write_bytes(TEXT.encode(encoding))
    with pytest.raises(GPT2Error, match=f"add --encoding {encoding}$"):
        dataset.load(str(tmp_path), vocabulary)
    assert len(dataset.load(str(tmp_path), vocabulary, encoding=encoding)) > 2


@pytest.mark.parametrize("name", ["m.json", "deep/x.parquet", "deep/er/b.bin"])
@pytest.mark.parametrize("pattern", ["{}", "{}/**/*"])
def test_one_bad_file_in_a_folder_is_named_before_any_work(tmp_path, vocabulary, name, pattern):
    folder = tmp_path / "texts"
    bad = folder / name
    bad.parent.mkdir(parents=True)
    bad.write_bytes(RANDOM_BYTES)
    (folder / "a.txt").write_text(TEXT)
    path = pattern.format(folder)
    for reject in rejections(path, tmp_path, vocabulary):
        with pytest.raises(GPT2Error, match=rf"^{bad} is .*; or leave such files out, as 'data/\*\*/\*.txt' does$"):
            reject()
    assert [entry.name for entry in tmp_path.iterdir()] == ["texts"]


def test_several_bad_files_are_counted(tmp_path, vocabulary):
    for name in ("a.pdf", "b.zip", "c.json", "d.png"):
        (tmp_path / name).write_text("x")
    message = (
        r"^4 files are not plain text: \S+a.pdf \(a PDF\), \S+ \(a zip archive\), \S+ \(JSON\) and 1 more; save its"
    )
    with pytest.raises(GPT2Error, match=message):
        dataset.load(str(tmp_path), vocabulary)


def test_files_of_ids_and_their_sidecars_are_accepted(tmp_path, vocabulary):
    (tmp_path / "a.txt").write_text(TEXT)
    for name in ("b.npy", "c.npz"):
        encode.encode(str(tmp_path / "a.txt"), str(tmp_path / name), vocabulary)
    assert len(dataset.load(str(tmp_path), vocabulary)) > 3 * len(vocabulary.encode(TEXT))


def test_the_drop_ins_reject_them_too(tmp_path, tiny_dir):
    (tmp_path / "a.csv").write_bytes(zip_of("xl/workbook.xml"))
    with pytest.raises(GPT2Error, match="a.csv is a spreadsheet, not plain text; export it as .csv"):
        simple.encode_csv(str(tmp_path / "a.csv"), str(tmp_path / "out.txt"))
    with pytest.raises(GPT2Error, match="a.csv is a spreadsheet"):
        simple.encode_dataset(str(tmp_path), out_path=str(tmp_path / "out.npz"), model_name=tiny_dir)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.txt").write_bytes(PDF)
    with pytest.raises(GPT2Error, match="a.txt is a PDF"):
        lm.find_texts([str(tmp_path)], "train")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "train"]
