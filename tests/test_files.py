"""Files that are there whole or not at all."""

import os
import threading

import pytest

from gpt2 import files
from gpt2.errors import GPT2Error


def test_what_is_no_regular_file_is_written_to(tmp_path):
    """A device or a pipe must not become a file: for root, /dev/null would."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    with files.replacing(pipe) as file:
        file.write(b"all of it")
    reader.join(10)
    assert read == [b"all of it"] and pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]


def test_a_folder_is_not_replaced(tmp_path):
    with pytest.raises(GPT2Error, match="cannot be written: Is a directory"), files.replacing(tmp_path) as file:
        file.write(b"never")
    assert tmp_path.is_dir()


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(ZeroDivisionError), files.replacing(path) as file:
        file.write(b"half of ")
        raise ZeroDivisionError
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]
