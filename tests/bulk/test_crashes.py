"""Jobs that are killed or run out of disk space: the same command finishes them, with each row exactly once."""

import random
import resource
import shutil
import signal
import subprocess
import time

import bulk_jobs
import pytest
from bulk_jobs import command_line, content, ragged, run, write_rows

from gpt2.bulk import output

OUTPUT_NAMES = ["out.jsonl", "out.csv", "out.txt", "out.parquet"]


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(output, "PART_ROWS", bulk_jobs.PART_ROWS)


@pytest.fixture
def job_dir(native, tmp_path, tiny_dir, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "in.jsonl", ragged(60))
    return tmp_path


def flags(tiny_dir):
    return ["--seed=1", f"--model_name={tiny_dir}", "--batch_size=8", "--threads=1"]


def uninterrupted_output(job_dir, tiny_dir, out):
    """Return the output of an uninterrupted job."""
    path = job_dir / f"whole-{out}"
    assert run("in.jsonl", path, *flags(tiny_dir)) == 0
    return content(path)


def kill(out, tiny_dir, share, size, seed):
    """Kill a job shortly after it has written a share of its output; return its exit status."""
    process = subprocess.Popen(command_line("in.jsonl", out, *flags(tiny_dir)), stderr=subprocess.DEVNULL)
    while process.poll() is None and output_size(out) < share * size:
        time.sleep(0.001)
    time.sleep(random.Random(seed).random() * 0.02)
    process.send_signal(signal.SIGKILL)
    return process.wait()


def output_size(out):
    if out.is_dir():
        return len(list(out.glob("*.parquet")))
    return out.stat().st_size if out.exists() else 0


def check_kills(job_dir, tiny_dir, out, count):
    """Kill one job `count` times, then let it finish."""
    expected = uninterrupted_output(job_dir, tiny_dir, out)
    rng = random.Random(3)
    size = output_size(job_dir / f"whole-{out}")
    path = job_dir / out
    killed = 0
    for share in sorted(rng.random() for _ in range(count)):
        killed += kill(path, tiny_dir, share, size, rng.random()) == -signal.SIGKILL
    assert killed >= count - 1
    assert run("in.jsonl", path, *flags(tiny_dir)) == 0
    assert content(path) == expected
    assert not list(job_dir.glob(".*.part")) and not list(path.glob(".*.part") if path.is_dir() else [])


@pytest.mark.parametrize("out", ["out.jsonl", "out.csv"])
def test_two_kills(job_dir, tiny_dir, out):
    check_kills(job_dir, tiny_dir, out, 2)


@pytest.mark.slow
@pytest.mark.parametrize("out", OUTPUT_NAMES)
def test_twenty_kills(job_dir, tiny_dir, out):
    write_rows(job_dir / "in.jsonl", ragged(1500))
    check_kills(job_dir, tiny_dir, out, 20)


@pytest.mark.parametrize("out", OUTPUT_NAMES)
def test_truncated_output_and_journal(job_dir, tiny_dir, out):
    """Truncate both files at random bytes, independently of each other."""
    expected = uninterrupted_output(job_dir, tiny_dir, out)
    rng = random.Random(4)
    path = job_dir / out
    journal = job_dir / f"{out}.job"
    full = job_dir / "full"
    full.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output.Journal, "compact", lambda *_: None)
        assert run("in.jsonl", full / out, *flags(tiny_dir)) == 0
    assert content(full / out) == expected
    journal_bytes = (full / f"{out}.job").read_bytes()
    for _ in range(4):
        cut = rng.randrange(len(journal_bytes) + 1)
        journal.write_bytes(journal_bytes[:cut])
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        if path.suffix == ".parquet":
            path.mkdir()
            for part in sorted((full / out).iterdir())[: rng.randrange(1, 9)]:
                shutil.copy(part, path)
        else:
            data = (full / out).read_bytes()
            path.write_bytes(data[: rng.randrange(1, len(data))])
        if journal_bytes.index(b"\n") >= cut:
            journal.write_bytes(journal_bytes[: journal_bytes.index(b"\n") + 1])
        assert run("in.jsonl", path, *flags(tiny_dir)) == 0
        assert content(path) == expected, cut


def run_with_file_limit(limit, *arguments):
    """Run the command while no file can grow beyond `limit` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        return run(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def check_full_disks(job_dir, tiny_dir, out, count, capsys):
    expected = uninterrupted_output(job_dir, tiny_dir, out)
    rng = random.Random(5)
    path = job_dir / out
    largest = max(file.stat().st_size for file in [*job_dir.glob(f"whole-{out}/*"), job_dir / f"whole-{out}"])
    capsys.readouterr()
    for limit in sorted(rng.randrange(largest) for _ in range(count)):
        status = run_with_file_limit(limit, "in.jsonl", path, *flags(tiny_dir))
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert status == 1 and len(errors) == 1 and "File too large" in errors[0], (limit, errors)
        assert bulk_jobs.command.DEBUG_VARIABLE not in errors[0]
    assert run("in.jsonl", path, *flags(tiny_dir)) == 0
    assert content(path) == expected
    assert not list(job_dir.glob(".*.part")) and not list(path.glob(".*.part") if path.is_dir() else [])


@pytest.mark.parametrize("out", OUTPUT_NAMES)
def test_full_disks(job_dir, tiny_dir, out, capsys):
    check_full_disks(job_dir, tiny_dir, out, 4, capsys)


def test_two_jobs_cannot_write_the_same_output(job_dir, tiny_dir, capsys):
    from gpt2.bulk import journal

    with journal.open_journal(job_dir / "out.jsonl"):
        assert run("in.jsonl", "out.jsonl", *flags(tiny_dir)) == 1
    assert "is being written by another process" in capsys.readouterr().err


def test_finished_rows_take_constant_memory(tmp_path):
    """Read the journal of a job whose rows finished in pairs, each pair in reverse order."""
    import os

    import numpy as np

    from gpt2.bulk import journal
    from gpt2.bulk.row_queue import RowNumberSet

    rows = 200_000
    entry_array = np.zeros(rows, np.dtype([("first", "<u8"), ("rows", "<u4"), ("errors", "<u4"), ("end", "<u8")]))
    entry_array["first"] = np.arange(rows).reshape(-1, 2)[:, ::-1].ravel()
    entry_array["rows"], entry_array["end"] = 1, np.arange(1, rows + 1)
    path = tmp_path / "out.jsonl"
    journal.journal_path(path).write_bytes(b'{"seed": 1}\n' + entry_array.tobytes())
    finished_numbers = RowNumberSet()
    max_above = 0
    with journal.open_journal(path) as opened:
        for entry in opened.entries(rows):
            finished_numbers.add(entry.first_row, entry.n_rows)
            max_above = max(max_above, len(finished_numbers.above))
        assert (finished_numbers.below, max_above) == (rows, 1)
        opened.compact(finished_numbers, 0, rows)
    assert os.path.getsize(journal.journal_path(path)) < 100
    with journal.open_journal(path) as opened:
        assert list(opened.entries(rows)) == [(0, rows, 0, rows)]
