"""Files that are complete or not there."""

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


def test_a_pipe_is_written_to(tmp_path):
    """A device or a pipe must not be replaced by a file: as root, this would destroy /dev/null."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    with files.atomic_write(pipe) as file:
        file.write(b"all of it")
    reader.join(10)
    assert received == [b"all of it"] and pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]


def test_a_folder_is_not_replaced(tmp_path):
    with pytest.raises(GPT2Error, match="cannot be written: Is a directory"), files.atomic_write(tmp_path) as file:
        file.write(b"never")
    assert tmp_path.is_dir()


def test_an_error_leaves_the_existing_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(ZeroDivisionError), files.atomic_write(path) as file:
        file.write(b"half of ")
        raise ZeroDivisionError
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


HALF_WRITTEN = """
import os, pathlib, signal, sys
from gpt2 import files
write = getattr(files, sys.argv[1])
with write(pathlib.Path(sys.argv[2]), *sys.argv[3:]) as part:
    path = part if isinstance(part, pathlib.Path) else pathlib.Path(part.name)
    (path / "file" if path.is_dir() else path).write_bytes(b"half of ")
    print("started", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    "call", [("temporary_file", "out[1]"), ("atomic_write", "out[1]"), ("atomic_write_many", "folder", "file")]
)
def test_the_next_write_removes_what_a_killed_process_left(tmp_path, call):
    """It does not remove what a living process is writing, nor other files with similar names."""
    function, path, *last = call
    path = tmp_path / path
    unrelated = [tmp_path / ".out[1].mine.part", tmp_path / ".out1.01234567.part"]
    for file in unrelated:
        file.touch()

    def temporary_files() -> list[Path]:
        return [file for file in tmp_path.rglob(".*") if file not in unrelated]

    def write() -> None:
        with getattr(files, function)(path, *last) as part:
            if isinstance(part, Path):
                (part / "file" if last else part).write_bytes(b"all")
            else:
                part.write(b"all")

    command = [sys.executable, "-c", HALF_WRITTEN, function, str(path), *last]
    environment = os.environ | {"PYTHONPATH": str(SRC)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": environment}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == b"started\n"
        write()
        assert len(temporary_files()) == 1
        process.send_signal(signal.SIGKILL)
    assert len(temporary_files()) == 1
    write()
    assert not temporary_files() and all(file.exists() for file in unrelated)
