"""Training data of a SentencePiece vocabulary: the ends of lines and documents, however the text is cut."""

from itertools import chain

import numpy as np
import pytest
import tiny_lm

from gpt2.data import dataset, documents, encode
from gpt2.formats.sentencepiece.sp_model import read

pytest.importorskip("sentencepiece")


@pytest.fixture(scope="module")
def vocabulary(sp_model):
    return read(sp_model)


def expected_ids(vocabulary, texts):
    """Return the ids of each line with its end, and an end of text before, between and after the documents."""
    ids = [2]
    for text in texts:
        lines = text.split("\n") if not text.endswith("\n") else text.split("\n")[:-1]
        ids += [*chain(*([*vocabulary.processor.EncodeAsIds(line), 1] for line in lines)), 2]
    return ids


@pytest.mark.parametrize("part", [7, 50, 1000, 1 << 20])
def test_parts_have_the_ids_of_the_whole(vocabulary, tmp_path, monkeypatch, part):
    monkeypatch.setattr(documents, "PART_CHARACTERS", part)
    texts = [tiny_lm.TEXT, "Ohne Zeilenende", tiny_lm.TEXT + "\n\n", "Das blaue " * 20, "Tür\n"]
    for i, text in enumerate(texts):
        (tmp_path / f"{i}.txt").write_text(text, encoding="utf-8")
    for processes in (1, 2):
        encode.encode(f"{tmp_path}/*.txt", str(tmp_path / "out.npy"), vocabulary, workers=processes)
        assert np.load(tmp_path / "out.npy").tolist() == expected_ids(vocabulary, texts)
    assert np.asarray(dataset.load(str(tmp_path / "out.npy"), vocabulary)).tolist() == expected_ids(vocabulary, texts)
    assert dataset.load(f"{tmp_path}/*.txt", vocabulary).tolist() == expected_ids(vocabulary, texts)


def test_a_long_line_without_an_end_is_cut_between_words(vocabulary, tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "PART_CHARACTERS", 64)
    text = "Das blaue Pferd war in der Straße " * 50
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    parts = list(documents.read([tmp_path / "a.txt"], find_cut=vocabulary.last_safe_cut))
    assert len(parts) > 10 and "".join(part.text for part in parts) == text
    assert [i for part in parts for i in vocabulary.encode(part.text)] == vocabulary.encode(text)


def test_rows_of_csv_are_documents(vocabulary, tmp_path):
    (tmp_path / "a.csv").write_text('text,by\n"Das\nPferd",x\nTür,y\n', encoding="utf-8")
    assert dataset.load(str(tmp_path / "a.csv"), vocabulary).tolist() == expected_ids(vocabulary, ["Das\nPferd", "Tür"])


def test_files_of_ids_as_sp_encode_writes_them(vocabulary, tmp_path):
    """They have no end of text at the start, and no sidecar."""
    ids = expected_ids(vocabulary, [tiny_lm.TEXT])[1:]
    np.save(tmp_path / "train.npy", np.array(ids, np.uint16))
    with pytest.warns(UserWarning, match="train.npy has no sidecar train.json that names its vocabulary"):
        assert np.asarray(dataset.load(str(tmp_path / "train.npy"), vocabulary)).tolist() == ids
