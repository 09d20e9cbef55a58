"""Journals: a resumed job recognizes its model, its input and its output, and any damage is one line."""

import json
import os
import random
import shutil
import struct
import zlib

import pytest
import tiny
from bulk_jobs import FIXED, content, entries, run, write_rows

from gpt2.bulk.journal import ENTRY, journal_path, open_journal
from gpt2.files import open_exclusive

PROMPTS = "the cat\nsat on\nthe mat\n"


@pytest.fixture
def folder(native, tmp_path, tiny_dir):
    """Return a folder with a finished job: in.txt, out.jsonl and its journal, and the model."""
    shutil.copytree(tiny_dir, tmp_path / "tiny")
    (tmp_path / "in.txt").write_text(PROMPTS)
    assert generate(tmp_path) == 0
    return tmp_path


def generate(folder, *flags, out="out.jsonl", prompts="in.txt", model="tiny"):
    return run(folder / prompts, folder / out, f"--model_name={folder / model}", "--threads=1", *FIXED, *flags)


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.glob("out*") if path.is_file()}


def check_rejected(folder, capsys, message, status=None, **options):
    """Check that the command fails with one line and changes neither the output nor the journal."""
    before = files_of(folder)
    capsys.readouterr()
    result = generate(folder, **options)
    lines = capsys.readouterr().err.splitlines()
    assert result in ((1, 2) if status is None else (status,)), lines
    assert [line for line in lines if line.startswith("error: ")] == lines and len(lines) == 1, lines
    assert message in lines[0]
    assert files_of(folder) == before


def grow(folder):
    with (folder / "in.txt").open("a") as file:
        file.write("and dog\n")


# The model.


def replace_model(tmp_path, source):
    shutil.rmtree(tmp_path / "tiny")
    shutil.copytree(source, tmp_path / "tiny")


@pytest.fixture(scope="module")
def other_dir(tmp_path_factory):
    return tiny.write_model(tmp_path_factory.mktemp("others") / "tiny", seed=5)


@pytest.mark.parametrize("in_other_folder", [False, True])
def test_other_weights_are_rejected(folder, other_dir, in_other_folder, capsys):
    grow(folder)
    if in_other_folder:
        (folder / "new").mkdir()
        shutil.copytree(other_dir, folder / "new" / "tiny")
        check_rejected(folder, capsys, "other weights", 2, model="new/tiny")
    else:
        replace_model(folder, other_dir)
        check_rejected(folder, capsys, "other weights", 2)


def test_a_copy_of_the_model_resumes(folder):
    (folder / "new").mkdir()
    for name in ("new/tiny", "renamed"):
        shutil.copytree(folder / "tiny", folder / name, copy_function=shutil.copyfile)  # with new modification times
        grow(folder)
        assert generate(folder, model=name) == 0
    for path in (folder / "tiny").iterdir():
        os.utime(path, (1, 1))
    grow(folder)
    assert generate(folder) == 0
    assert sorted(entry["id"] for entry in entries(folder / "out.jsonl")) == [0, 1, 2, 3, 4, 5]


class Named:
    """A weight of a file without checksums."""

    shape = (2,)
    checksum = None

    def __init__(self, path):
        self.path = path


def identity(path):
    from gpt2.bulk import weights_identity
    from gpt2.formats.directory import ModelDir
    from gpt2.hparams import HParams

    class Words:
        fingerprint = "0"

    directory = ModelDir(path.parent, HParams(50257), path, lambda *_: {"wte": Named(path)}, Words)
    return weights_identity.weights_identity(directory, Words())


def test_files_without_checksums(tmp_path, monkeypatch):
    """A small file is recognized by its content, a large one by its size and modification time."""
    from gpt2.bulk import weights_identity

    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    first = identity(path)
    os.utime(path, (1, 1))
    assert identity(path) == first
    path.write_bytes(b"weighty")
    assert identity(path) != first
    monkeypatch.setattr(weights_identity, "MAX_HASHED_BYTES", 3)
    large = identity(path)
    assert large["files"] == {path.name: [7, path.stat().st_mtime_ns]}
    assert identity(path) == large
    os.utime(path, (1, 1))
    assert identity(path) != large


# The input.


@pytest.mark.parametrize(
    "changed",
    [
        "the dog\nsat on\nthe mat\n",
        "the cat\nsat on\nthe mat.\n",
        "the cat\nsat on\n",
        "sat on\nthe cat\nthe mat\n",
        "",
        "\nthe cat\nsat on\nthe mat\n",
    ],
)
def test_a_changed_input_is_rejected(folder, changed, capsys):
    (folder / "in.txt").write_text(changed + ("and dog\n" if changed else ""))
    check_rejected(folder, capsys, "in.txt is not the input that", 2)


def test_rows_that_came_later_are_compared_as_well(folder, capsys):
    grow(folder)
    assert generate(folder) == 0
    (folder / "in.txt").write_text(f"{PROMPTS}and log\nand cat\n")
    check_rejected(folder, capsys, "is not the input", 2)


def test_a_row_far_behind_the_start_is_compared(folder, capsys):
    rows = [{"prompt": "", "id": "x" * 2_000_000}, {"prompt": "the cat", "length": 2}]
    write_rows(folder / "in.jsonl", rows)
    assert generate(folder, prompts="in.jsonl", out="out2.jsonl") == 1  # its first row has an error
    rows[1]["prompt"] = "the dog"
    write_rows(folder / "in.jsonl", rows)
    check_rejected(folder, capsys, "is not the input", 2, prompts="in.jsonl", out="out2.jsonl")


@pytest.mark.parametrize(
    "name, first, changed",
    [
        ("in.jsonl", '{"prompt": "abc"', '{"prompt": "xyz"'),
        ("in.jsonl", "[1]", "[2]"),
        ("in.csv", "id,prompt\n7", "id,prompt\n8"),
    ],
)
def test_a_row_that_cannot_be_read_is_compared(folder, capsys, name, first, changed):
    end = "\n" + ('{"prompt": "the cat"}' if name == "in.jsonl" else "8,the cat") + "\n"
    (folder / name).write_text(first + end)
    assert generate(folder, prompts=name, out="out2.jsonl") == 1
    (folder / name).write_text(changed + end)
    check_rejected(folder, capsys, "is not the input", 2, prompts=name, out="out2.jsonl")


def test_a_completed_last_line_is_a_changed_row(folder, capsys):
    (folder / "in.txt").write_text(PROMPTS.removesuffix("\n"))
    assert generate(folder) == 0  # the rows are the same
    (folder / "in.txt").write_text(PROMPTS.removesuffix("\n") + "tress\n")
    check_rejected(folder, capsys, "is not the input", 2)


# Journals of older versions.


def older(folder, **changes):
    """Replace the journal by one of an older version."""
    path = folder / "out.jsonl.job"
    with open_journal(folder / "out.jsonl") as journal:
        output = folder / "out.jsonl"
        rows = list(journal.entries(output.stat().st_size))
    line = path.read_bytes().split(b"\n")[0]
    settings = json.loads(line)
    for name in ("journal_version", "weights"):
        settings.pop(name, None)
    settings["input"] = {"bytes": 8, "crc32": zlib.crc32(PROMPTS[:8].encode())}
    settings |= changes
    path.write_bytes(json.dumps(settings).encode() + b"\n" + b"".join(ENTRY.pack(*entry) for entry in rows))


def test_a_journal_of_an_older_version_continues(folder, capsys):
    older(folder)
    grow(folder)
    capsys.readouterr()
    assert generate(folder) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "older version" in line]
    assert len(warnings) == 1 and "does not identify the model's weights" in warnings[0]
    grow(folder)
    assert generate(folder) == 0
    assert "older version" not in capsys.readouterr().err  # the finished job has a new journal
    assert sorted(entry["id"] for entry in entries(folder / "out.jsonl")) == [0, 1, 2, 3, 4]


def test_the_input_of_an_older_job_is_compared(folder, capsys):
    older(folder)
    (folder / "in.txt").write_text("another\nsat on\nthe mat\n")
    check_rejected(folder, capsys, "is not the input", 2)


# Damage.

HEADERS = [
    b"[]",
    b"null",
    b"3",
    b'"text"',
    b"[[1, 2]]",
    b"{}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"NaN",
    b"\xff\xfe\x00",
    b"{not JSON",
    b"1" * 5000,
    b'{"seed": NaN}',
]


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: header[:8].hex())
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_header_that_is_no_job(folder, header, end, capsys):
    path = folder / "out.jsonl.job"
    rest = path.read_bytes().split(b"\n", 1)[1]
    for data in (header + end, header + end + rest):
        path.write_bytes(data)
        check_rejected(folder, capsys, "out.jsonl.job is damaged", 1)


@pytest.mark.parametrize(
    "changes",
    [{"seed": value} for value in (None, "1", [1], {}, -1, 1 << 70, 1.5, True, float("nan"))]
    + [{"model_name": value} for value in (None, "tiny", [1, 2], ["a"], {})]
    + [{"input": value} for value in (None, 3, [], {}, {"bytes": -1, "crc32": 0}, {"bytes": 1 << 70, "crc32": 0})]
    + [{"length": [[]] * 50}, {"stop": {"a": 1}}],
    ids=str,
)
def test_settings_of_other_types(folder, changes, capsys):
    older(folder, **changes)
    check_rejected(folder, capsys, "out.jsonl")


@pytest.mark.parametrize(
    "entry",
    [
        (0, 1 << 31, 0, 5),
        (7, 1 << 31, 0, 5),
        (1 << 60, 1, 0, 5),
        (0, 1, 2, 5),
        (0, 1, 0, 0),
        (0, 0, 1, 5),
    ],
)
def test_impossible_entries_of_an_older_version(folder, entry, capsys):
    older(folder)
    path = folder / "out.jsonl.job"
    path.write_bytes(path.read_bytes().split(b"\n")[0] + b"\n" + struct.pack("<QIIQ", *entry))
    check_rejected(folder, capsys, "out.jsonl.job is damaged", 1)


def test_random_damage(folder, capsys):
    """Change bytes at random: either the command fails with one line, or the output is what it was."""
    expected = content(folder / "out.jsonl")
    pristine = files_of(folder)
    path = folder / "out.jsonl.job"
    rng = random.Random(6)
    for _ in range(60):
        data = bytearray(pristine["out.jsonl.job"])
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        for name, original in pristine.items():
            (folder / name).write_bytes(original)
        path.write_bytes(data)
        before = files_of(folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("gpt2.cli.bulk_job.start_executor", _no_executor)
            capsys.readouterr()
            status = generate(folder)
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        if errors != ["error: stopped before the model"]:
            assert status in (1, 2) and len(errors) == 1, errors
            assert files_of(folder) == before
    assert content(folder / "out.jsonl") == expected


def _no_executor(*_):
    from gpt2.errors import GPT2Error

    raise GPT2Error("stopped before the model")


def test_the_journal_of_another_job(folder, capsys):
    (folder / "in2.txt").write_text("and dog\non log\n")
    assert generate(folder, out="out2.jsonl", prompts="in2.txt") == 0
    assert generate(folder, "--n=2", out="out3.jsonl") == 0
    for other in ("out2.jsonl.job", "out3.jsonl.job", "out2.jsonl", "in.txt"):
        shutil.copy(folder / other, folder / "out.jsonl.job")
        check_rejected(folder, capsys, "out.jsonl")


def test_an_output_that_somebody_else_has_changed(folder, capsys):
    data = (folder / "out.jsonl").read_bytes()
    (folder / "out.jsonl").write_bytes(data.replace(b"the", b"The", 1))
    check_rejected(folder, capsys, "has changed since the job wrote it", 1)


def test_a_file_with_the_name_of_a_journal_is_not_overwritten(folder, capsys):
    (folder / "out9.jsonl.job").write_text("my notes\n")
    check_rejected(folder, capsys, "out9.jsonl.job is damaged", 1, out="out9.jsonl")
    (folder / "out8.jsonl.job").mkdir()
    check_rejected(folder, capsys, "not a regular file", 1, out="out8.jsonl")


# Several paths of one output.


@pytest.mark.parametrize("kind", ["link", "relative link", "folder", "dots", "chain"])
def test_all_paths_of_an_output_have_one_journal(folder, kind, monkeypatch):
    out = folder / "out.jsonl"
    other = folder / "other.jsonl"
    if kind == "folder":
        (folder / "aside").symlink_to(folder)
        other = folder / "aside" / "out.jsonl"
    elif kind == "dots":
        (folder / "deep" / "deeper").mkdir(parents=True)
        (folder / "deep" / "link").symlink_to(folder / "deep" / "deeper")
        other = folder / "deep" / "link" / ".." / ".." / "out.jsonl"
    elif kind == "chain":
        (folder / "middle").symlink_to("out.jsonl")
        other.symlink_to("middle")
    else:
        other.symlink_to(out if kind == "link" else "out.jsonl")
    grow(folder)
    assert generate(folder, out=str(other)) == 0
    grow(folder)
    assert generate(folder) == 0
    assert sorted(entry["id"] for entry in entries(out)) == [0, 1, 2, 3, 4]
    assert [path.name for path in folder.rglob("*.job")] == ["out.jsonl.job"]


def test_a_link_to_a_new_output(folder):
    (folder / "real").mkdir()
    (folder / "out5.jsonl").symlink_to("real/texts.jsonl")
    assert generate(folder, out="out5.jsonl") == 0
    assert (folder / "real" / "texts.jsonl.job").exists() and not (folder / "out5.jsonl.job").exists()


def test_a_loop_of_links(folder, capsys):
    (folder / "loop.jsonl").symlink_to("loop.jsonl")
    check_rejected(folder, capsys, "loop.jsonl", out="loop.jsonl")


def test_a_hard_link(folder, capsys):
    os.link(folder / "out.jsonl", folder / "out2.jsonl")
    shutil.copy(folder / "out.jsonl.job", folder / "out2.jsonl.job")
    for name in ("out.jsonl", "out2.jsonl"):
        check_rejected(folder, capsys, "has another name (a hard link)", 1, out=name)


def test_two_jobs_at_the_same_time(folder, capsys):
    (folder / "link.jsonl").symlink_to("out.jsonl")
    grow(folder)
    for path in (journal_path(folder / "out.jsonl"), folder / "out.jsonl"):
        with open_exclusive(path):
            check_rejected(folder, capsys, "is being written by another process", 1, out="link.jsonl")


def test_an_older_journal_next_to_a_link_continues(folder):
    older(folder)
    (folder / "link.jsonl").symlink_to("real/out.jsonl")
    (folder / "real").mkdir()
    (folder / "out.jsonl").rename(folder / "real" / "out.jsonl")
    (folder / "out.jsonl.job").rename(folder / "link.jsonl.job")
    grow(folder)
    assert generate(folder, out="link.jsonl") == 0
    assert len(entries(folder / "real" / "out.jsonl")) == 4
    assert not (folder / "link.jsonl.job").exists()
