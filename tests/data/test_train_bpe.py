"""Training a vocabulary, compared with the library that trains it."""

import os
import sys
import warnings
from pathlib import Path

import pytest

from gpt2.cli import command as cli
from gpt2.data import train_bpe
from gpt2.encoder import END_OF_TEXT, byte_characters
from gpt2.errors import GPT2Error, UsageError
from gpt2.formats.openai.vocabulary import load_encoder
from scripts.train_tokenizer import train_tokenizer

tokenizers = pytest.importorskip("tokenizers")

TEXT = """It isn't so, she said; they'll see the sea, the seashore and the ships. 1234, 12345!
Es ist nicht so, sagte sie; über den Flüssen fließt das Grün der Bäume früh vorüber.

   \t\t\n\n  🦄🦄 你好，世界。 déjà vu   ...   the end.
""" * 3  # fmt: skip
SAMPLES = [
    "They didn't see the sea, they'll say.",
    "Über den Flüssen fließt das Grün",
    "🦄 你好，世界 🌍",
    "  the \n\n\n\t end   ",
    "'S 9½ e\u0301 \u3000 unseen Ω \x00\x7f",
    "",
]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return str(path)


def library_tokenizer(folder):
    """Return the library's tokenizer of the two files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = tokenizers.models.BPE.from_file(str(folder / "encoder.json"), str(folder / "vocab.bpe"))
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def test_ids_equal_those_of_the_library(text, tmp_path):
    encoder = train_bpe.train(text, tmp_path / "own", 330)
    loaded, library = load_encoder(tmp_path / "own"), library_tokenizer(tmp_path / "own")
    assert loaded.fingerprint == encoder.fingerprint and loaded.n_vocab == encoder.n_vocab == 330
    for sample in [*SAMPLES, TEXT]:
        assert loaded.encode(sample) == encoder.encode(sample) == library.encode(sample).ids
        assert loaded.decode(loaded.encode(sample)) == sample
    assert len(loaded.encode(TEXT)) < 0.7 * len(TEXT.encode())


def test_the_files_are_in_the_layout_of_openai(text, tmp_path):
    encoder = train_bpe.train(text, tmp_path / "own", 300)
    pieces = list(encoder.ids_of)
    assert pieces[:256] == list(byte_characters().values())
    assert pieces[256:-1] == [left + right for left, right in encoder.ranks]
    assert (pieces[-1], encoder.end_of_text) == (END_OF_TEXT, 299)
    lines = (tmp_path / "own/vocab.bpe").read_text(encoding="utf-8").split("\n")
    assert (lines[0], lines[-1], len(lines)) == ("#version: 0.2", "", 300 - 257 + 2)
    assert (tmp_path / "own/encoder.json").read_bytes().startswith(b'{"!": 0, "\\"": 1, ')


def test_the_same_text_gives_the_same_files(text, tmp_path):
    for name in "ab":
        train_bpe.train(text, tmp_path / name, 320)
    for name in ("encoder.json", "vocab.bpe"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_text_with_too_few_merges(tmp_path):
    (tmp_path / "a.csv").write_text("text\naab\naab\n")
    with pytest.warns(UserWarning, match="the text gives only 2 merges: n_vocab is 259, not 1000"):
        encoder = train_bpe.train(str(tmp_path / "a.csv"), tmp_path, 1000)
    assert load_encoder(tmp_path).encode("aab") == [257] and encoder.n_vocab == 259


def test_unpaired_surrogates(tmp_path):
    """Some encodings give them, and the library rejects them."""
    (tmp_path / "a.txt").write_bytes(b"abc +2AA- abc")
    assert train_bpe.train(str(tmp_path / "a.txt"), tmp_path, 259, "utf-7").encode("abc") == [257]


def test_a_vocabulary_without_merges(text, tmp_path):
    assert train_bpe.train(text, tmp_path, 257).encode("é") == [127, 102]


@pytest.mark.parametrize("n_vocab", [-1, 0, 256, 2**32 + 1])
def test_impossible_sizes_are_rejected(text, tmp_path, n_vocab):
    with pytest.raises(UsageError, match=rf"n_vocab must be from 257 \(256 bytes and .*\) to 1048576, not {n_vocab}"):
        train_bpe.train(text, tmp_path, n_vocab)


def test_the_vocabulary_of_a_model_is_not_replaced(text, tiny_dir):
    with pytest.raises(
        GPT2Error, match="tiny holds a model, which does not work with another vocabulary; choose another"
    ):
        train_bpe.train(text, tiny_dir, 300)


@pytest.mark.parametrize("content, message", [(b"", "holds no text"), (None, "neither a file nor a folder")])
def test_no_text(tmp_path, content, message):
    path = tmp_path / "a.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(GPT2Error, match=message):
        train_bpe.train(str(path), tmp_path / "own", 300)
    assert not (tmp_path / "own").exists()


def test_a_file_instead_of_a_folder(text, tmp_path):
    with pytest.raises(GPT2Error, match="the folder .*text.txt cannot be created: File exists"):
        train_bpe.train(text, tmp_path / "text.txt", 257)


def test_the_command(text, tmp_path, capsys):
    assert cli.main(train_tokenizer, [text, str(tmp_path / "own"), "300"]) == 0
    out, err = capsys.readouterr()
    assert out == "" and err.endswith(f"300 ids in {tmp_path / 'own'}\n")
    assert sorted(os.listdir(tmp_path / "own")) == ["encoder.json", "vocab.bpe"]


def test_a_missing_package_is_named(text, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert cli.main(train_tokenizer, [text, str(tmp_path / "own")]) == 1
    assert "error: the package tokenizers is missing; type: pip install" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["text.txt"]


@pytest.mark.parametrize("existing", [None, "own", "own/vocabulary"])
def test_a_failure_leaves_the_folders_unchanged(text, tmp_path, existing):
    (tmp_path / "u.gz").write_bytes(b"no gzip")
    if existing:
        (tmp_path / existing).mkdir(parents=True)
    with pytest.raises(GPT2Error, match="u.gz cannot be read"):
        train_bpe.train(str(tmp_path), tmp_path / "own/vocabulary", 300)
    assert {path.name for path in tmp_path.rglob("*")} == {"text.txt", "u.gz", *(existing or "").split("/")} - {""}


def test_both_files_are_replaced_or_none(text, tmp_path, monkeypatch):
    before = train_bpe.train(text, tmp_path / "own", 300).fingerprint

    def raise_disk_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", raise_disk_full)
    with pytest.raises(GPT2Error, match="the vocabulary in .*own cannot be written: No space left on device"):
        train_bpe.train(text, tmp_path / "own", 320)
    assert load_encoder(tmp_path / "own").fingerprint == before
    assert sorted(os.listdir(tmp_path / "own")) == ["encoder.json", "vocab.bpe"]


def test_an_empty_folder_name_is_rejected(text, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(train_tokenizer, [text, ""]) == 2
    assert "error: out must be the name of a folder, not ''" in capsys.readouterr().err
    assert os.listdir() == ["text.txt"]
    assert cli.main(train_tokenizer, [text, ".", "257"]) == 0
