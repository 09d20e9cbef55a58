"""Resumed jobs: what a rejected job leaves unchanged, and journals of other outputs."""

import shutil

import pytest
from bulk_jobs import FIXED, content, run

from gpt2.bulk import output

PROMPTS = ["the cat", "sat on", "the mat", "and the dog", "sat", "on the log"]


@pytest.fixture
def job(native, tmp_path, tiny_dir, monkeypatch):
    """Return a function that runs the command and returns its exit status."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_dir, tmp_path / "model")
    (tmp_path / "in.txt").write_text("\n".join(PROMPTS) + "\n")

    def run_job(prompts="in.txt", out="out.jsonl", *flags, model="model", fixed=FIXED):
        return run(prompts, out, f"--model_name={tmp_path / model}", "--threads=1", *fixed, *flags)

    return run_job


@pytest.fixture
def error_line(job, capsys):
    """Return a function that runs a job that must fail, and returns its only line of errors."""

    def run_job(*arguments, **options):
        capsys.readouterr()
        assert job(*arguments, **options) in (1, 2)
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and "Traceback" not in lines[0] and "GPT2_DEBUG" not in lines[0], lines
        return lines[0]

    return run_job


@pytest.mark.parametrize("out", ["{}.jsonl", "{}.csv", "{}.txt", "{}.parquet"])
@pytest.mark.parametrize("shorter", ["a", "b"])
def test_the_journal_of_another_output(job, error_line, tmp_path, monkeypatch, out, shorter):
    """Whichever of the two outputs is shorter, both stay unchanged."""
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(output, "PART_ROWS", 2)
    for name in "ab":
        rows = [f"{row} {name}" for row in PROMPTS][: 3 if name == shorter else 6]
        (tmp_path / f"{name}.txt.in").write_text("\n".join(rows) + "\n")
        assert job(f"{name}.txt.in", out.format(name)) == 0
    paths = [tmp_path / out.format(name) for name in "ab"]
    before = [content(path) for path in paths]
    journals = [path.with_name(f"{path.name}.job") for path in paths]
    texts = [path.read_bytes() for path in journals]
    for path, text in zip(journals, reversed(texts)):
        path.write_bytes(text)
    for name in "ab":
        error_line(f"{name}.txt.in", out.format(name))
    assert [content(path) for path in paths] == before


@pytest.mark.parametrize("out", ["out.jsonl", "out.csv", "out.txt"])
@pytest.mark.parametrize("n_bytes", [1, 50, 200])
def test_an_output_that_was_cut_is_not_cut_further_for_another_input(job, error_line, tmp_path, out, n_bytes):
    assert job("in.txt", out) == 0
    path = tmp_path / out
    path.write_bytes(path.read_bytes()[:n_bytes])
    before = path.read_bytes()
    (tmp_path / "in.txt").write_text("\n".join([*PROMPTS[:-1], "another"]) + "\n")
    assert "is not the input" in error_line("in.txt", out)
    assert path.read_bytes() == before


@pytest.mark.parametrize("out", ["out.csv", "out.jsonl", "out.parquet"])
@pytest.mark.parametrize(
    ("table", "flags", "message"),
    [
        ("name,name\na,b\n", [], "several columns named 'name'"),
        ("name,title\na,b\n", ["--column=what"], "has no column 'what'"),
        ('name,"title\na,b\n', [], "never closed"),
    ],
)
def test_a_job_that_fails_before_its_first_row_leaves_nothing_behind(
    job, error_line, tmp_path, out, table, flags, message
):
    """So that the corrected command is not taken for a resumed job with other flags."""
    (tmp_path / "in.csv").write_text(table)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert message in error_line("in.csv", out, *flags)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
