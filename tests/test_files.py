"""Files that are there whole or not at all."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gpt2 import files
from gpt2.errors import GPT2Error

SRC = Path(files.__file__).parents[1]


def test_what_is_no_regular_file_is_written_to(tmp_path):
    """A device or a pipe must not become a file: for root, /dev/null would."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    with files.atomic_write(pipe) as file:
        file.write(b"all of it")
    reader.join(10)
    assert read == [b"all of it"] and pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]


def test_a_folder_is_not_replaced(tmp_path):
    with pytest.raises(GPT2Error, match="cannot be written: Is a directory"), files.atomic_write(tmp_path) as file:
        file.write(b"never")
    assert tmp_path.is_dir()


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(ZeroDivisionError), files.atomic_write(path) as file:
        file.write(b"half of ")
        raise ZeroDivisionError
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


WRITING = """
import os, pathlib, signal, sys
from gpt2 import files
how = getattr(files, sys.argv[1])
with how(pathlib.Path(sys.argv[2]), *sys.argv[3:]) as part:
    path = part if isinstance(part, pathlib.Path) else pathlib.Path(part.name)
    (path / "file" if path.is_dir() else path).write_bytes(b"half of ")
    print("begun", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    "how", [("temporary_file", "out[1]"), ("atomic_write", "out[1]"), ("atomic_write_many", "folder", "file")]
)
def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path, how):
    """What a living one is about to write is not, nor what others have called so."""
    name, path, *last = how
    path = tmp_path / path
    own = [tmp_path / ".out[1].mine.part", tmp_path / ".out1.01234567.part"]
    for file in own:
        file.touch()

    def left():
        return [file for file in tmp_path.rglob(".*") if file not in own]

    def written():
        with getattr(files, name)(path, *last) as part:
            if isinstance(part, Path):
                (part / "file" if last else part).write_bytes(b"all")
            else:
                part.write(b"all")

    command = [sys.executable, "-c", WRITING, name, str(path), *last]
    environment = os.environ | {"PYTHONPATH": str(SRC)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": environment}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == b"begun\n"
        written()
        assert len(left()) == 1
        process.send_signal(signal.SIGKILL)
    assert len(left()) == 1
    written()
    assert not left() and all(file.exists() for file in own)
