"""Encoding with several worker processes, and the command encode.py."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from encode import encode_text
from gpt2.cli import command as cli
from gpt2.data import dataset, documents, encode, workers
from gpt2.data.documents import DocumentPart
from gpt2.encoder import Encoder
from gpt2.errors import GPT2Error
from gpt2.formats import model_dir
from gpt2.formats.openai.vocabulary import load_encoder

TEXT = "It isn't so;  été 你好。🦄 12½\n\n\t" * 40


@pytest.fixture
def run(capsys, vocabulary):
    """Return a function: run(*arguments) -> (status, stdout, stderr) of the command with GPT-2's vocabulary."""

    def run(*arguments):
        status = cli.main(encode_text, [*map(str, arguments), f"--model_name={vocabulary}"])
        return status, *capsys.readouterr()

    return run


def stream(encoder, *texts):
    return [50256, *(i for text in texts for i in [*encoder.encode(text), 50256])]


def test_two_processes_write_the_same_ids_as_one(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "PART_CHARACTERS", 100)
    texts = [TEXT, "", "x" * 99, TEXT[:7], TEXT * 2]
    for i, text in enumerate(texts):
        (tmp_path / f"{i}.txt").write_text(text, encoding="utf-8")
    for processes in (1, 2):
        out = tmp_path / f"out/{processes}.npy"
        out.parent.mkdir(exist_ok=True)
        encode.encode(f"{tmp_path}/*.txt", str(out), encoder, workers=processes)
        assert np.load(out).tolist() == stream(encoder, *filter(None, texts))
    assert dataset.load(f"{tmp_path}/*.txt", encoder, workers=2).tolist() == np.load(out).tolist()


def test_workers_do_not_import_tensorflow():
    code = "import sys, gpt2.data.workers; sys.exit(not {'tensorflow', 'numpy'}.isdisjoint(sys.modules))"
    source = Path(workers.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(source)}).returncode == 0


def test_only_a_few_batches_are_read_ahead(encoder):
    requested = []

    def batches():
        for i in range(50):
            requested.append(i)
            yield [DocumentPart("a", True, 1)]

    encoded = workers.encode_batches(batches(), encoder, 2)
    next(encoded)
    assert len(requested) <= 2 * workers.BATCHES_AHEAD_PER_PROCESS + 1
    encoded.close()


def test_an_encoding_error_in_a_worker_is_raised_here(encoder):
    tiny_vocabulary = Encoder({"a": 0}, [])
    with pytest.raises(GPT2Error, match="this vocabulary cannot encode 'b'"):
        list(workers.encode_batches([[DocumentPart("b", True, 1)]] * 2, tiny_vocabulary, 2))


def test_a_killed_worker_raises_an_error_here(encoder):
    pool = workers.EncoderPool(encoder, 1)
    pool.encode([DocumentPart("a", True, 1)]).result()
    os.kill(pool.children[0].process.pid, signal.SIGKILL)
    with pytest.raises(GPT2Error, match="ended with status -9; if memory ran out, use fewer processes: --workers 1"):
        pool.encode([DocumentPart("a", True, 1)]).result()
    pool.close()


def test_a_closed_pool_leaves_no_process(encoder):
    pool = workers.EncoderPool(encoder, 1)
    future = pool.encode([DocumentPart("a " * 1_000_000, True, 1)])
    pool.encode([DocumentPart("a", True, 1)])
    pool.close()
    assert all(child.process.returncode is not None for child in pool.children)
    assert future.done()
    with pytest.raises(RuntimeError):
        pool.encode([DocumentPart("a", True, 1)])


def test_transcript(run, encoder, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\r\n")
    (tmp_path / "b.csv").write_text("text,by\ntwo,x\n")
    status, out, err = run(tmp_path, tmp_path / "data.npy", "--csv_header")
    assert (status, out) == (0, f"Reading files\nWriting {tmp_path / 'data.npy'}\n")
    assert "Encoding: 100%" in err and err.endswith("6 tokens of 2 documents\n")
    assert np.load(tmp_path / "data.npy").tolist() == stream(encoder, "one\n", "two")
    # Skips its own output; the header is now a document.
    again = run(tmp_path, tmp_path / "data", "--no_header", "--column", "column1")
    assert again[0] == 0 and again[2].endswith("8 tokens of 3 documents\n")


def test_the_old_command_line(run, encoder, tmp_path):
    (tmp_path / "a.txt").write_text("one two", encoding="latin-1")
    status, _, _ = run("--combine", "5", "--encoding", "latin-1", tmp_path / "a.txt", tmp_path / "a.npz")
    assert status == 0
    with np.load(tmp_path / "a.npz") as archive:
        assert archive["arr_0"].tolist() == stream(encoder, "one two")


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        (["nosuch", "out"], 1, "'nosuch' is neither a file nor a folder"),
        (["empty.txt", "out"], 1, "empty.txt holds no text"),
        (["a.txt", "nosuch/out"], 1, "nosuch/out.npy cannot be written"),
        (["a.txt", ""], 2, "out must be the name of a file, such as data.npy, not ''"),
        (["a.txt", "."], 2, "out must be the name of a file, such as data.npy, not '.'"),
        (["a.txt", "new/"], 2, "out must be the name of a file, such as data.npy, not 'new/'"),
        (["", "out"], 1, "'' is neither a file nor a folder"),
        (["a.txt", "out", "--encoding=klingon"], 2, "encoding must be one that Python knows"),
        (["a.txt", "out", "--combine=0"], 2, "combine must be a whole number of at least 1"),
        (["a.txt", "out", "--workers=0"], 2, "workers must be a whole number of at least 1"),
        (["a.txt"], 2, "out"),
    ],
)
def test_errors_have_one_line_and_leave_no_files(run, tmp_path, monkeypatch, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("one")
    Path("empty.txt").write_text("")
    exit_status, _, err = run(*arguments)
    (line,) = [line for line in err.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    assert exit_status == status and message in line
    assert sorted(os.listdir()) == ["a.txt", "empty.txt"]


def test_a_folder_as_output_is_rejected_before_encoding(run, tmp_path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "out.npz").mkdir()
    status, out, err = run(tmp_path / "a.txt", tmp_path / "out.npz")
    assert (status, out) == (2, "") and "out must be the name of a file" in err


def test_a_damaged_file_in_a_folder_leaves_no_output(run, tmp_path):
    for name, data in (("a.txt", b"one"), ("b.gz", b"no gzip")):
        (tmp_path / name).write_bytes(data)
    status, _, err = run(tmp_path, tmp_path / "out")
    assert status == 1 and "b.gz cannot be read: Not a gzipped file" in err
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "b.gz"]


def test_ctrl_c_leaves_no_output(run, tmp_path, monkeypatch):
    def raise_interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(workers, "encode_batch", raise_interrupt)
    (tmp_path / "a.txt").write_text("one")
    assert run(tmp_path / "a.txt", tmp_path / "out")[0] == cli.EXIT_INTERRUPTED
    assert os.listdir(tmp_path) == ["a.txt"]


def test_ctrl_c_ends_the_command_and_its_processes(tmp_path, vocabulary):
    (tmp_path / "a.txt").write_bytes(TEXT.encode() * 10_000)
    script = Path(workers.__file__).parents[3] / "encode.py"
    command = [sys.executable, script, "a.txt", "out", f"--model_name={vocabulary}", "--workers=2"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while not re.search(rb"Encoding: +[1-9]", process.stderr.read1()):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()  # waits for all processes that hold the pipe, the workers included
    assert process.returncode == cli.EXIT_INTERRUPTED and b"Traceback" not in err
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_with_only_a_vocabulary_is_enough(tmp_path, vocabulary, tiny_dir):
    assert model_dir.find_vocabulary(str(vocabulary)).n_vocab == 50257
    assert model_dir.find_vocabulary("tiny", str(tiny_dir.parent)).fingerprint == load_encoder(tiny_dir).fingerprint
    with pytest.raises(GPT2Error, match="lacks hparams.json"):
        (tmp_path / "encoder.json").write_text("{}")
        model_dir.find_vocabulary(str(tmp_path))
