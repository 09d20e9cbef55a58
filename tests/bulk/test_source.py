"""Files of prompts, row by row."""

import gzip
import io
import sys

import pytest

from gpt2.bulk import source
from gpt2.bulk.source import PromptSource, SourceProgress, read_records
from gpt2.errors import GPT2Error, UsageError


def read(path, file_format="text", **options):
    return list(read_records(PromptSource(str(path), file_format, **options), SourceProgress()))


def prompts(path, file_format="text", **options):
    records = read(path, file_format, **options)
    assert [record.number for record in records] == list(range(len(records)))
    return [record.error or record.values["prompt"] for record in records]


@pytest.fixture
def file(tmp_path):
    def write(data, name="in"):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return write


def test_lines(file):
    assert prompts(file("a\nb c\r\n\n d \ne")) == ["a", "b c", "", " d ", "e"]
    assert prompts(file("\ufeffä\nb\n")) == ["ä", "b"]
    with pytest.warns(UserWarning, match="read as utf-16"):
        assert prompts(file("ä\nb\n".encode("utf-16"))) == ["ä", "b"]
    assert prompts(file(gzip.compress(b"a\nb\n"), "in.gz")) == ["a", "b"]
    assert prompts(file("")) == []


def test_delimiters(file):
    assert prompts(file("a\nb\n====\nc\n====\n"), delimiter="====") == ["a\nb", "c"]
    assert prompts(file("a\nb\r\n====\r\nc"), delimiter="====") == ["a\nb", "c"]
    assert prompts(file("a\nb\n\nc\n\n\nd\n"), delimiter="\n\n") == ["a\nb", "c", "\nd"]
    assert prompts(file("a|b||c"), delimiter="|") == ["a", "b", "", "c"]
    assert prompts(file("ab" * 100000 + "--" + "c"), delimiter="--") == ["ab" * 100000, "c"]


def test_latin_1_is_the_error_of_its_row(file):
    path = file(b"one\ncaf\xe9 au lait\nthree\n")
    assert prompts(path) == [
        "one",
        "not utf-8 at character 3 (byte 0xe9); give the file's encoding with --encoding",
        "three",
    ]
    assert prompts(path, encoding="latin-1")[1] == "café au lait"
    assert "0xe9" in prompts(file(b'{"prompt": "caf\xe9"}\n'), "jsonl")[0]
    assert "0xe9" in prompts(file(b"prompt\ncaf\xe9\n"), "csv")[0]


def test_json_lines(file):
    records = read(file('{"prompt": "a"}\n\n{"prompt"\n[1]\n3\n{"prompt": "b", "n": 2}'), "jsonl")
    assert [record.values for record in records if not record.error] == [{"prompt": "a"}, {"prompt": "b", "n": 2}]
    assert [record.error[:9] for record in records if record.error] == ["not JSON:", "not an ob", "not an ob"]
    assert all(record.has_settings for record in records) and [record.number for record in records] == [0, 1, 2, 3, 4]
    assert "not JSON" in prompts(file("[" * 100000), "jsonl")[0]


def test_a_row_that_is_too_long_does_not_end_the_file(file, monkeypatch):
    monkeypatch.setattr(source.row_fields, "MAX_ROW_CHARACTERS", 100)
    assert prompts(file("a\n" + "x" * 1000 + "\nb\n")) == ["a", "more than 100 characters", "b"]


def test_csv(file):
    path = file('name,price\n"kettle, red",3\n\n"two\nlines",4\nshort\n1,2,3\n')
    records = read(path, "csv")
    assert [record.values["prompt"] for record in records] == ["kettle, red", "two\nlines", "short", "1"]
    assert records[0].values == {"prompt": "kettle, red", "name": "kettle, red", "price": "3"}
    assert [record.error[:35] for record in records] == [
        *("", "", "1 cell, but the first row has 2: na"),
        "3 cells, but the first row has 2: n",
    ]
    assert prompts(file("id,prompt\n7,a\n"), "csv") == ["a"]
    assert prompts(file("a\nb\n"), "csv", header=False) == ["a", "b"]
    with pytest.raises(UsageError, match="has no column 'what'; it has a"):
        read(path, "csv", column="what")


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path, rows = tmp_path / "in.parquet", [{"name": f"item {i}", "price": i} for i in range(1000)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    progress = SourceProgress()
    records = read_records(PromptSource(str(path), "parquet"), progress)
    assert next(records).values == {"prompt": "item 0", **rows[0]} and progress.share() == 0.001
    assert [record.values["price"] for record in records] == list(range(1, 1000)) and progress.share() == 1
    with pytest.raises(UsageError, match="no column 'what'"):
        read(path, "parquet", column="what")
    path.write_bytes(b"PAR1 nothing")
    with pytest.raises(GPT2Error, match="cannot be read"):
        read(path, "parquet")


def test_stdin(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\n")))
    assert prompts("-") == ["a", "b"]


def test_a_growing_input_is_read_to_its_last_complete_row(file):
    path = file("a\nb\n")
    records = read_records(PromptSource(str(path), "text"), SourceProgress())
    assert next(records).values == {"prompt": "a"}
    with path.open("a") as file_to_grow:
        file_to_grow.write("c\nhalf a li")
    with pytest.warns(UserWarning, match="has grown while it was read") as warned:
        assert [record.values["prompt"] for record in records] == ["b", "c"]
    assert len(warned) == 1


def test_invalid_sources(tmp_path):
    with pytest.raises(GPT2Error, match="No such file"):
        source.check_source(PromptSource(str(tmp_path / "none"), "text"))
    with pytest.raises(UsageError, match="Parquet is read from files"):
        source.check_source(PromptSource("-", "parquet"))
    with pytest.raises(UsageError, match="delimiter"):
        source.check_source(PromptSource("-", "text", ""))
