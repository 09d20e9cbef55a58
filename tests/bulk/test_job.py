"""Whole jobs, by the command: each row as it would be alone, in every form; what cannot be is said in one line."""

import io
import json
import random
import sys

import bulk_jobs
import pytest
from bulk_jobs import FIXED, cells, content, entries, ragged, run, write_rows

from gpt2 import generate
from gpt2.bulk import output
from gpt2.bulk.rows import InputRecord, RowDefaults, parse_row
from gpt2.request import Request


@pytest.fixture(scope="module")
def model(native, tiny_dir):
    return generate.load(str(tiny_dir), threads=1)


def alone(model, row, number, seed=1):
    """The texts of a row, each written by itself."""
    asked = RowDefaults(Request(None, 16, seed=seed, end_of_text=True))
    requests = parse_row(InputRecord(number, row, True), asked).requests
    return [next(generate.completions(model, [request])) for request in requests]


def check_each_alone(model, tmp_path, rows, *batch_sizes):
    prompts = write_rows(tmp_path / "in.jsonl", rows)
    for batch_size in batch_sizes:
        out = tmp_path / f"out{batch_size}.jsonl"
        assert (
            run(
                prompts,
                out,
                "--seed=1",
                "--threads=1",
                f"--model_name={model_path(tmp_path)}",
                f"--batch_size={batch_size}",
            )
            == 0
        )
    found = {(entry["id"], entry["index"]): entry for entry in entries(out)}
    assert len({str(content(tmp_path / f"out{batch_size}.jsonl")) for batch_size in batch_sizes}) == 1
    for number, row in enumerate(rows):
        for index, completion in enumerate(alone(model, row, number)):
            entry = found.pop((row["id"], index))
            assert entry["text"] == completion.text, row
            assert entry["completion_tokens"] == len(completion.tokens)
            assert entry["finish_reason"] == completion.ended
    assert not found


def model_path(tmp_path):
    return tmp_path / "model"


@pytest.fixture(autouse=True)
def linked(tmp_path, tiny_dir):
    model_path(tmp_path).symlink_to(tiny_dir)


@pytest.fixture
def job(tmp_path):
    """Runs the command with the tiny model; files are named as in the folder of the test."""

    def run_there(prompts, out, *flags):
        return run(tmp_path / prompts, tmp_path / out, f"--model_name={model_path(tmp_path)}", "--threads=1", *flags)

    return run_there


def test_each_row_is_what_it_is_alone(model, tmp_path):
    check_each_alone(model, tmp_path, ragged(60), 1, 7, 64)


@pytest.mark.slow
def test_two_thousand_ragged_rows(model, tmp_path):
    check_each_alone(model, tmp_path, ragged(2000), 32, 5, 200)


def test_the_order_of_the_rows_changes_none(model, tmp_path, job):
    rows = ragged(40, own_seeds=True)
    write_rows(tmp_path / "a.jsonl", rows)
    random.Random(1).shuffle(rows)
    write_rows(tmp_path / "b.jsonl", rows)
    assert job("a.jsonl", "a.out.jsonl") == job("b.jsonl", "b.out.jsonl") == 0
    assert content(tmp_path / "a.out.jsonl") == content(tmp_path / "b.out.jsonl")


def test_forms(model, tmp_path, job):
    pytest.importorskip("pyarrow")
    (tmp_path / "in.txt").write_text("the cat\nsat on\nthe mat\n")
    for out in ("out.jsonl", "out.csv", "out.parquet", "out.txt"):
        assert job("in.txt", out, *FIXED, "--n=2", "--logprobs=2") == 0
    lines = sorted(entries(tmp_path / "out.jsonl"), key=lambda entry: (entry["id"], entry["index"]))
    assert [line["prompt"] for line in lines] == ["the cat", "the cat", "sat on", "sat on", "the mat", "the mat"]
    for line in lines:
        assert len(line["logprobs"]["tokens"]) == len(line["logprobs"]["top_logprobs"]) == line["completion_tokens"]
        assert all(2 <= len(top) <= 3 for top in line["logprobs"]["top_logprobs"])
    in_columns = [{**line, "logprobs": json.dumps(line["logprobs"], ensure_ascii=False)} for line in lines]
    assert cells(tmp_path / "out.csv") == [
        {k: str(row.get(k, "")) for k in output.file_formats.COLUMNS} for row in in_columns
    ]
    in_columns = [{**row, "id": str(row["id"]), "error": None} for row in in_columns]
    assert content(tmp_path / "out.parquet") == in_columns
    assert [line.replace("\\n", "\n").replace("\\r", "\r") for line in _texts(tmp_path)] == [r["text"] for r in lines]


def _texts(tmp_path):
    return (tmp_path / "out.txt").read_bytes().decode().split("\n")[:-1]


def test_a_delimiter_for_texts_of_many_lines(model, tmp_path, job):
    (tmp_path / "in.txt").write_text("the\ncat\n====\nsat\n")
    assert (
        job("in.txt", "out.txt", *FIXED, "--delimiter", "====")
        == job("in.txt", "o.csv", *FIXED, "--delimiter=====")
        == 0
    )
    rows = cells(tmp_path / "o.csv")
    assert [row["prompt"] for row in rows] == ["the\ncat", "sat"]
    assert (tmp_path / "out.txt").read_bytes().decode() == "".join(row["text"] + "\n====\n" for row in rows)


def test_from_a_table_to_a_table(model, tmp_path, job):
    (tmp_path / "in.csv").write_text("name,brand\ncat,the\ndog,a\n")
    flags = [*FIXED, "--template={brand} {name} sat", "--id_column=name"]
    assert job("in.csv", "out.csv", *flags) == 0
    rows = cells(tmp_path / "out.csv")
    assert [(row["id"], row["prompt"]) for row in rows] == [("cat", "the cat sat"), ("dog", "a dog sat")]
    assert rows[1]["text"] == alone(model, {"prompt": "a dog sat", "length": 6, "top_k": 40}, 1)[0].text


def test_openai_batch_files(model, tmp_path, job):
    body = {"model": "tiny", "prompt": "the cat", "max_tokens": 4, "n": 2, "seed": 3, "ignore_eos": True}
    rows = [
        {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": body},
        {"custom_id": "b", "body": {}},
    ]
    write_rows(tmp_path / "in.jsonl", rows)
    assert job("in.jsonl", "out.jsonl") == 1
    answers = {answer["custom_id"]: answer for answer in entries(tmp_path / "out.jsonl")}
    found = answers["a"]["response"]["body"]
    expected = alone(model, body, 0)
    assert [choice["text"] for choice in found["choices"]] == [one.text for one in expected]
    read = len(model.encoder.encode("the cat"))
    assert found["usage"] == {"prompt_tokens": read, "completion_tokens": 8, "total_tokens": read + 8}
    assert answers["a"]["error"] is None and answers["a"]["response"]["status_code"] == 200
    assert answers["b"]["response"] is None and "'prompt'" in answers["b"]["error"]["message"]


ERRORS = [
    b'{"prompt": "the cat", "length": 3}',
    b"{not JSON",
    b'{"prompt": ""}',
    b'{"prompt": "' + b"cat " * 40 + b'"}',
    b'{"prompt": "caf\xe9"}',
    b'{"prompt": [1, 100000]}',
    b'{"prompt": "a", "logit_bias": {"100000": 1}, "length": 2}',
    b'{"prompt": "the mat", "length": 3}',
]


@pytest.mark.parametrize("out", ["out.jsonl", "out.csv"])
@pytest.mark.parametrize("hands", [(), ("--processes=2",)])
def test_rows_with_errors_stop_no_other(model, tmp_path, job, out, hands, capsys):
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(ERRORS))
    for _ in range(2):  # the second time all is there
        assert job("in.jsonl", out, "--seed=1", *hands) == 1
        err = capsys.readouterr().err
        [said] = [line for line in err.splitlines() if line.startswith("error: ")]
        assert said.startswith("error: 6 of 8 rows have an error") and "Traceback" not in err
    read = entries if out.endswith("jsonl") else cells
    found = sorted(read(tmp_path / out), key=lambda row: int(row["id"]))
    assert [bool(row.get("error")) for row in found] == [False] + [True] * 6 + [False]
    parts = [
        "not JSON",
        "prompt is empty",
        "tokens, but the model's window holds 32",
        "0xe9",
        "not 100000",
        "not 100000",
    ]
    for part, row in zip(parts, found[1:-1]):
        assert part in row["error"]
    assert found[-1]["text"] == alone(model, {"prompt": "the mat", "length": 3}, 7)[0].text


def test_from_stdin_to_stdout(model, tmp_path, monkeypatch, capsysbinary):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the cat\nsat\n")))
    assert run("-", "-", *FIXED, f"--model_name={model_path(tmp_path)}", "--out_form=jsonl") == 0
    found = [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
    assert sorted(line["prompt"] for line in found) == ["sat", "the cat"]


def test_what_there_is_is_not_overwritten_and_another_job_does_not_go_on_with_it(model, tmp_path, job, capsys):
    (tmp_path / "in.txt").write_text("the cat\nsat on\n")
    (tmp_path / "mine.txt").write_text("precious")

    def refused(*arguments):
        assert job(*arguments) == 2
        [line] = capsys.readouterr().err.splitlines()
        return line

    assert "mine.txt exists, but there is no job that could be resumed" in refused("in.txt", "mine.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "mine.txt", "model"]
    assert job("in.txt", "out.txt", *FIXED) == 0
    before = content(tmp_path / "out.txt")
    capsys.readouterr()
    assert "was started with length 6, not 7" in refused("in.txt", "out.txt", "--seed=1", "--length=7", "--top_k=40")
    assert "was started with seed 1, not 2" in refused("in.txt", "out.txt", "--seed=2", "--length=6", "--top_k=40")
    assert "precision 'float32', not 'int8'" in refused("in.txt", "out.txt", *FIXED, "--precision=int8")
    (tmp_path / "in.txt").write_text("the dog\nsat on\n")
    assert "in.txt is not the input" in refused("in.txt", "out.txt", *FIXED)
    assert content(tmp_path / "out.txt") == before
    (tmp_path / "out.txt").unlink()
    assert job("in.txt", "out.txt", *FIXED) == 0  # its job is forgotten with it
    assert content(tmp_path / "out.txt") != before


def test_a_seed_that_was_drawn_is_kept(model, tmp_path, job):
    (tmp_path / "in.txt").write_text("the cat\n")
    assert job("in.txt", "out.jsonl", "--length=4") == 0
    (tmp_path / "in.txt").write_text("the cat\nsat on\nthe mat\n")  # what has grown since is written too
    assert job("in.txt", "out.jsonl", "--length=4") == 0
    found = entries(tmp_path / "out.jsonl")
    assert sorted(row["id"] for row in found) == [0, 1, 2] and len({row["seed"] for row in found}) == 1


WRONG = [
    (["--length=-1"], 2, "length must be"),
    (["--n=0"], 2, "n must be"),
    (["--processes=2", "--ray=local"], 2, "give processes or ray, not both"),
    (["--delimiter="], 2, "delimiter"),
    (["--out_form=xml"], 2, "the format must be one of text, jsonl, csv, parquet, not 'xml'"),
    (["--encoding=klingon"], 2, "encoding"),
    (["--model_name=nowhere"], 1, "nowhere"),
    (["--temperature=-1"], 2, "temperature"),
]


@pytest.mark.parametrize(("flags", "status", "said"), WRONG)
def test_wrong_flags(tmp_path, job, flags, status, said, capsys):
    (tmp_path / "in.txt").write_text("the cat\n")
    assert job("in.txt", "out.txt", *flags) == status
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line
    assert not (tmp_path / "out.txt").exists() and not (tmp_path / "out.txt.job").exists()


def test_files_that_are_not_there(tmp_path, job, capsys):
    assert job("none.txt", "out.txt") == 1
    assert "none.txt cannot be read: No such file" in capsys.readouterr().err
    (tmp_path / "in.txt").write_text("the cat\n")
    assert job("in.txt", "nowhere/out.txt") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "cannot be written: No such file or directory" in line


def test_parquet_without_its_package(tmp_path, job, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "in.txt").write_text("the cat\n")
    for names in (("in.parquet", "out.txt"), ("in.txt", "out.parquet")):
        assert job(*names) == 1
        assert "type: pip install -r requirements-parquet.txt" in capsys.readouterr().err


def test_ray_without_its_package(tmp_path, job, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "in.txt").write_text("the cat\n")
    assert job("in.txt", "out.txt", "--ray=local") == 1
    assert "type: pip install -r requirements-ray.txt" in capsys.readouterr().err


def test_help_names_each_flag(capsys):
    assert bulk_jobs.command.main(bulk_jobs.module.generate, ["--help"]) == 0
    assert "--id_column" in capsys.readouterr().out
