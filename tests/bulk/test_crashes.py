"""A job that is killed, or whose disk is full, at any moment: the same command ends it, each row there once."""

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

FORMS = ["out.jsonl", "out.csv", "out.txt", "out.parquet"]


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(output, "PART_ROWS", bulk_jobs.PART_ROWS)


@pytest.fixture
def place(native, tmp_path, tiny_dir, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "in.jsonl", ragged(60))
    return tmp_path


def flags(tiny_dir):
    return ["--seed=1", f"--model_name={tiny_dir}", "--batch_size=8", "--threads=1"]


def whole(place, tiny_dir, out):
    """What an uninterrupted job writes."""
    path = place / f"whole-{out}"
    assert run("in.jsonl", path, *flags(tiny_dir)) == 0
    return content(path)


def kill(out, tiny_dir, share, size, seed):
    """Kills a job once so much of its output is there, and a moment later."""
    process = subprocess.Popen(command_line("in.jsonl", out, *flags(tiny_dir)), stderr=subprocess.DEVNULL)
    while process.poll() is None and weight(out) < share * size:
        time.sleep(0.001)
    time.sleep(random.Random(seed).random() * 0.02)
    process.send_signal(signal.SIGKILL)
    return process.wait()


def weight(out):
    if out.is_dir():
        return len(list(out.glob("*.parquet")))
    return out.stat().st_size if out.exists() else 0


def check_kills(place, tiny_dir, out, count):
    """One job, killed so often on its way; then it ends."""
    expected, rng = whole(place, tiny_dir, out), random.Random(3)
    size, path = weight(place / f"whole-{out}"), place / out
    killed = 0
    for share in sorted(rng.random() for _ in range(count)):
        killed += kill(path, tiny_dir, share, size, rng.random()) == -signal.SIGKILL
    assert killed >= count - 1
    assert run("in.jsonl", path, *flags(tiny_dir)) == 0
    assert content(path) == expected
    assert not list(place.glob(".*.part")) and not list(path.glob(".*.part") if path.is_dir() else [])


@pytest.mark.parametrize("out", ["out.jsonl", "out.csv"])
def test_two_kills(place, tiny_dir, out):
    check_kills(place, tiny_dir, out, 2)


@pytest.mark.slow
@pytest.mark.parametrize("out", FORMS)
def test_twenty_kills(place, tiny_dir, out):
    write_rows(place / "in.jsonl", ragged(1500))
    check_kills(place, tiny_dir, out, 20)


@pytest.mark.parametrize("out", FORMS)
def test_whatever_is_left_of_output_and_journal(place, tiny_dir, out):
    """Both end at any byte: the journal's notes are of what was written before them."""
    expected, rng, path, journal = whole(place, tiny_dir, out), random.Random(4), place / out, place / f"{out}.job"
    full = place / "full"
    full.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output.Journal, "compact", lambda *_: None)
        assert run("in.jsonl", full / out, *flags(tiny_dir)) == 0
    assert content(full / out) == expected
    notes = (full / f"{out}.job").read_bytes()
    for _ in range(4):
        at = rng.randrange(len(notes) + 1)
        journal.write_bytes(notes[:at])
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        if path.suffix == ".parquet":
            path.mkdir()
            for part in sorted((full / out).iterdir())[: rng.randrange(1, 9)]:
                shutil.copy(part, path)
        else:
            data = (full / out).read_bytes()
            path.write_bytes(data[: rng.randrange(1, len(data))])
        if notes.index(b"\n") >= at:
            journal.write_bytes(notes[: notes.index(b"\n") + 1])
        assert run("in.jsonl", path, *flags(tiny_dir)) == 0
        assert content(path) == expected, at


def limited(limit, *arguments):
    """The command while no file grows beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        return run(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def check_full_disks(place, tiny_dir, out, count, capsys):
    expected, rng, path = whole(place, tiny_dir, out), random.Random(5), place / out
    largest = max(file.stat().st_size for file in [*place.glob(f"whole-{out}/*"), place / f"whole-{out}"])
    capsys.readouterr()
    for limit in sorted(rng.randrange(largest) for _ in range(count)):
        status = limited(limit, "in.jsonl", path, *flags(tiny_dir))
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert status == 1 and len(errors) == 1 and "File too large" in errors[0], (limit, errors)
        assert bulk_jobs.command.DEBUG_VARIABLE not in errors[0]
    assert run("in.jsonl", path, *flags(tiny_dir)) == 0
    assert content(path) == expected
    assert not list(place.glob(".*.part")) and not list(path.glob(".*.part") if path.is_dir() else [])


@pytest.mark.parametrize("out", FORMS)
def test_full_disks(place, tiny_dir, out, capsys):
    check_full_disks(place, tiny_dir, out, 4, capsys)


def test_two_jobs_do_not_write_one_output(place, tiny_dir, capsys):
    from gpt2.bulk import journal

    with journal.open_journal(place / "out.jsonl"):
        assert run("in.jsonl", "out.jsonl", *flags(tiny_dir)) == 1
    assert "is being written by another process" in capsys.readouterr().err


def test_what_is_done_takes_no_memory_however_much_it_is(tmp_path):
    """As it is after a job of one file, whose rows end in any order within a window."""
    import os

    import numpy as np

    from gpt2.bulk import journal
    from gpt2.bulk.row_queue import RowNumberSet

    rows = 200_000
    notes = np.zeros(rows, np.dtype([("first", "<u8"), ("rows", "<u4"), ("errors", "<u4"), ("end", "<u8")]))
    notes["first"] = np.arange(rows).reshape(-1, 2)[:, ::-1].ravel()
    notes["rows"], notes["end"] = 1, np.arange(1, rows + 1)
    path = tmp_path / "out.jsonl"
    journal.journal_path(path).write_bytes(b'{"seed": 1}\n' + notes.tobytes())
    ended, most = RowNumberSet(), 0
    with journal.open_journal(path) as found:
        for note in found.entries(rows):
            ended.add(note.first_row, note.n_rows)
            most = max(most, len(ended.above))
        assert (ended.below, most) == (rows, 1)
        found.compact(ended, 0, rows)
    assert os.path.getsize(journal.journal_path(path)) < 100
    with journal.open_journal(path) as found:
        assert list(found.entries(rows)) == [(0, rows, 0, rows)]
