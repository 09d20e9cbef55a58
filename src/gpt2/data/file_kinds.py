"""Recognition of files that are not plain text, so that their bytes are not learned as if they were.

The extension decides for formats that have one, and the first bytes decide whatever the name. A signature of printable
characters counts only in a file with control characters, which no text has. Text that merely starts like another
format, or with `{` or `[`, therefore stays text unless its extension says otherwise.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from gpt2.data.text_file import open_decompressed
from gpt2.errors import GPT2Error, printable_name, summarize_names
from gpt2.text.undecodable import BOM_ENCODINGS

START_BYTES = 4096  # bytes of a file that are examined
# Control characters that texts do not have. Texts may have backspaces, form feeds, escapes, separators and DOS's end.
CONTROL_BYTES = bytes([*range(0x08), *range(0x10, 0x1A), 0x7F])
MIN_BINARY_BYTES = 8  # control characters that make a file binary, if they are also this share of its start:
MIN_BINARY_SHARE = 0.02
MIN_UTF_16_SHARE = 0.3  # null bytes at even or at odd positions, of all positions of this parity
PRINTABLE = re.compile(rb"[\t\n\r -~]+")


class FileKind(NamedTuple):
    """A kind of file that is not plain text.

    Attributes:
        name: What such a file is, with an article.
        advice: What to do instead of giving the file.
        extensions: Extensions that only such files have.
        signatures: Pairs of a position and the bytes there.
        contains: Bytes, one of which the start must contain in addition to a signature; empty if no more is needed.
        test: Another check of the file's start, for formats without a fixed signature.
    """

    name: str
    advice: str
    extensions: tuple[str, ...] = ()
    signatures: tuple[tuple[int, bytes], ...] = ()
    contains: tuple[bytes, ...] = ()
    test: Callable[[bytes], bool] = lambda start: False

    def matches(self, start: bytes) -> bool:
        """Return whether a file that starts with these bytes is of this kind."""
        has_signature = any(start.startswith(bytes_, at) and _counts(bytes_, start) for at, bytes_ in self.signatures)
        return self.test(start) or (
            has_signature and (not self.contains or any(map(start.__contains__, self.contains)))
        )


def _counts(signature: bytes, start: bytes) -> bool:
    return not PRINTABLE.fullmatch(signature) or _count_control(start) > 0


def _count_control(data: bytes) -> int:
    return len(data) - len(data.translate(None, CONTROL_BYTES))


def _is_pdf(start: bytes) -> bool:
    """Return whether there is a PDF's header, and an object or the usual comment of bytes above 127 after it.

    Programs that open PDFs accept blank lines before the header.
    """
    return bool(re.match(rb"\s*%PDF-\d\.\d\s", start) and re.search(rb"[\r\n]%[\x80-\xff]{3}|\s\d+ \d+ obj\b", start))


def _is_rtf(start: bytes) -> bool:
    return bool(re.match(rb"\s*\{\\rtf1?\\[a-z]", start))


def _is_windows_program(start: bytes) -> bool:
    at = int.from_bytes(start[0x3C:0x40], "little")
    return start.startswith(b"MZ") and (_count_control(start) > 0 or start.startswith(b"PE\0\0", at))


def _is_safetensors(start: bytes) -> bool:
    return start[5:8] == b"\0\0\0" and bool(re.match(rb'\{\s*("|\})', start[8:]))


def _is_riff(start: bytes) -> bool:
    return start.startswith(b"RIFF") and start[8:12] in (b"WAVE", b"WEBP", b"AVI ") and _count_control(start) > 0


def _is_bmp(start: bytes) -> bool:
    return start.startswith(b"BM") and start[6:10] == bytes(4)


def _is_old_compiled_python(start: bytes) -> bool:
    return start[1:4] == b"\r\r\n" and _count_control(start) > 0


ZIP = ((0, b"PK\x03\x04"), (0, b"PK\x05\x06"), (0, b"PK\x07\x08"))
AS_TEXT = "save its text as .txt (UTF-8) and give that"
AS_ROWS = "write its text into a .csv with the column text, one document in a row, and give that"
UNPACK = "unpack it and give the folder of its text files"
RENAME_IDS = "if it holds ids, as encode.py writes them, give it a name that ends in .npy or .npz"
RENAME_TEXT = "if it is plain text, give it a name that ends in .txt"
NO_TEXT = "give the text that is to be learned"
CONVERT_MODEL = "give a model with --model_name, and text here"
JSON_EXTENSIONS = (".json", ".jsonl", ".ndjson", ".jsonlines", ".geojson", ".ipynb")
# The first kind that matches counts.
KINDS = (
    FileKind("JSON", AS_ROWS, JSON_EXTENSIONS),
    FileKind("a Parquet file", AS_ROWS, (".parquet", ".pq"), ((0, b"PAR1"),)),
    FileKind("an Arrow or Feather file", AS_ROWS, (".arrow", ".feather"), ((0, b"ARROW1\0\0"), (0, b"FEA1"))),
    FileKind("an Avro or ORC file", AS_ROWS, (".avro", ".orc"), ((0, b"Obj\x01"), (0, b"ORC"))),
    FileKind("an SQLite database", AS_ROWS, (".sqlite", ".sqlite3"), ((0, b"SQLite format 3\0"),)),
    FileKind(
        "a spreadsheet",
        "export it as .csv (UTF-8) and give that",
        (".xlsx", ".xlsm", ".xls", ".ods"),
        ZIP,
        (b"xl/", b"opendocument.spreadsheet"),
    ),
    FileKind(
        "an Office document",
        AS_TEXT,
        (".docx", ".docm", ".doc", ".odt", ".pptx", ".ppt", ".odp", ".pages", ".key"),
        ZIP,
        (b"[Content_Types].xml", b"word/", b"ppt/", b"application/vnd.oasis"),
    ),
    FileKind("an old Office document", AS_TEXT, (), ((0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),)),
    FileKind("an RTF document", AS_TEXT, (".rtf",), test=_is_rtf),
    FileKind("an e-book", AS_TEXT, (".epub",), ZIP, (b"application/epub",)),
    FileKind("an e-book", AS_TEXT, (".mobi", ".azw", ".azw3", ".djvu"), ((60, b"BOOKMOBI"), (0, b"AT&TFORM"))),
    FileKind("a PDF", AS_TEXT, (".pdf",), test=_is_pdf),
    FileKind("a PyTorch file", CONVERT_MODEL, (".pt", ".pth"), ZIP, (b"/data.pkl", b"constants.pkl")),
    FileKind("a NumPy archive", RENAME_IDS, (), ZIP, (b".npy",)),
    FileKind("a zip archive", UNPACK, (".zip",), ZIP),
    FileKind("a tar archive", UNPACK, (".tar", ".tgz"), ((257, b"ustar\0"), (257, b"ustar  \0"))),
    FileKind(
        "an archive",
        UNPACK,
        (".7z", ".rar", ".cab"),
        ((0, b"7z\xbc\xaf\x27\x1c"), (0, b"Rar!\x1a\x07"), (0, b"MSCF\0\0\0\0"), (0, b"!<arch>\n")),
    ),
    FileKind("compressed by gzip", "give it a name that ends in .gz, or decompress it", (), ((0, b"\x1f\x8b\x08"),)),
    FileKind(
        "compressed",
        "decompress it, or compress it by gzip as .txt.gz, and give that",
        (".bz2", ".xz", ".lzma", ".zst", ".lz4", ".lz", ".br", ".z"),
        (
            (0, b"BZh91AY&SY"),
            *((0, b"BZh%d1AY&SY" % level) for level in range(1, 9)),
            (0, b"\xfd7zXZ\0"),
            (0, b"\x28\xb5\x2f\xfd"),
            (0, b"\x04\x22\x4d\x18"),
            (0, b"LZIP\x01"),
            (0, b"\x1f\x9d"),
            (0, b"\x1f\xa0"),
            (0, b"\x5d\0\0"),
            (0, b"\xff\x06\0\0sNaPpY"),
        ),
    ),
    FileKind("a NumPy file", RENAME_IDS, (), ((0, b"\x93NUMPY"),)),
    FileKind("an HDF5 file", NO_TEXT, (".h5", ".hdf5"), ((0, b"\x89HDF\r\n\x1a\n"),)),
    FileKind("a safetensors file", CONVERT_MODEL, (".safetensors",), test=_is_safetensors),
    FileKind("a GGUF file", CONVERT_MODEL, (".gguf", ".ggml"), ((0, b"GGUF"), (0, b"lmgg"), (0, b"tjgg"))),
    FileKind(
        "a Python pickle",
        AS_TEXT,
        (".pkl", ".pickle"),
        tuple((0, bytes([0x80, protocol])) for protocol in range(2, 6)),
    ),
    FileKind(
        "an image",
        NO_TEXT,
        (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".heic", ".avif", ".ico", ".psd"),
        (
            (0, b"\x89PNG\r\n\x1a\n"),
            (0, b"\xff\xd8\xff"),
            (0, b"GIF87a"),
            (0, b"GIF89a"),
            (0, b"II*\0"),
            (0, b"MM\0*"),
            (0, b"8BPS\0"),
            (0, b"\0\0\x01\0"),
            (0, b"\0\0\0\x0cjP  "),
            (0, b"\0\0\0\x0cJXL "),
        ),
        test=_is_bmp,
    ),
    FileKind(
        "a sound or a video",
        NO_TEXT,
        (".mp3", ".wav", ".ogg", ".flac", ".m4a", ".mp4", ".mov", ".avi", ".mkv", ".webm"),
        (
            (0, b"ID3\x02"),
            (0, b"ID3\x03"),
            (0, b"ID3\x04"),
            (0, b"OggS\0"),
            (0, b"fLaC\0"),
            (0, b"MThd\0"),
            (0, b"\x1a\x45\xdf\xa3"),
            (0, b"FLV\x01"),
            (0, b"\0\0\x01\xba"),
            (0, b"\0\0\x01\xb3"),
            (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
            (4, b"ftyp"),
        ),
        test=_is_riff,
    ),
    FileKind(
        "a program",
        NO_TEXT,
        (".exe", ".dll", ".so", ".pyc", ".class", ".wasm", ".o", ".a", ".dylib"),
        (
            (0, b"\x7fELF"),
            (0, b"\xfe\xed\xfa\xce"),
            (0, b"\xfe\xed\xfa\xcf"),
            (0, b"\xce\xfa\xed\xfe"),
            (0, b"\xcf\xfa\xed\xfe"),
            (0, b"\xca\xfe\xba\xbe"),
            (0, b"\0asm"),
            (0, b"dex\n"),
            (0, b"BC\xc0\xde"),
        ),
        test=lambda start: _is_windows_program(start) or _is_old_compiled_python(start),
    ),
    FileKind(
        "a font",
        NO_TEXT,
        (".ttf", ".otf", ".woff", ".woff2"),
        ((0, b"\0\x01\0\0\0"), (0, b"OTTO\0"), (0, b"wOFF\0"), (0, b"wOF2\0")),
    ),
)


def check_plain_text(paths: Sequence[Path], encoding: str) -> None:
    """Check that files are plain text, before any of them is read as a whole.

    Args:
        paths: The files, compressed (`.gz`) or not.
        encoding: The encoding of the text.

    Raises:
        GPT2Error: A file is of another kind, or cannot be read. The message names the files and says what to do.
    """
    kinds = {path: kind for path in paths if (kind := find_kind(path, encoding))}
    if not kinds:
        return
    names = [f"{printable_name(path)} ({kind.name})" for path, kind in kinds.items()]
    kind = next(iter(kinds.values()))
    subject = f"{printable_name(next(iter(kinds)))} is {kind.name}, not plain text"
    if len(kinds) > 1:
        subject = f"{len(kinds)} files are not plain text: {summarize_names(names)}"
    others = "; or leave such files out, as 'data/**/*.txt' does" if len(paths) > len(kinds) else ""
    raise GPT2Error(f"{subject}; {kind.advice}{others}")


def find_kind(path: Path, encoding: str) -> FileKind | None:
    """Return the kind of a file that is not plain text, or None for plain text.

    Raises:
        GPT2Error: The file cannot be read.
    """
    with open_decompressed(path) as (_, data):
        start = data.read(START_BYTES).removeprefix(codecs.BOM_UTF8)  # binary data may follow it as well
    name = path.name.lower().removesuffix(".gz")
    by_content = next((kind for kind in KINDS if kind.matches(start)), None)
    by_name = next((kind for kind in KINDS if name.endswith(kind.extensions)), None)
    if by_name and not by_content:
        return by_name._replace(advice=f"{by_name.advice}; {RENAME_TEXT}")
    return by_content or _find_binary_kind(start, encoding)


def _find_binary_kind(start: bytes, encoding: str) -> FileKind | None:
    """Return a kind for binary data of unknown format, and for UTF-16 that is expected to be UTF-8."""
    if codecs.lookup(encoding).name not in ("utf-8", "utf-8-sig") or start.startswith(tuple(BOM_ENCODINGS)):
        return None
    nulls_at_even, nulls_at_odd = (start[parity::2].count(0) for parity in (0, 1))
    enough = MIN_UTF_16_SHARE * len(start) / 2
    for nulls, other_nulls, name in (
        (nulls_at_odd, nulls_at_even, "utf-16-le"),
        (nulls_at_even, nulls_at_odd, "utf-16-be"),
    ):
        if nulls > max(1, enough) and not other_nulls:
            return FileKind("UTF-16 without a byte-order mark", f"add --encoding {name}")
    count = _count_control(start)
    if count >= MIN_BINARY_BYTES and count > MIN_BINARY_SHARE * len(start):
        return FileKind("binary data", f"{NO_TEXT}, and if this is text, name its encoding with --encoding")
    return None
