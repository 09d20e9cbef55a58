"""Text files of any kind and size become documents, and the parts of a document have the ids of the whole."""

import errno
import gzip
import os
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpt2.data import csv_table, documents
from gpt2.encoder import compiled_safe_cut_pattern
from gpt2.errors import GPT2Error, UsageError

ODD = st.text(st.sampled_from(" \n\t\r\x0b\x1c\x1f\x85\xa0'sStrvelm09²½aéß\u0301你。🦄\u3000\u200b!-"), max_size=30)
NASTY = "don't  stop\n\n \tnow, she'll've 12's 9½ été e\u0301t\u0301 你好。世界 🦄🦄  !!x\u3000y\x1c\xa0z 'S'" * 3


def read_whole(paths, **options):
    """Return the whole documents."""
    documents_read, pending = [], ""
    for part in documents.read(paths, **options):
        pending += part.text
        if part.last:
            documents_read.append(pending)
            pending = ""
    assert pending == ""
    return documents_read


@pytest.fixture
def write(tmp_path):
    """Return a function: write(name, content) -> path."""

    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write


@settings(max_examples=300, deadline=None)
@given(ODD | st.text(max_size=30))
def test_ids_do_not_change_when_a_text_is_cut_at_a_safe_cut(encoder, text):
    for match in compiled_safe_cut_pattern().finditer(text):
        assert encoder.encode(text[: match.start()]) + encoder.encode(text[match.start() :]) == encoder.encode(text)


@pytest.mark.parametrize("size", [11, 16, 40, 1000])
def test_parts_have_the_ids_of_the_whole(encoder, size):
    parts = list(documents.split_document(documents.slice_text(NASTY, size), size))
    assert "".join(part for part, _ in parts) == NASTY
    assert [i for part, _ in parts for i in encoder.encode(part)] == encoder.encode(NASTY)
    assert [last for _, last in parts] == [False] * (len(parts) - 1) + [True]
    assert max(len(part) for part, _ in parts) < 3 * size


@settings(max_examples=200, deadline=None)
@given(ODD, st.integers(1, 9))
@example("x" * 40, 4)
@example("xxxx", 2)
def test_parts_add_up_to_the_text_and_are_bounded(text, size):
    parts = list(documents.split_document(documents.slice_text(text, size), size))
    assert "".join(part for part, _ in parts) == text
    assert all(len(part) < 3 * size for part, _ in parts)
    assert [last for _, last in parts] == [False] * (len(parts) - 1) + [True] * bool(text)


def test_find_text_files(write, tmp_path, monkeypatch):
    b, a, c = write("b.txt", "b"), write("a.txt", "a"), write("deep/er/c.txt", "c")
    write(".hidden", "h")
    write(".git/config", "h")
    assert documents.find_text_files(str(tmp_path)) == [a, b, c]
    assert documents.find_text_files(str(b)) == [b]
    assert documents.find_text_files(f"{tmp_path}/*.txt") == [a, b]
    assert documents.find_text_files(f"{tmp_path}/**/*.txt") == [a, b, c]
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DATA", "deep")
    assert documents.find_text_files("~/$DATA") == [c]


def test_a_file_whose_name_looks_like_a_pattern(write):
    path = write("a[1].txt", "a")
    assert documents.find_text_files(str(path)) == [path]


@pytest.mark.parametrize("path", ["", "nosuch", "nosuch/*.txt"])
def test_a_path_that_matches_nothing(path):
    with pytest.raises(GPT2Error, match=re.escape(f"'{path}' is neither a file nor a folder, nor a pattern")):
        documents.find_text_files(path)


def test_files_that_are_not_regular_are_skipped_with_a_warning(write, tmp_path):
    """A pipe would block, a dead link would be an error, and a link to a parent folder would form a circle."""
    a, b = write("data/a.txt", "a"), write("data/deep/b.txt", "b")
    data = tmp_path / "data"
    os.mkfifo(data / "pipe.txt")
    (data / "link.txt").symlink_to("nowhere")
    (data / "self.txt").symlink_to("self.txt")
    for name in ("round", "and_round"):
        (data / "deep" / name).symlink_to(data)
    for path, skipped in (
        (data, "and_round (a link to a folder), .*round (a link to a folder), .*link.txt (a dead link to nowhere)"),
        (f"{data}/**/*.txt", "and_round (a link to a folder), .*round (a link to a folder), .*link.txt (a dead link"),
        (f"{data}/*", "link.txt (a dead link to nowhere), .*pipe.txt (a pipe), .*self.txt (a dead link to self.txt)"),
    ):
        with pytest.warns(UserWarning) as warned:
            assert documents.find_text_files(str(path)) == ([a] if str(path).endswith("/*") else [a, b])
        (message,) = [str(warning.message) for warning in warned]
        assert re.match(
            "skipped, because they are not regular files: .*" + skipped.replace("(", r"\(").replace(")", r"\)"),
            message,
        )
        assert message.endswith(" and 2 more") != str(path).endswith("/*")


def test_two_stars_stand_for_any_folders(write, tmp_path, monkeypatch):
    a, b, c = write("a.txt", "a"), write("x/b.txt", "b"), write("x/y[1]/z/c.txt", "c")
    write("x/.hidden/d.txt", "d")
    monkeypatch.chdir(tmp_path)
    for pattern, expected in (
        ("**", [a, b, c]),
        ("**/*.txt", [a, b, c]),
        ("x/**", [b, c]),
        ("**/z/**/*.txt", [c]),
        ("**/[a-b]*", [a, b]),
        ("?/**/z/*", [c]),
        ("x/**//c.txt", [c]),
        ("**.txt", [a]),
    ):
        assert documents.find_text_files(pattern) == [path.relative_to(tmp_path) for path in expected], pattern
        assert documents.find_text_files(f"{tmp_path}/{pattern}") == expected, pattern


@pytest.mark.parametrize("kind", ["pipe", "device", "dead link"])
def test_a_given_path_must_be_a_regular_file(tmp_path, kind):
    path = tmp_path / "a.txt"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "nowhere")
    with pytest.raises(GPT2Error, match=f"a.txt is a {kind}[^\n]*, not a regular file; give a file or a folder"):
        documents.find_text_files(str(path))


def test_unreadable_files_are_named(write, tmp_path, monkeypatch):
    """Skipping them silently would change the text; they are named before any work starts."""
    path, deep = write("a.txt", "a"), write("deep/b.txt", "b").parent
    scan = os.scandir

    def scandir(folder):
        if str(folder) == str(deep):
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    for pattern in (str(tmp_path), f"{tmp_path}/**/*.txt"):
        with pytest.raises(GPT2Error, match="the folder .*deep cannot be read: Permission denied"):
            documents.find_text_files(pattern)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(
        GPT2Error, match="no permission to read: .*a.txt; change the permissions, or leave these files out"
    ):
        documents.find_text_files(str(path))


def test_names_of_any_bytes_are_printed_in_one_line(tmp_path):
    for name in (b"a\nb.txt", b"\xff.txt"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.write_bytes(b"\xff")
        with pytest.warns(UserWarning) as warned:
            assert read_whole(documents.find_text_files(str(tmp_path / "*.txt"))) == ["\ufffd"]
        assert str(warned[0].message).isprintable()
        path.unlink()


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.txt.gz"])
@pytest.mark.filterwarnings("ignore:NUL")
def test_files_that_shrink_or_grow_while_they_are_read(write, monkeypatch, name):
    monkeypatch.setattr(documents, "PART_CHARACTERS", 100)
    content = b"text\n" + "".join(f"line {i}\n" for i in range(20_000)).encode()
    content = gzip.compress(content) if name.endswith(".gz") else content
    for size in (len(content) // 2, 2 * len(content)):
        path = write(name, content)
        parts = documents.read([path])
        next(parts)
        os.truncate(path, size)
        if name.endswith(".gz") and size < len(content):
            with pytest.raises(GPT2Error, match="a.txt.gz cannot be read: Compressed file ended"):
                list(parts)
        else:
            assert len(list(parts)) > 500


def test_a_file_that_disappears_is_named(write):
    path = write("a.txt", "a")
    (file,) = documents.find_text_files(str(path))
    path.unlink()
    assert documents.total_size([file]) == 0
    with pytest.raises(GPT2Error, match="a.txt cannot be read: No such file"):
        read_whole([file])


def test_an_empty_folder(tmp_path):
    with pytest.raises(GPT2Error, match="the folder .* holds no files"):
        documents.find_text_files(str(tmp_path))


def test_a_file_is_a_document(write):
    assert read_whole([write("a", "one\ntwo\n"), write("b.txt", ""), write("c.txt", "three")]) == [
        "one\ntwo\n",
        "three",
    ]


@pytest.mark.parametrize("part", [3, 1 << 20])
def test_csv_rows_are_documents(write, monkeypatch, part):
    monkeypatch.setattr(documents, "PART_CHARACTERS", part)
    path = write("a.CSV", 'text,by\n"one, ""1""",x\n\n,y\n   \n"two\r\nlines",z\nthree,')
    assert read_whole([path]) == ['one, "1"', "two\nlines", "three"]
    assert read_whole([path], csv_format=documents.CsvFormat(column="by")) == ["x", "y", "z"]
    without_header = documents.CsvFormat(header=False, column="column1")
    assert read_whole([path], csv_format=without_header) == ["text", 'one, "1"', "two\nlines", "three"]


def test_a_csv_with_only_a_header(write):
    assert read_whole([write("a.csv", "text\n")]) == []


def test_files_that_are_not_csv(write, monkeypatch):
    monkeypatch.setattr(csv_table, "MAX_ROW_CHARACTERS", 20)
    for content in ('"never\nclosed\nand\nso\nit\ngoes\non', "x" * 30, '"a\n",' * 30):
        with pytest.raises(GPT2Error, match="a.csv cannot be read: line 1: a row has more than 20 characters: a quot"):
            read_whole([write("a.csv", content)])
    assert read_whole([write("a.csv", "text\n" + "short rows\n" * 30)]) == ["short rows"] * 30


def test_gzip(write):
    paths = [
        write("a.txt.gz", gzip.compress(b"one\r\n")),
        write("b.csv.gz", gzip.compress(b"text,by\ntwo,x\nthree,y\n")),
    ]
    assert read_whole(paths) == ["one\n", "two", "three"]


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-20], lambda data: b"plain text", lambda data: data[:30] + b"\0" * 30]
)
def test_damaged_gzip(write, damage):
    data = gzip.compress(bytes(range(256)) * 9)
    with pytest.raises(GPT2Error, match="a.txt.gz cannot be read: "):
        read_whole([write("a.txt.gz", damage(data))], encoding="latin-1")


def test_line_ends_and_byte_order_marks(write):
    assert read_whole([write("a", b"\xef\xbb\xbfone\r\ntwo\rthree\n\xef\xbb\xbf")]) == ["one\ntwo\nthree\n\ufeff"]
    assert read_whole([write("b", "é\r\n".encode("utf-16"))], encoding="utf-16") == ["é\n"]
    assert read_whole([write("c", b"\xe9")], encoding="latin-1") == ["é"]


def test_undecodable_bytes_are_replaced_and_counted_once(write):
    paths = [write("a", b"caf\xe9 \xff"), write("fine", "a"), write("b.csv", b"text,by\n\xff,x\n")]
    with pytest.warns(UserWarning) as warned:
        assert read_whole(paths) == ["caf\ufffd \ufffd", "a", "\ufffd"]
    assert [str(w.message) for w in warned] == [f"3 bytes of {paths[0]}, {paths[2]} are not utf-8; read as U+FFFD"]
    with pytest.warns(UserWarning, match=r"5 bytes of \S+, \S+, \S+ and 2 more are not utf-8"):
        read_whole([write(f"{i}", b"\xff") for i in range(5)])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.txt.gz", "a.csv.gz"])
def test_byte_order_marks_select_the_encoding(write, name, encoding):
    text = "text,by\r\nhéllo,x\r\n" if "csv" in name else "héllo\r\n"
    data = f"\ufeff{text}".encode(encoding) if encoding[-2:] in ("le", "be") else text.encode(encoding)
    path = write(name, gzip.compress(data) if name.endswith(".gz") else data)
    with pytest.warns(UserWarning, match=f"^read as {encoding[:6]}, as the byte-order mark says: {path}$"):
        assert read_whole([path]) == ["héllo" if "csv" in name else "héllo\n"]


def test_undecodable_bytes_after_a_byte_order_mark_are_counted_with_its_encoding(write):
    paths = [write("a", "é".encode("utf-16") + b"\x00\xd8"), write("b", b"\xef\xbb\xbf\xff")]
    with pytest.warns(UserWarning) as warned:
        assert read_whole(paths) == ["é\ufffd", "\ufffd"]
    assert [str(w.message) for w in warned] == [
        f"2 bytes of {paths[0]} are not utf-16; read as U+FFFD",
        f"1 bytes of {paths[1]} are not utf-8; read as U+FFFD",
        f"read as utf-16, as the byte-order mark says: {paths[0]}",
    ]


def test_a_given_encoding_takes_precedence(write):
    assert read_whole([write("a", b"\xff\xfeA")], encoding="latin-1") == ["ÿþA"]


def test_utf_16_without_a_byte_order_mark_gives_a_warning(write):
    with pytest.warns(UserWarning, match="NUL characters, as in binary files, or in UTF-16 without .*: .*a.txt$"):
        read_whole([write("a.txt", "abc".encode("utf-16-le")), write("b.txt", "abc")])


@pytest.mark.parametrize("encoding", ["klingon", "", "base64", "idna"])
def test_unknown_encodings_are_rejected(write, encoding):
    with pytest.raises(UsageError, match=f"encoding must be one that Python knows, such as utf-8, not '{encoding}'"):
        read_whole([write("a", "a")], encoding=encoding)


def test_files_of_ids_are_rejected(write):
    with pytest.raises(GPT2Error, match="a.npy holds ids, not text"):
        documents.check_files([write("a.npy", "a")])


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.txt.gz"])
def test_sizes_add_up_to_the_size_of_the_files(write, monkeypatch, name):
    monkeypatch.setattr(documents, "PART_CHARACTERS", 100)
    content = b"text\n" + b"some words\n" * 3000
    path = write(name, gzip.compress(content) if name.endswith(".gz") else content)
    parts = list(documents.read([path, path]))
    assert len(parts) > 100
    assert sum(part.size for part in parts) == 2 * path.stat().st_size == documents.total_size([path, path])
