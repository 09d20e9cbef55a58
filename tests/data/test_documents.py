"""Text files of any kind and size as documents, whose parts have the ids of the whole."""

import gzip
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpt2.data import documents
from gpt2.errors import GPT2Error, UsageError

ODD = st.text(st.sampled_from(" \n\t\r\x0b\x1c\x1f\x85\xa0'sStrvelm09²½aéß\u0301你。🦄\u3000\u200b!-"), max_size=30)
NASTY = "don't  stop\n\n \tnow, she'll've 12's 9½ été e\u0301t\u0301 你好。世界 🦄🦄  !!x\u3000y\x1c\xa0z 'S'" * 3


def texts(paths, **options):
    """The documents, whole."""
    whole, held = [], ""
    for part in documents.read(paths, **options):
        held += part.text
        if part.last:
            whole.append(held)
            held = ""
    assert held == ""
    return whole


@pytest.fixture
def write(tmp_path):
    """write(name, content) -> path"""

    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write


@settings(max_examples=300, deadline=None)
@given(ODD | st.text(max_size=30))
def test_a_text_may_be_cut_at_every_boundary(encoder, text):
    for match in documents.last_boundary().finditer(text):
        assert encoder.encode(text[: match.start()]) + encoder.encode(text[match.start() :]) == encoder.encode(text)


@pytest.mark.parametrize("size", [11, 16, 40, 1000])
def test_parts_have_the_ids_of_the_whole(encoder, size):
    parts = list(documents.cut(documents.sliced(NASTY, size), size))
    assert "".join(part for part, _ in parts) == NASTY
    assert [i for part, _ in parts for i in encoder.encode(part)] == encoder.encode(NASTY)
    assert [last for _, last in parts] == [False] * (len(parts) - 1) + [True]
    assert max(len(part) for part, _ in parts) < 3 * size


@settings(max_examples=200, deadline=None)
@given(ODD, st.integers(1, 9))
@example("x" * 40, 4)
@example("xxxx", 2)
def test_parts_are_the_text_and_bounded(text, size):
    parts = list(documents.cut(documents.sliced(text, size), size))
    assert "".join(part for part, _ in parts) == text
    assert all(len(part) < 3 * size for part, _ in parts)
    assert [last for _, last in parts] == [False] * (len(parts) - 1) + [True] * bool(text)


def test_find(write, tmp_path, monkeypatch):
    b, a, c = write("b.txt", "b"), write("a.txt", "a"), write("deep/er/c.txt", "c")
    write(".hidden", "h")
    write(".git/config", "h")
    assert documents.find(str(tmp_path)) == [a, b, c]
    assert documents.find(str(b)) == [b]
    assert documents.find(f"{tmp_path}/*.txt") == [a, b]
    assert documents.find(f"{tmp_path}/**/*.txt") == [a, b, c]
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DATA", "deep")
    assert documents.find("~/$DATA") == [c]


def test_a_file_whose_name_looks_like_a_pattern(write):
    path = write("a[1].txt", "a")
    assert documents.find(str(path)) == [path]


@pytest.mark.parametrize("path", ["", "nosuch", "nosuch/*.txt"])
def test_nothing_found(path):
    with pytest.raises(GPT2Error, match=re.escape(f"'{path}' is neither a file nor a folder, nor a pattern")):
        documents.find(path)


def test_an_empty_folder(tmp_path):
    with pytest.raises(GPT2Error, match="the folder .* holds no files"):
        documents.find(str(tmp_path))


def test_a_file_is_a_document(write):
    assert texts([write("a", "one\ntwo\n"), write("b.txt", ""), write("c.txt", "three")]) == ["one\ntwo\n", "three"]


@pytest.mark.parametrize("part", [3, 1 << 20])
def test_csv_rows_are_documents(write, monkeypatch, part):
    monkeypatch.setattr(documents, "PART", part)
    path = write("a.CSV", 'text,by\n"one, ""1""",x\n\n,y\n   \n"two\r\nlines",z\nthree')
    assert texts([path]) == ["text", 'one, "1"', "two\nlines", "three"]
    assert texts([path], rows=documents.Csv(header=True)) == ['one, "1"', "two\nlines", "three"]


def test_a_header_alone(write):
    assert texts([write("a.csv", "text\n")], rows=documents.Csv(header=True)) == []


def test_csv_that_is_none(write, monkeypatch):
    monkeypatch.setattr(documents, "ROW_LIMIT", 20)
    with pytest.raises(GPT2Error, match="a.csv cannot be read: field larger than field limit"):
        texts([write("a.csv", '"never\nclosed\nand\nso\nit\ngoes\non')])
    with pytest.raises(GPT2Error, match="a line of more than 20 characters is not CSV"):
        texts([write("a.csv", "x" * 30)])


def test_gzip(write):
    paths = [write("a.txt.gz", gzip.compress(b"one\r\n")), write("b.csv.gz", gzip.compress(b"two,x\nthree\n"))]
    assert texts(paths) == ["one\n", "two", "three"]


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-20], lambda data: b"plain text", lambda data: data[:30] + b"\0" * 30]
)
def test_damaged_gzip(write, damage):
    data = gzip.compress(bytes(range(256)) * 9)
    with pytest.raises(GPT2Error, match="a.txt.gz cannot be read: "):
        texts([write("a.txt.gz", damage(data))], encoding="latin-1")


def test_line_ends_and_byte_order_marks(write):
    assert texts([write("a", b"\xef\xbb\xbfone\r\ntwo\rthree\n\xef\xbb\xbf")]) == ["one\ntwo\nthree\n\ufeff"]
    assert texts([write("b", "é\r\n".encode("utf-16"))], encoding="utf-16") == ["é\n"]
    assert texts([write("c", b"\xe9")], encoding="latin-1") == ["é"]


def test_undecodable_bytes_are_replaced_and_counted_once(write):
    paths = [write("a", b"caf\xe9 \xff"), write("b.csv", b"\xff,x\n")]
    with pytest.warns(UserWarning) as warned:
        assert texts(paths) == ["caf\ufffd \ufffd", "\ufffd"]
    assert [str(w.message) for w in warned] == ["3 bytes of the text are not utf-8; read as U+FFFD"]


@pytest.mark.parametrize("encoding", ["klingon", "", "base64", "idna"])
def test_unknown_encodings(write, encoding):
    with pytest.raises(UsageError, match=f"encoding must be one that Python knows, such as utf-8, not '{encoding}'"):
        texts([write("a", "a")], encoding=encoding)


def test_ids_are_not_text(write):
    with pytest.raises(GPT2Error, match="a.npy holds ids, not text"):
        texts([write("a.npy", "a")])


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.txt.gz"])
def test_sizes_add_up_to_the_files(write, monkeypatch, name):
    monkeypatch.setattr(documents, "PART", 100)
    content = b"some words\n" * 3000
    path = write(name, gzip.compress(content) if name.endswith(".gz") else content)
    parts = list(documents.read([path, path]))
    assert len(parts) > 100
    assert sum(part.size for part in parts) == 2 * path.stat().st_size == documents.total_size([path, path])
