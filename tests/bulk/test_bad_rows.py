"""Rows with any kind of bad value: each becomes an error of its row, in every format, and stops no other row."""

import csv
import json

import pytest
from bulk_jobs import cells, content, entries, run

from gpt2.bulk import output
from gpt2.bulk.batch_worker import BatchWorker, FinishedRow, GeneratedText
from gpt2.bulk.rows import InputRecord, JobRow, RowDefaults, parse_row
from gpt2.request import Request

DIGITS_400 = "1" + "0" * 400
DIGITS_5000 = "9" * 5000
DEEP = "[" * 300 + "]" * 300
INTEGERS = [
    '"5"',
    '""',
    "true",
    "false",
    "2.5",
    "[5]",
    "[]",
    "{}",
    '{"a": 1}',
    "-1",
    "-" + DIGITS_400,
    DIGITS_5000,
    "1e400",
]
NUMBERS = ['"1"', '"hot"', "true", "[1]", "{}", DIGITS_400, "-" + DIGITS_400, DIGITS_5000, "1e400", "NaN", "-Infinity"]
BOOLEANS = ['"no"', '"true"', '""', "0", "1", "1.0", "[]", "{}", DIGITS_400]
# For each field of a row of JSON lines, values that it cannot have, as they are in the file.
BAD_VALUES = {
    "length": [*INTEGERS, DIGITS_400, str(2**31)],
    "max_tokens": [*INTEGERS, DIGITS_400],
    "top_k": INTEGERS,
    "logprobs": INTEGERS,
    "n": [*INTEGERS, "0", DIGITS_400],
    "sample": INTEGERS,
    "seed": [*(value for value in INTEGERS if value != "-1"), DIGITS_400, str(2**64)],
    **dict.fromkeys(
        ["temperature", "top_p", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty"], NUMBERS
    ),
    "stop": ["5", "true", "[5]", "[null]", "{}", '{"a": 1}', '""', '[""]', '[["a"]]', DIGITS_400],
    "ignore_eos": BOOLEANS,
    "logit_bias": [
        *("5", "[1]", "[]", '"1"', "true", '{"1": "5"}', '{"1": true}', '{"1": null}', '{"1": [1]}', '{"x": 1}'),
        *('{"": 1}', '{"-1": 1}', '{"1.5": 1}', '{"\\u0661": 1}', '{"100000": 1}', f'{{"1": {DIGITS_400}}}'),
        *(f'{{"{DIGITS_400}": 1}}', f'{{"{DIGITS_5000}": 1}}', '{"1": 1e400}', '{"1": NaN}', '{"1": 1, "1": 2}'),
    ],
    "prompt": [
        *("5", "true", "2.5", "{}", '""', "[]", "[true]", '[1, "a"]', '["a", 5]', "[1.5]", "[-1]", "[[]]", DEEP),
        *(f"[{DIGITS_400}]", f"[{DIGITS_5000}]", "[100000]", '"\\ud800"', '["a", "\\udc00"]', '"' + "cat " * 40 + '"'),
    ],
    **dict.fromkeys(["echo", "stream"], ["true", '"no"', '"false"', "0", "[]"]),
    "best_of": ["true", '"1"', "1.0", "2", "[]"],
    "suffix": ['"x"', "5", "false", "[]"],
    "messages": ['[{"role": "user"}]', '"a"', "0", "{}"],
}
CASES = [(key, value) for key, values in BAD_VALUES.items() for value in values]
GOOD = '{"prompt": "the mat", "length": 2}'


def line(key, value):
    fields = {"prompt": '"the cat"', "max_tokens" if key == "max_tokens" else "length": "2", key: value}
    return "{" + ", ".join(f'"{name}": {field}' for name, field in fields.items()) + "}"


@pytest.fixture
def job(native, tmp_path, tiny_dir, monkeypatch):
    """Return a function that runs the command with the tiny model, and checks that it reports errors in one line."""
    monkeypatch.chdir(tmp_path)

    def run_job(prompts, out, *flags, status=1):
        assert run(prompts, out, f"--model_name={tiny_dir}", "--threads=1", "--seed=1", *flags) == status
        return read(tmp_path / out)

    return run_job


def read(path):
    """Return the rows of an output, each with its id and text or error, in the order of their numbers."""
    if not path.exists():
        return []
    if path.suffix == ".txt":
        return path.read_text(encoding="utf-8").splitlines()
    if path.suffix == ".jsonl":
        return sorted(entries(path), key=lambda entry: str(entry["id"]).zfill(9))
    return content(path) if path.is_dir() else cells(path)


@pytest.mark.parametrize("out", ["out.jsonl", "out.csv", "out.parquet"])
def test_each_bad_value_is_an_error_of_its_row(job, tmp_path, out, capsys):
    if out.endswith("parquet"):
        pytest.importorskip("pyarrow")
    lines = [each for key, value in CASES for each in (line(key, value), GOOD)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    rows = job("in.jsonl", out)
    errors = capsys.readouterr().err
    [last] = [error for error in errors.splitlines() if error.startswith("error: ")]
    assert last.startswith(f"error: {len(CASES)} of {2 * len(CASES)} rows have an error") and "Traceback" not in errors
    assert len(rows) == 2 * len(CASES)
    for (key, value), bad, good in zip(CASES, rows[::2], rows[1::2]):
        assert bad["error"] and not bad.get("text"), (key, value)
        assert "unexpected" not in bad["error"] and len(bad["error"]) < 400, (key, bad["error"])
        assert good["text"] and not good.get("error"), (key, value)


def test_the_error_of_a_bad_value_names_its_field():
    for key, value in CASES:
        try:
            values = json.loads(line(key, value))
        except ValueError:
            continue
        error = parse_row(InputRecord(0, values, True), RowDefaults(Request(None, 2))).error
        assert (
            key in error
            or "length must be below" in error
            or "100000" in value
            or "cat cat" in value
            or '"1": 2' in value
        ), (key, value, error)


IDS = [
    *('"\\ud800"', '"a\\udfff b"', '["\\ud800"]', '{"\\udc00": 1}', '"a\\u0000b"', '"a\\nb\\r\\n"', '""', '"é日本"'),
    *("true", "null", "[]", '{"a": [1, null]}', "2.5", "NaN", "-Infinity", "1e400", DIGITS_400, str(2**70), DEEP),
    *("[NaN]", '"' + "x" * 70000 + '"'),
]


@pytest.mark.parametrize("out", ["out.jsonl", "out.csv", "out.parquet"])
@pytest.mark.parametrize("worker_flags", [(), pytest.param(("--processes=2",), marks=pytest.mark.slow)])
def test_any_json_value_may_be_an_id(job, tmp_path, out, worker_flags):
    if out.endswith("parquet"):
        pytest.importorskip("pyarrow")
    lines = [f'{{"id": {value}, "prompt": "the cat", "length": 2}}' for value in IDS]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    job("in.jsonl", out, "--ignore_eos", *worker_flags, status=0)
    rows = content(tmp_path / out) if out.endswith("parquet") else read_any(tmp_path / out)
    assert len(rows) == len(IDS) and all(row["text"] for row in rows)
    ids = [row["id"] for row in rows]
    if out.endswith("jsonl"):
        for value in (
            json.loads(value) for value in IDS if value not in ("null", "NaN", "-Infinity", "1e400", "[NaN]")
        ):
            assert value in ids
        assert 9 in ids, "null counts as no id"
        assert {"nan", "-inf", "inf", "[nan]"} <= {each for each in ids if isinstance(each, str)}


def read_any(path):
    if path.suffix == ".csv":
        return cells(path)

    def reject(constant):
        raise AssertionError(f"{constant} is not JSON")

    return [json.loads(each, parse_constant=reject) for each in path.read_text(encoding="utf-8").splitlines()]


def test_carriage_returns_in_the_output(tmp_path):
    """A reader of csv must not take them for the end of a row."""
    row = FinishedRow(JobRow(0, "a\rb", (Request("x", 1),)), [GeneratedText("c\r", "length", 1, 1)])
    (tmp_path / "out.csv").write_bytes(output.file_formats.row_format("csv", "tiny", None).encode(row))
    with (tmp_path / "out.csv").open(newline="") as file:
        assert [cells[:4] for cells in csv.reader(file)] == [["a\rb", "0", "x", "c\r"]]


def failing(*_, **__):
    raise RuntimeError("nobody expected this")


@pytest.mark.parametrize(
    "method", ["_encode", "_join_chunks"], ids=["while a prompt is encoded", "while texts are joined"]
)
@pytest.mark.parametrize("out", ["out.jsonl", "out.csv", "out.txt", "out.parquet"])
def test_an_unexpected_exception_in_the_worker(job, tmp_path, monkeypatch, method, out):
    """An exception of one row is its error; its other texts end, and other rows continue."""
    (tmp_path / "in.txt").write_text("the cat\nsat on\nthe mat\n")
    original = getattr(BatchWorker, method)
    calls = []

    def fail_once(worker, *arguments):
        calls.append(arguments)
        return failing() if len(calls) == 2 else original(worker, *arguments)

    monkeypatch.setattr(BatchWorker, method, fail_once)
    rows = job("in.txt", out, "--length=2", "--n=2", "--batch_size=2")
    if out != "out.txt":
        errors = [row["error"] for row in rows if row.get("error")]
        assert errors == ["an unexpected RuntimeError: nobody expected this"]
        assert sum(bool(row.get("text")) for row in rows) == 4
    else:
        assert sum(bool(row) for row in rows) == 4 and len(rows) == 5


@pytest.mark.parametrize("place", ["add", "can_start"])
def test_an_unexpected_exception_while_a_text_joins_the_batch(job, tmp_path, monkeypatch, place):
    from gpt2 import text_batch

    (tmp_path / "in.jsonl").write_text(
        '{"prompt": "the cat", "length": 2}\n{"prompt": "sat", "length": 7, "n": 3}\n{"prompt": "mat", "length": 2}\n'
    )
    target = text_batch._Text if place == "add" else text_batch.TextBatch
    name = "__init__" if place == "add" else "can_start"
    original = getattr(target, name)

    def fail_for_length_7(self, *arguments):
        request = arguments[-1] if place == "add" else arguments[0].request
        return failing() if request.length == 7 else original(self, *arguments)

    monkeypatch.setattr(target, name, fail_for_length_7)
    rows = job("in.jsonl", "out.jsonl")
    assert [bool(row.get("error")) for row in rows] == [False, True, False]


@pytest.mark.parametrize("out", ["out.jsonl", "out.csv", "out.txt", "out.parquet", "-"])
def test_an_unexpected_exception_while_a_row_is_written(job, tmp_path, monkeypatch, out, capsysbinary):
    if out.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / "in.txt").write_text("the cat\nsat on\nthe mat\n")
    name = {"out.txt": "_text_lines", "-": "_text_lines", "out.parquet": "row_cells"}.get(out, "row_entries")
    original = getattr(output.file_formats, name)

    def fail_for_row_1(finished, *arguments):
        is_row_1 = finished.row.number == 1 and not finished.error
        return failing() if is_row_1 else original(finished, *arguments)

    monkeypatch.setattr(output.file_formats, name, fail_for_row_1)
    rows = job("in.txt", out, "--length=2")
    captured = capsysbinary.readouterr()
    if out in ("-", "out.txt"):
        texts = captured.out.decode().splitlines() if out == "-" else rows
        assert [bool(text) for text in texts] == [True, False, True]
    else:
        assert [bool(row.get("error")) for row in rows] == [False, True, False]
        assert rows[1]["error"] == "the row cannot be written: an unexpected RuntimeError: nobody expected this"
    assert b"error: 1 of 3 rows have an error" in captured.err


@pytest.mark.parametrize(
    ("name", "data", "n_bad"),
    [
        ("in.txt", b"the cat\nca\xff\xfe\x80\nthe mat\n", 1),
        ("in.jsonl", b'{"prompt": "the cat"}\n{"prompt": "\xc3("}\n\xff\n\x00\n{"prompt": "the mat"}\n', 3),
        ("in.csv", b"prompt\nthe cat\nca\xe9\n\x80\nthe mat\n", 2),
        ("in.csv", b'prompt\nthe cat\nsat "on"\n"sat "on""\nthe mat\n', 1),
    ],
)
def test_bytes_that_are_not_in_the_encoding(job, tmp_path, name, data, n_bad):
    (tmp_path / name).write_bytes(data)
    rows = job(name, "out.csv", "--length=2")
    assert [bool(row["error"]) for row in rows].count(True) == n_bad
    assert rows[0]["text"] and rows[-1]["text"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "shift_jis", "gb18030", "utf-7"])
def test_bad_bytes_of_other_encodings(job, tmp_path, encoding):
    """Bytes below 0x80 can be invalid too, in encodings of several bytes a character."""
    bad = {"utf-16": b"\x00\xd8a\x00", "utf-16-le": b"\x00\xd8a\x00", "utf-32": b"\x41\x42\x11\x00"}
    data = "the cat\nsat".encode(encoding) + bad.get(encoding, b"\x81\xff")
    codec = {"utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(encoding, encoding)
    (tmp_path / "in.txt").write_bytes(data + "\nthe mat\n".encode(codec))
    rows = job("in.txt", "out.jsonl", "--length=2", f"--encoding={encoding}")
    assert [bool(row.get("error")) for row in rows] == [False, True, False]
    assert rows[1]["error"].startswith(f"not {encoding} at character 3")
