"""Damages, swaps or hides the small files of a model: each error is one line, or the model is unchanged."""

import errno
import os
import random
import shutil
import tracemalloc

import pytest
from damage import damage_bytes, damage_json

from gpt2 import files
from gpt2.errors import DamagedFileError, GPT2Error, UnreadableFileError
from gpt2.formats.model_dir import find_model, find_vocabulary, load_vocabulary
from gpt2.formats.openai import checkpoint
from gpt2.formats.openai.checkpoint_files import current_checkpoint
from gpt2.hparams import load_hparams

HPARAMS, ENCODER, MERGES, STATE = NAMES = ("hparams.json", "encoder.json", "vocab.bpe", "checkpoint")
INDEX, DATA = "model.ckpt.index", "model.ckpt.data-00000-of-00001"
MAX_MEMORY_BYTES = 30_000_000  # the largest file has 140,000


@pytest.fixture
def folder(tmp_path, tiny_dir):
    return shutil.copytree(tiny_dir, tmp_path / "model")


def read_everything(folder):
    """Return what the small files say, after every check of them."""
    directory = find_model(str(folder))
    encoder = load_vocabulary(directory)
    checkpoint.read_weights(directory.weights_path, directory.hparams)
    # Special tokens may have any name.
    pieces = {piece: i for piece, i in encoder.ids_of.items() if not piece.startswith("<")}
    # No check can notice a wrong number of heads.
    return vars(directory.hparams) | {"n_head": 0}, directory.weights_path, pieces, encoder.merges()


def damage_text(rng, content):
    """Return an odd `checkpoint` file, or odd lines of merges."""
    name = rng.choice(["x" * 5000, "../..", "/", ".", "a\0b", "a\nb", "*", "[", "\\", " "])
    state = f'model_checkpoint_path: "{name}"\n'.encode()
    return rng.choice([state, b"", b"\n" * 1000, content * 2, b"a b\n" + content])


def damage(rng, contents):
    """Change one of the files, and return its name and its new content."""
    name = rng.choice(NAMES)
    kind = rng.randrange(4)
    if kind == 0:
        other = rng.choice([n for n in contents if n != name])
        return name, contents[other]
    if kind == 1:
        return name, (damage_json if name.endswith(".json") else damage_text)(rng, contents[name])
    return name, damage_bytes(rng, contents[name])


@pytest.mark.parametrize("cases", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_damage_is_reported_in_one_line_or_changes_nothing(folder, cases):
    contents = {name: (folder / name).read_bytes() for name in (*NAMES, INDEX, DATA)}
    expected = read_everything(folder)
    rng = random.Random(1)
    n_unchanged = 0
    for case in range(cases):
        name, content = damage(rng, contents)
        (folder / name).write_bytes(content)
        tracemalloc.start()
        try:
            result = read_everything(folder)
        except GPT2Error as error:
            assert "\n" not in str(error) and len(str(error)) < 6000 and str(folder) in str(error), (case, str(error))
        else:
            n_unchanged += 1
            assert result == expected, (case, name)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < MAX_MEMORY_BYTES, case
        (folder / name).write_bytes(contents[name])
    # Harmless changes: blank lines, spaces, the second line of `checkpoint`, the name of the special token.
    assert n_unchanged < cases / 4


READERS = {
    HPARAMS: lambda folder: load_hparams(folder / HPARAMS),
    ENCODER: lambda folder: load_vocabulary(find_model(str(folder))),
    MERGES: lambda folder: find_vocabulary(str(folder)),
    STATE: lambda folder: current_checkpoint(folder),
    INDEX: lambda folder: find_model(str(folder)),
}
REASONS = {
    errno.EIO: "Input/output error",
    errno.EACCES: "Permission denied",
    errno.EMFILE: "Too many open files",
    errno.ELOOP: "Too many levels of symbolic links",
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("number", REASONS)
def test_an_unreadable_file_is_not_called_damaged(folder, monkeypatch, name, number):
    original = type(folder).open

    def failing_open(path, *args, **kwargs):
        if path.name == name:
            raise OSError(number, os.strerror(number))
        return original(path, *args, **kwargs)

    monkeypatch.setattr(type(folder), "open", failing_open)
    with pytest.raises(UnreadableFileError, match=f"{name} cannot be read: {REASONS[number]}$"):
        READERS[name](folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_lack_of_memory_is_not_called_damage(folder, monkeypatch, name):
    def no_memory(_):
        raise MemoryError

    monkeypatch.setattr(files, "read_text", no_memory)
    with pytest.raises(MemoryError):
        READERS[name](folder)


def test_an_absurdly_large_file_is_not_read(folder):
    with (folder / HPARAMS).open("wb") as file:
        file.truncate(1 << 40)  # a sparse file: a terabyte that takes no space
    with pytest.raises(DamagedFileError, match="hparams.json is damaged: it has more than"):
        find_model(str(folder))


@pytest.mark.parametrize("name", [*NAMES, INDEX, DATA])
def test_links_to_themselves_and_folders_in_place_of_files(folder, name):
    (folder / name).unlink()
    (folder / name).symlink_to(name)
    with pytest.raises(GPT2Error, match=r"Too many levels of symbolic links$|is missing|lacks"):
        read_everything(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(GPT2Error, match=f"{name}( is missing|;| cannot be read: Is a directory)"):
        read_everything(folder)


LONG = "x" * 300


@pytest.mark.parametrize(
    "name, message",
    [
        ("loop", "loop.* cannot be read: Too many levels of symbolic links$"),
        ("loop/x", "x.* cannot be read: Too many levels of symbolic links$"),
        (LONG, "cannot be read: File name too long$"),
        ("file/x", "is neither in|is not in"),
        ("file", "file is a file but not a model|is not in file"),
        ("a\0b", r"'a\\x00b'"),
    ],
)
def test_paths_that_cannot_be_followed(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    for find in (find_model, find_vocabulary):
        with pytest.raises(GPT2Error, match=message):
            find(name)
        with pytest.raises(
            GPT2Error, match=message.replace(" cannot be read: Too many", "/124M cannot be read: Too many")
        ):
            find("124M", name)
