"""Tables of prompts: rows with too few or too many cells, unclosed quotes, repeated names, templates, odd values."""

import csv
import dataclasses
import datetime
import decimal
import io
import random

import pytest
from bulk_jobs import cells, run

from gpt2.bulk import source
from gpt2.bulk.rows import InputRecord, RowDefaults, parse_row
from gpt2.bulk.source import PromptSource, SourceProgress, read_records
from gpt2.errors import GPT2Error, UsageError
from gpt2.request import Request


def read(path, file_format="csv", **options):
    return list(read_records(PromptSource(str(path), file_format, **options), SourceProgress()))


@pytest.fixture
def table(tmp_path):
    def write(text):
        (tmp_path / "in.csv").write_text(text, encoding="utf-8", newline="")
        return tmp_path / "in.csv"

    return write


@pytest.mark.parametrize(
    ("text", "row", "count"),
    [
        ("id,prompt\n7\n8,b\n", 0, "1 cell, but the first row has 2: id, prompt"),
        ("id,prompt,extra\n7,a\n8,b,c\n", 0, "2 cells, but the first row has 3: id, prompt, extra"),
        ("prompt,id\na,7\nb\n", 1, "1 cell, but the first row has 2"),
        ("id,prompt\n7,a\n8,b, with a comma\n", 1, "3 cells, but the first row has 2"),
        ("id,prompt\n7,a,\n8,b\n", 0, "3 cells, but the first row has 2"),
        ('id,prompt\n"7\nmore"\n8,b\n', 0, "1 cell, but the first row has 2"),
        ('id,prompt\n""\n8,b\n', 0, "1 cell, but the first row has 2"),
        ("prompt\na\nb,c\n", 1, "2 cells, but the first row has 1"),
    ],
)
def test_a_row_with_too_few_or_too_many_cells(table, text, row, count):
    records = read(table(text))
    assert len(records) == 2 and count in records[row].error and not records[1 - row].error


def test_without_a_header_the_first_row_has_the_number_of_cells(table):
    records = read(table("a\nb, c\nd\n"), header=False)
    assert [record.error[:7] for record in records] == ["", "2 cells", ""]


def test_an_id_never_becomes_a_prompt(native, tmp_path, table, tiny_dir):
    table("id,prompt\n7\n8,the cat\n9,on,mat\n10,the mat\n")
    out = tmp_path / "out.csv"
    assert run(tmp_path / "in.csv", out, f"--model_name={tiny_dir}", "--length=2", "--seed=1", "--threads=1") == 1
    rows = cells(out)
    assert [(row["id"], row["prompt"], bool(row["error"])) for row in rows] == [
        ("7", "", True),
        ("8", "the cat", False),
        ("9", "", True),
        ("10", "the mat", False),
    ]


@pytest.mark.parametrize(
    ("text", "errors", "line"),
    [
        (
            'id,prompt\n1,a\n2,"b\n3,c\n4,d\n',
            ["", "ERROR"],
            "line 3 is never closed, so the row includes all lines up to 5",
        ),
        ('id,prompt\n1,a\n2,"b', ["", "ERROR"], "line 3 is never closed; close it"),
        ('id,prompt\n1,"a\n""b"" c\n",x\n', ["3 cells"], ""),
        ('id,prompt\n"1\n1","a\nb"\n2,c\n"3\n3","d\ne', ["", "", "ERROR"], "line 7 is never closed"),
        ('id,prompt\r\n\r\n1,"a""\r\nb\r\n', ["ERROR"], "line 3 is never closed"),
        ('id,prompt\n1,5" pipe\n2,b\n', ["", ""], ""),
        ('id,prompt\n1," a "\n2,"say ""hi"""\n', ["", ""], ""),
        ('id,prompt\n1,a\n2,"say "hi" now"\n3,c\n', ["", "ERROR", ""], "not csv in line 3:"),
        ('id,prompt\n1,"a\n2,b\n3,"c"\n4,d\n', ["ERROR", ""], "not csv in lines 2 to 4:"),
        ('id,prompt\n1,a\n"', ["", "ERROR"], "line 3 is never closed"),
        ('id,prompt\n1,a\n2,"b\n\n\n', ["", "ERROR"], "line 3 is never closed"),
    ],
)
def test_an_unclosed_quotation_mark(table, text, errors, line):
    records = read(table(text))
    assert len(records) == len(errors)
    for record, error in zip(records, errors):
        assert line in record.error if error == "ERROR" else record.error.startswith(error), record
        assert error or not record.error


def test_an_unclosed_quotation_mark_in_the_first_row(table):
    with pytest.raises(GPT2Error, match="the first row cannot be read: the quotation mark that opens in line 1 is"):
        read(table('id,"prompt\n1,a\n2,b\n'))


def test_an_unclosed_quotation_mark_fails_the_command(native, tmp_path, table, tiny_dir, capsys):
    table('id,prompt\n1,the cat\n2,"sat\n3,on\n4,mat\n')
    out = tmp_path / "out.jsonl"
    assert run(tmp_path / "in.csv", out, f"--model_name={tiny_dir}", "--length=2", "--seed=1", "--threads=1") == 1
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "1 of 2 rows have an error: row 2: the quotation mark that opens in line 3 is never closed" in line


@pytest.mark.parametrize("seed", range(20))
def test_random_tables_are_read_as_python_reads_them(table, seed):
    rng = random.Random(seed)
    rows = [["".join(rng.choices('ab ,"\n\ré', k=rng.randrange(6))) for _ in range(3)] for _ in range(30)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n", quoting=rng.choice([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])).writerows(
        [["x", "y", "z"], *rows]
    )
    records = read(table(text.getvalue()))
    rows = [row for row in csv.reader(io.StringIO(text.getvalue(), newline="")) if row][1:]
    assert [[record.values[name] for name in "xyz"] for record in records if not record.error] == rows


def test_a_cell_of_more_than_16_million_characters(table):
    """The longest cell is in quotes and has commas, line ends and quotes, so that a part of it looks like rows."""
    long = 'a,b\n""c""' * (17 << 20 >> 3)
    records = read(table(f'id,prompt\n1,a\n2,"{long}"\n3,{"x" * (17 << 20)}\n4,d\n'))
    assert [record.values["id"] for record in records] == ["1", "2", "3", "4"]
    assert [bool(record.error) for record in records] == [False, True, True, False]
    assert "more than 16777216 characters" in records[1].error and "lines 3 to" in records[1].error


@pytest.mark.parametrize(
    "header", ["prompt,id,prompt", "id,prompt,prompt", "a,b,c,b,a", '"prompt","prompt"', "é,é", "id,prompt,,,id"]
)
def test_two_columns_of_one_name(table, header):
    name = header.replace('"', "").split(",")[-1]
    with pytest.raises(UsageError, match=f"in.csv has several columns named .*'{name}'.*; rename all but one"):
        read(table(f"{header}\n{header}\n"))


def test_columns_without_names_may_repeat(table):
    assert read(table("prompt,,\na,b,c\n"))[0].values["prompt"] == "a"


def test_two_keys_of_one_name(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"prompt": "a", "prompt": "b"}\n{"a": {"b": 1, "b": 2}}\n{"prompt": "a"}\n')
    errors = [record.error for record in read(tmp_path / "in.jsonl", "jsonl")]
    assert errors == ["not JSON: an object has the key 'prompt' twice", "not JSON: an object has the key 'b' twice", ""]


def test_a_delimiter_of_the_output_does_not_divide_other_formats(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    assert [record.error for record in read(tmp_path / "in.jsonl", "jsonl", delimiter="====")] == ["", ""]


TEMPLATE = RowDefaults(Request(None, 2), template="{name}: {price}")
VALUES = [
    ("text", "text"),
    ("", ""),
    (5, "5"),
    (-0.5, "-0.5"),
    (1e22, "1e+22"),
    (10**30, "1" + "0" * 30),
    (True, "true"),
    (False, "false"),
    (datetime.date(2024, 2, 29), "2024-02-29"),
    (decimal.Decimal("1.10"), "1.10"),
]


@pytest.mark.parametrize(("value", "text"), VALUES)
def test_values_in_a_template(value, text):
    assert parse_row(InputRecord(0, {"name": "cat", "price": value}), TEMPLATE).requests[0].prompt == f"cat: {text}"


@pytest.mark.parametrize(
    "value", [None, [], [1], {}, {"a": 1}, float("nan"), float("inf"), b"bytes", decimal.Decimal("nan")]
)
def test_values_that_a_template_rejects(value):
    parsed = parse_row(InputRecord(0, {"name": "cat", "price": value}), TEMPLATE)
    shown = "null" if value is None else repr(value)
    expected = f"the template takes text, numbers, true or false for 'price', not {shown}"
    assert (parsed.error, parsed.requests) == (expected, ())


@pytest.mark.parametrize("values", [{}, {"name": "cat"}, {"price": 1}, {"Name": "cat", "price": 1}])
def test_a_template_needs_each_of_its_columns(values):
    assert "which the template requires" in parse_row(InputRecord(0, values), TEMPLATE).error


def test_a_row_of_a_table_has_no_settings():
    """So there is no question which spelling of `ignore_eos` counts in a cell."""
    defaults = dataclasses.replace(TEMPLATE, template=None)
    [request] = parse_row(InputRecord(0, {"prompt": "a", "ignore_eos": "no", "length": "x"}), defaults).requests
    assert (request.length, request.end_of_text) == (2, False)


def test_odd_values_in_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    text = pyarrow.array([b"the cat", b"sa\xff", b"mat", b"log"]).cast(pyarrow.binary()).view(pyarrow.string())
    times = pyarrow.array([0, 1, 1500, 2000], pyarrow.timestamp("ns"))
    dates = pyarrow.array([0, 1, 2, 10**12], pyarrow.date64())
    parquet.write_table(pyarrow.table({"prompt": text, "time": times, "date": dates}), tmp_path / "in.parquet")
    records = read(tmp_path / "in.parquet", "parquet")
    assert [record.values["prompt"] for record in records] == ["the cat", None, "mat", "log"]
    assert "the column 'prompt' cannot be read" in records[1].error and not records[0].error


@pytest.mark.parametrize("out", ["out.jsonl", "out.csv", "out.parquet"])
def test_values_of_parquet_as_ids(native, tmp_path, tiny_dir, out):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {
        "time": [datetime.datetime(2024, 1, 2, 3)] * 2,
        "bytes": [b"\xff", b""],
        "decimal": [decimal.Decimal("1.5"), None],
        "list": [[1, None], None],
        "map": [{"a": datetime.date(2024, 1, 2)}, None],
        "float": [float("nan"), 1.5],
    }
    for name, values in columns.items():
        table = {"prompt": pyarrow.array(["the cat", "sat"]), "id": pyarrow.array(values)}
        parquet.write_table(pyarrow.table(table), tmp_path / "in.parquet")
        target = tmp_path / f"{name}-{out}"
        flags = [f"--model_name={tiny_dir}", "--length=2", "--seed=1", "--threads=1"]
        assert run(tmp_path / "in.parquet", target, *flags) == 0, name


def test_repeated_columns_and_no_columns_in_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    array = pyarrow.array(["a"])
    parquet.write_table(pyarrow.table([array, array], names=["prompt", "prompt"]), tmp_path / "in.parquet")
    with pytest.raises(UsageError, match="several columns named 'prompt'"):
        read(tmp_path / "in.parquet", "parquet")
    parquet.write_table(pyarrow.table({}), tmp_path / "in.parquet")
    with pytest.raises(GPT2Error, match="has no columns"):
        read(tmp_path / "in.parquet", "parquet")


@pytest.mark.parametrize("file_format", ["text", "jsonl", "csv"])
def test_a_text_that_is_too_long_is_the_error_of_its_row(tmp_path, monkeypatch, file_format):
    monkeypatch.setattr(source.row_fields, "MAX_ROW_CHARACTERS", 100)
    rows = {"text": "{}", "jsonl": '{{"prompt": "{}"}}', "csv": "{}"}[file_format]
    lines = [rows.format(text) for text in ("a", "x" * 1000, "b", "y" * 99 + '",\n"', "c")]
    (tmp_path / "in").write_text("prompt\n" * (file_format == "csv") + "\n".join(lines[:3]) + "\n")
    errors = [record.error for record in read(tmp_path / "in", file_format)]
    assert [error[:24] for error in errors] == ["", "more than 100 characters", ""]


def test_a_text_that_is_too_long_between_delimiters(tmp_path, monkeypatch):
    monkeypatch.setattr(source.row_fields, "MAX_ROW_CHARACTERS", 100)
    monkeypatch.setattr(source, "CHARACTERS_PER_READ", 7)
    for delimiter in ("|", "====", "\n\n"):
        (tmp_path / "in").write_text(delimiter.join(["a", "x" * 1000, "b" * 99, "y" * 300]))
        errors = [record.error for record in read(tmp_path / "in", "text", delimiter=delimiter)]
        assert errors == ["", "more than 100 characters", "", "more than 100 characters"]
