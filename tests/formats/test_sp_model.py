"""Damaged SentencePiece files: each gives a one-line error and never crashes the process."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_lm

from gpt2.errors import DamagedFileError, GPT2Error, UnreadableFileError
from gpt2.formats import model_dir, vocabularies
from gpt2.formats.sentencepiece.sp_model import read

SRC = Path(__file__).resolve().parents[2] / "src"
TEXTS = [tiny_lm.TEXT, "ﬁ…中文 \u3000 ½ ü\u0308 \0 \x7f\n", "x" * 300]
TIMEOUT_SECONDS = 300


def test_a_vocabulary_in_a_folder_or_by_its_path(sp_model, tmp_path):
    (tmp_path / "folder").mkdir()
    content = sp_model.read_bytes()
    (tmp_path / "folder/sp.model").write_bytes(content)
    loaded = [model_dir.find_vocabulary(str(path)) for path in (sp_model, tmp_path / "folder")]
    assert loaded[0].files() == loaded[1].files() == {"sp.model": content}
    assert vocabularies.has_vocabulary(sp_model) and not vocabularies.has_vocabulary(tmp_path)


def damaged(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    match rng.randrange(6):
        case 0:  # a few bits anywhere
            for _ in range(rng.choice([1, 1, 3, 30])):
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        case 1:  # in the table of characters, which is most of the file
            start = rng.randrange(len(changed) // 2, len(changed) - 8)
            changed[start : start + 4] = rng.randbytes(4)
        case 2:
            del changed[rng.randrange(len(changed)) :]
        case 3:
            start = rng.randrange(len(changed))
            del changed[start : start + rng.choice([1, 2, 4, 100])]
        case 4:
            index = rng.randrange(min(len(changed), 3000))  # in the pieces
            changed[index] = rng.randrange(256)
        case 5:
            index = rng.randrange(len(changed))
            changed[index:index] = rng.randbytes(rng.choice([1, 4, 50]))
    return bytes(changed)


def error_of(path: Path) -> str:
    """Use a vocabulary, and return the name of the error's class, or an empty string if there is none."""
    try:
        vocabulary = read(path)
        for text in TEXTS:
            vocabulary.decode(vocabulary.encode(text))
        for token in range(vocabulary.n_vocab):
            vocabulary.token_text(token)
    except GPT2Error as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error), error
        return error.__class__.__name__
    return ""


def try_all(path: str, out: str, first: int, count: int) -> None:
    """Try `count` kinds of damage; run in a separate process."""
    content, file = Path(path).read_bytes(), Path(out)
    errors = []
    for seed in range(first, first + count):
        file.write_bytes(damaged(content, random.Random(seed)))
        errors.append(error_of(file))
    print(errors.count(""), errors.count("DamagedFileError"), len(errors))


def run(sp_model, tmp_path, first, count):
    code = f"import test_sp_model as t; t.try_all({str(sp_model)!r}, {str(tmp_path / 'sp.model')!r}, {first}, {count})"
    paths = [str(SRC), str(Path(__file__).parent), str(Path(__file__).parents[1] / "helpers")]
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths}; {code}"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )


def test_damage(sp_model, tmp_path):
    result = run(sp_model, tmp_path, 0, 100)
    assert result.returncode == 0 and result.stderr == "", result
    good, bad, count = map(int, result.stdout.split())
    assert good + bad == count == 100 and bad > 30


@pytest.mark.slow
def test_much_damage(sp_model, tmp_path):
    result = run(sp_model, tmp_path, 100, 2000)
    assert result.returncode == 0 and result.stderr == "", result


def field(number: int, content: bytes) -> bytes:
    """Return a field of a protocol buffer that holds bytes."""
    size = len(content)
    groups = []
    while size > 127:
        groups.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *groups, size]) + content


@pytest.mark.parametrize(
    "charsmap, message",
    [
        (b"\4\0\0\0", "cut off"),
        (b"\xff\xff\xff\x7f" + bytes(2000), "cut off"),
        (b"\2\4\0\0" + bytes(1030), "cut off"),
        (b"\0\4\0\0" + b"\0\xfc\xff\x0f" * 256 + b"a\0", "points beyond its end"),
        (b"\0\4\0\0" + b"\0\1\0\0" + b"\xff\xff\0\x80" * 255 + b"a\0", "refers to texts beyond its end"),
        (b"\0\4\0\0" + bytes(1024) + b"a", "cut off"),
    ],
)
def test_wrong_offsets_in_tables_of_characters_are_rejected(sp_model, tmp_path, charsmap, message):
    for number in (3, 5):  # the normalizer and the denormalizer
        path = tmp_path / "sp.model"
        path.write_bytes(sp_model.read_bytes() + field(number, field(2, charsmap)))
        with pytest.raises(
            DamagedFileError, match=f"sp.model is damaged: the table of its normalizer .*{message}; delete it and"
        ):
            read(path)


@pytest.mark.parametrize("content", [b"", b"not a vocabulary", b"{}", b"\x0a\x03\x0a\x01a", b"\x0a" * 1000])
def test_other_files_are_rejected(tmp_path, content):
    pytest.importorskip("sentencepiece")
    path = tmp_path / "sp.model"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError):
        read(path)


def test_an_unreadable_path(tmp_path):
    pytest.importorskip("sentencepiece")
    with pytest.raises(UnreadableFileError, match="cannot be read: Is a directory"):
        read(tmp_path)
