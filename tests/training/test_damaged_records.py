"""Damaged progress files and histories of a run: one line says what to remove."""

import json
import random

import pytest

from gpt2.errors import DamagedFileError, GPT2Error, UnreadableFileError
from gpt2.training.checkpoints import run_folder
from gpt2.training.checkpoints.run_folder import read_progress
from gpt2.training.logs.history import History
from gpt2.training.run_progress import RunProgress

PROGRESS = RunProgress(3, 7, "adam", "abc", 1.5, 1.0, 2.0, None, 0, 1)


@pytest.fixture
def progress_path(tmp_path):
    path = run_folder.training_prefix(tmp_path / "model-3").with_suffix(".json")
    path.write_text(json.dumps(vars(PROGRESS)))
    return path


def test_progress_is_read(tmp_path, progress_path):
    assert read_progress(tmp_path / "model-3") == PROGRESS


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"7", b"{", b"[" * 100_000, b"\xff", b'{"step": "3"}', b'{"step": true}', b'{"steps": 3}']
    + [b'{"seed": 1.5}', b'{"best_loss": "low"}', b'{"vocabulary": null}', b'{"step": 1' + b"0" * 5000 + b"}"],
)
def test_damaged_progress_says_what_to_remove(tmp_path, progress_path, content):
    progress_path.write_bytes(content)
    with pytest.raises(
        DamagedFileError, match=r"training-3.json is damaged: .*; remove it to resume from the weights alone"
    ) as caught:
        read_progress(tmp_path / "model-3")
    assert str(caught.value).isprintable()


def test_unreadable_progress_is_not_called_damaged(tmp_path, progress_path):
    progress_path.unlink()
    progress_path.symlink_to(tmp_path)
    progress_path.with_name("training-2.json").symlink_to(tmp_path)  # a folder in place of a file
    with pytest.raises(UnreadableFileError, match="cannot be read: Is a directory"):
        read_progress(tmp_path / "model-3")


def test_history_keeps_valid_records(tmp_path):
    lines = [b'{"step": 1, "loss": 2.0}', b"7", b'{"loss": 1}', b'{"step": "x"}', b"\xff\xfe", b"[" * 100_000, b""]
    (tmp_path / "progress.jsonl").write_bytes(b"\n".join([*lines, b'{"step": 2, "loss": 1.0}', b'{"step": 3, "lo']))
    History(tmp_path, 3)
    records = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_bytes().splitlines()]
    assert [record["loss"] for record in records] == [2.0, 1.0]


def test_progress_with_random_damage(tmp_path, progress_path):
    rng = random.Random(0)
    original = progress_path.read_bytes()
    for _ in range(200):
        data = bytearray(original)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        progress_path.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        try:
            read_progress(tmp_path / "model-3")
        except GPT2Error as error:
            assert str(error).isprintable()
