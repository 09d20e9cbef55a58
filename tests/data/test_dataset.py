"""Files of text and of ids become one row of ids, and damaged ones are rejected."""

import gzip
import io
import json
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gpt2.data import dataset, documents, encode, token_file, windows
from gpt2.data.workers import EncodedBatch
from gpt2.encoder import Encoder
from gpt2.errors import GPT2Error, UsageError

EOT = 50256


@pytest.fixture
def write(tmp_path):
    """Return a function: write(name, text or bytes or arrays) -> path as a string."""

    def write(name, content):
        path = tmp_path / name
        if isinstance(content, np.ndarray):
            np.save(path, content)
        elif isinstance(content, list):
            np.savez_compressed(path, *content)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return str(path)

    return write


@pytest.fixture
def other_encoder(encoder):
    """Return GPT-2's vocabulary with its first merge moved to the end."""
    merges = list(encoder.ranks)
    return Encoder(encoder.ids_of, [*merges[1:], merges[0]])


def stream(encoder, *texts):
    return [EOT, *(i for text in texts for i in [*encoder.encode(text), EOT])]


def row(*values):
    return np.array(values, np.uint16)


def test_documents_have_an_end_of_text_before_and_after(encoder, write, tmp_path):
    write("a.txt", "one")
    write("b.csv", "by,text\nx,two\ny,three\n")
    write("c.txt.gz", gzip.compress(b"four\r\n"))
    ids = dataset.load(str(tmp_path), encoder)
    assert ids.dtype == np.uint16
    assert ids.tolist() == stream(encoder, "one", "two", "three", "four\n")
    assert dataset.load(f"{tmp_path}/*.csv", encoder, csv_format=documents.CsvFormat(column="by")).tolist() == stream(
        encoder, "x", "y"
    )


def test_without_an_end_of_text_documents_follow_each_other_directly(encoder, write, tmp_path):
    ids_of = {piece: i for piece, i in encoder.ids_of.items() if i != EOT}
    write("a.txt", "one")
    write("b.txt", "two")
    assert dataset.load(str(tmp_path), Encoder(ids_of, list(encoder.ranks))).tolist() == encoder.encode("one") + (
        encoder.encode("two")
    )


def test_a_large_vocabulary_takes_four_bytes(write):
    pieces = [*map(chr, range(33, 127)), *map(chr, range(161, 173)), *map(chr, range(174, 324))]
    encoder = Encoder({piece: i + 70000 for i, piece in enumerate(pieces)}, [])
    ids = dataset.load(write("a.txt", "!!"), encoder)
    assert (ids.dtype, ids.tolist()) == (np.uint32, [70000, 70000])


@pytest.mark.parametrize("name", ["b.txt", "b.npy", "b.npz"])
def test_kinds_of_files_may_be_mixed(encoder, write, tmp_path, name):
    one, two, three = ([*encoder.encode(text)] for text in ("one", "two", "three"))
    write("a.txt", "one")
    write("c.txt", "three")
    if name == "b.txt":
        write(name, "two")
    else:
        write(name, row(EOT, *two, EOT) if name == "b.npy" else [np.array(two[:1]), np.array(two[1:], np.int64)])
    if name == "b.npy":
        with pytest.warns(UserWarning, match=r"b.npy has no sidecar b.json that names its vocabulary"):
            ids = dataset.load(str(tmp_path), encoder)
    else:
        ids = dataset.load(str(tmp_path), encoder)
    assert ids.tolist() == [EOT, *one, EOT, *two, EOT, *three, EOT]


def test_a_token_file_is_read_lazily_and_its_sidecar_is_checked(encoder, other_encoder, write, tmp_path):
    out = encode.encode(write("a.txt", "some words"), str(tmp_path / "data"), encoder)
    assert out == (tmp_path / "data.npy", 4, 1)
    ids = dataset.load(str(tmp_path / "data.npy"), encoder)
    assert isinstance(ids, token_file.StoredIds) and ids.dtype == np.dtype("<u2")
    assert np.asarray(ids).tolist() == stream(encoder, "some words")
    assert json.loads((tmp_path / "data.json").read_text()) == {
        "vocabulary": encoder.fingerprint,
        "n_vocab": 50257,
        "tokens": 4,
        "documents": 1,
    }
    with pytest.raises(GPT2Error, match="ids of another vocabulary than the model's; encode its text again: python3"):
        dataset.load(str(tmp_path / "data.npy"), other_encoder)
    np.save(tmp_path / "data.npy", row(1, 2, 3))
    with pytest.raises(GPT2Error, match="it has 3 ids, but its sidecar data.json says 4"):
        dataset.load(str(tmp_path / "data.npy"), encoder)


def test_stored_ids_behave_like_an_array(encoder, write):
    """In every way that training uses them."""
    array = np.random.default_rng(1).integers(50257, size=1000).astype(">i4")
    with pytest.warns(UserWarning, match="has no sidecar a.json"):
        ids = dataset.load(write("a.npy", array), encoder)
    for at in (slice(None), slice(3, 9), slice(-5, None), slice(7, 2), slice(0, 1000, 17), slice(100, 900)):
        assert np.array_equal(ids[at], array[at]) and len(ids[at]) == len(array[at])
    assert [ids[0], ids[-1], ids[np.int64(5)]] == array[[0, -1, 5]].tolist()
    assert np.array_equal(windows.random_windows(ids, 11, 6, 1, 5), windows.random_windows(array, 11, 6, 1, 5))
    stored_split = windows.hold_out(ids, 0.1)
    array_split = windows.hold_out(array, 0.1)
    assert len(stored_split.train) == 900 and np.array_equal(
        windows.random_windows(stored_split.train, 11, 6, 1, 5), windows.random_windows(array_split.train, 11, 6, 1, 5)
    )
    for stored_batch, array_batch in zip(
        windows.spread_windows(stored_split.validation, 11, 4, 3),
        windows.spread_windows(array_split.validation, 11, 4, 3),
    ):
        assert np.array_equal(stored_batch, array_batch)


def test_truncating_a_token_file_in_use_raises_an_error(encoder, write, tmp_path):
    """It would crash the program if the file were memory-mapped."""
    out = encode.encode(write("a.txt", "some words " * 9000), str(tmp_path / "data"), encoder).path
    ids = dataset.load(str(out), encoder)
    os.truncate(out, 1000)
    assert np.asarray(ids[:400]).shape == (400,)
    with pytest.raises(GPT2Error, match="data.npy was cut off while it was in use; encode its text again: python3"):
        windows.random_windows(ids[8000:], 100, 2, 1, 1)


def test_replacing_a_token_file_in_use_changes_nothing(encoder, write, tmp_path):
    path = write("a.txt", "some words")
    ids = dataset.load(str(encode.encode(path, str(tmp_path / "data"), encoder).path), encoder)
    encode.encode(write("a.txt", "other"), str(tmp_path / "data"), encoder)
    assert np.asarray(ids).tolist() == stream(encoder, "some words")


def test_invalid_ids_in_a_token_file_are_detected_when_they_are_read(encoder, write, tmp_path):
    out = encode.encode(write("a.txt", "some words " * 90), str(tmp_path / "data"), encoder).path
    data = bytearray(out.read_bytes())
    data[-2:] = b"\xff\xff"
    out.write_bytes(data)
    ids = dataset.load(str(out), encoder)
    assert ids[0] == EOT
    with pytest.raises(GPT2Error, match="data.npy holds the id 65535, but the model's ids are below 50257"):
        np.asarray(ids)


@pytest.mark.parametrize("shape", [(10**15,), (-1,), (1, 10**15)])
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_headers_with_impossible_shapes(encoder, write, name, shape):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<u2", "fortran_order": False, "shape": shape})
    file.write(bytes(100))
    if name == "a.npz":
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as files:
            files.writestr("arr_0.npy", file.getvalue())
        file = archive
    with pytest.raises(GPT2Error, match="a.np. is damaged or not a file of ids"):
        dataset.load(write(name, file.getvalue()), encoder)


def test_files_that_are_not_sidecars(encoder, write, tmp_path):
    """JSON that is nested too deeply, and a pipe, which would block."""
    write("a.json", "[" * 4000)
    with pytest.raises(GPT2Error, match="a.json is JSON, not plain text"):
        dataset.load(str(tmp_path), encoder)
    os.mkfifo(tmp_path / "b.json")
    with pytest.warns(UserWarning, match="b.npy has no sidecar b.json"):
        dataset.load(write("b.npy", row(1)), encoder)


def test_sidecars_are_not_training_text(encoder, write, tmp_path):
    encode.encode(write("a.txt", "one"), str(tmp_path / "data"), encoder)
    assert np.asarray(dataset.load(f"{tmp_path}/*[!t]", encoder)).tolist() == stream(encoder, "one")
    write("text.json", '{"vocabulary": 1}')
    with pytest.raises(GPT2Error, match="text.json is JSON, not plain text"):
        dataset.load(f"{tmp_path}/*[!t]", encoder)


@pytest.mark.parametrize("content", [row(5, 50257), np.array([3, -1])])
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_ids_that_the_model_does_not_have(encoder, write, name, content, monkeypatch):
    monkeypatch.setattr(token_file, "BLOCK_IDS", 1)
    path = write(name, content if name == "a.npy" else [row(1), content])
    with pytest.raises(
        GPT2Error, match=f"a.np. holds the id {content[1]}, but the model's ids are below 50257; encode its text"
    ):
        dataset.load(path, encoder)


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.npy", b""),
        ("a.npy", b"junk" * 99),
        ("a.npy", np.zeros((2, 2), np.uint16)),
        ("a.npy", np.zeros(3)),
        ("a.npy", np.array([{}])),
        ("a.npz", b""),
        ("a.npz", b"junk" * 99),
        ("a.npz", [np.zeros(3)]),
        ("a.npz", [np.array([{}])]),
    ],
)
def test_damaged_files(encoder, write, name, content):
    with pytest.raises(GPT2Error, match=r"a.np. is damaged or not a file of ids: [^\n]*; encode its text again[^\n]*$"):
        dataset.load(write(name, content), encoder)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_cut_off_files(encoder, write, tmp_path, name):
    ids = np.random.default_rng(0).integers(50257, size=1000).astype(np.uint16)
    data = Path(write(name, ids if name == "a.npy" else [ids])).read_bytes()
    for size in range(1, len(data), len(data) // 9):
        with pytest.raises(GPT2Error, match="is damaged"):
            dataset.load(write(name, data[:size]), encoder)


def test_wrong_bytes_inside_an_archive(encoder, write):
    data = bytearray(Path(write("a.npz", [np.arange(1000)])).read_bytes())
    data[200:220] = bytes(20)
    with pytest.raises(GPT2Error, match="is damaged"):
        dataset.load(write("a.npz", bytes(data)), encoder)


@pytest.mark.parametrize("name, content", [("a.txt", ""), ("a.csv", "\n\n"), ("a.npz", [row()])])
def test_an_empty_training_set(encoder, write, name, content):
    path = write(name, content)
    with pytest.raises(
        GPT2Error, match=re.escape(f"{path} holds no text; give a file of text or a folder of such files")
    ):
        dataset.load(path, encoder)


def test_an_unknown_encoding(encoder, write):
    with pytest.raises(UsageError, match="not 'klingon'"):
        dataset.load(write("a.txt", "a"), encoder, encoding="klingon")


def test_the_sidecar_replaces_no_other_file(encoder, write, tmp_path):
    write("data.json", '"a text"')
    path = write("text.txt", "a text")
    with pytest.raises(GPT2Error, match="the sidecar of .*data.npy would replace .*data.json; choose another name"):
        encode.encode(path, str(tmp_path / "data"), encoder)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["data.json", "text.txt"]


def test_an_interruption_leaves_the_existing_file(encoder, tmp_path):
    for name in ("a.npy", "a.npz"):
        path = tmp_path / name
        path.write_bytes(b"before")
        with pytest.raises(KeyboardInterrupt), token_file.write(path, encoder) as writer:
            writer.append(EncodedBatch(bytes(10), 1, 10))
            raise KeyboardInterrupt
        assert path.read_bytes() == b"before"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.npy", "a.npz"]


def test_a_file_that_cannot_be_written(encoder, tmp_path):
    message = "nosuch/a.npy cannot be written: No such file or directory"
    with pytest.raises(GPT2Error, match=message), token_file.write(tmp_path / "nosuch/a.npy", encoder):
        pass


@pytest.mark.parametrize("combine, chunks", [(1, 4), (9, 2), (1000, 1)])
def test_the_format_of_the_old_tools(encoder, write, tmp_path, combine, chunks):
    write("a.csv", "text\none\ntwo two\nthree\nfour\n")
    written = encode.encode(str(tmp_path / "a.csv"), str(tmp_path / "b.npz"), encoder, combine=combine)
    with np.load(tmp_path / "b.npz") as archive:
        assert archive.files == [f"arr_{i}" for i in range(chunks)]
        arrays = [archive[name] for name in archive.files]
    assert {array.dtype for array in arrays} == {np.dtype("<i8")}
    expected = stream(encoder, "one", "two two", "three", "four")
    assert np.concatenate(arrays).tolist() == expected == dataset.load(str(tmp_path / "b.npz"), encoder).tolist()
    assert written == (tmp_path / "b.npz", len(expected), 4)
    with zipfile.ZipFile(tmp_path / "b.npz") as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_DEFLATED}


def test_documents_in_parts_have_the_same_ids(encoder, write, monkeypatch):
    text = "Some words, 12 of them; isn't it?\n\n" * 30
    monkeypatch.setattr(documents, "PART_CHARACTERS", 50)
    assert dataset.load(write("a.txt", text), encoder).tolist() == stream(encoder, text)
