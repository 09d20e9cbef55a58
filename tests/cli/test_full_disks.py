"""Disks that fill at any byte: one error line, status 1, and all files as before."""

import hashlib
import importlib.util
import random
import resource
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
from file_server import serve

from gpt2.cli import command
from gpt2.formats import download, model_dir, transfer
from gpt2.hparams import load_hparams
from gpt_2_simple.files import encode_csv

ROOT = Path(__file__).parents[2]
TEXT = "the cat sat on the mat and the dog sat on the log\n" * 400


def function(file, name):
    spec = importlib.util.spec_from_file_location(Path(file).stem, ROOT / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def rows_to_text():
    """Call a function of gpt-2-simple that also writes a file."""
    encode_csv("rows.csv", "out/rows.txt")


COMMANDS = {
    "csv": (rows_to_text, []),
    "npy": (function("encode.py", "encode_text"), ["text.txt", "out/ids.npy", "--model_name=models/355M"]),
    "npz": (function("encode.py", "encode_text"), ["text.txt", "out/ids.npz", "--model_name=models/355M"]),
    "vocabulary": (function("scripts/train_tokenizer.py", "train_tokenizer"), ["text.txt", "out", "--n_vocab=290"]),
    "download": (function("download_model.py", "download_model"), ["355M", "--models_dir=out"]),
}


@pytest.fixture
def workplace(tmp_path):
    tiny.write_model(tmp_path / "models" / "355M")
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "rows.csv").write_text(f"text\n{TEXT}")
    (tmp_path / "out").mkdir()
    return tmp_path


@pytest.fixture
def url(workplace, monkeypatch):
    """The URL of a server with the tiny model under the name 355M."""
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(transfer, "time", SimpleNamespace(sleep=lambda seconds: None))
    model = workplace / "models" / "355M"
    monkeypatch.setitem(model_dir.RELEASED_MODELS, "355M", load_hparams(model / "hparams.json"))
    for name in download.SHA256:
        monkeypatch.setitem(download.SHA256, name, hashlib.sha256((model / name).read_bytes()).hexdigest())
    with serve({f"models/355M/{path.name}": path.read_bytes() for path in model.iterdir()}) as server:
        yield server.url


def run(name, url, limit, capsys):
    """Run a command while no file may grow beyond `limit` bytes (None: no limit) and return (status, stderr)."""
    function, line = COMMANDS[name]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        status = command.main(function, [*line, *([f"--base_url={url}"] if name == "download" else [])])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    return status, capsys.readouterr().err


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def try_disks(count, seed, name, url, capsys):
    """Try `count` random limits, alternately in an empty folder and in one with a complete output."""
    rng, out = random.Random(seed), Path("out")
    assert run(name, url, None, capsys)[0] == 0
    complete = contents(out)
    largest = max(map(len, complete.values()))
    for again in [False, True] * (count // 2):
        if not again:
            shutil.rmtree(out)
            out.mkdir()
        before = contents(out)
        limit = rng.randrange(largest)
        status, err = run(name, url, limit, capsys)
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        after = contents(out)
        shown = f"{name}, {limit} bytes: {status}, {err[-300:]!r}, {sorted(after)}"
        if status == 0:  # no file, or only small ones, had to be written
            assert after == complete, shown
            continue
        assert status == 1 and len(errors) == 1 and "File too large" in errors[0], shown
        assert command.DEBUG_VARIABLE not in err, shown
        if name == "download":  # complete files stay, and the partial one, which the next download resumes
            assert all(complete.get(path, content) == content for path, content in after.items()), shown
        else:
            assert after == before, shown
        assert run(name, url, None, capsys)[0] == 0 and contents(out) == complete, shown


@pytest.mark.parametrize("name", COMMANDS)
def test_full_disks(name, url, capsys):
    try_disks(16, 1, name, url, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_hundreds_of_full_disks(name, url, capsys):
    try_disks(250, 2, name, url, capsys)
