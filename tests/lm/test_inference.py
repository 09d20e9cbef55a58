"""transformer-lm's ModelWrapper over the engine: its numbers are the slow reference's, its methods the old ones'."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_lm

import lm.inference as lmi
from gpt2.engine import reference as numpy_gpt2
from gpt2.errors import GPT2Error, UsageError
from gpt2.formats.model_dir import find_model
from gpt2.formats.weights import Layout, nest

SRC = Path(__file__).resolve().parents[2] / "src"
TEXT = "Das blaue Pferd war"


@pytest.fixture(scope="module")
def mw(lm_dir):
    return lmi.ModelWrapper.load(lm_dir)


@pytest.fixture(scope="module")
def slow(lm_dir):
    """slow(pieces) -> log-probabilities [T, V], of NumPy's GPT-2"""
    found = find_model(str(lm_dir))
    read = (
        (n, w.array().T if w.layout is Layout.OUT_IN and n.endswith("/w") else w.array())
        for n, w in found.read().items()
    )
    weights = nest(read)

    def slow(mw, pieces):
        logits = numpy_gpt2.logits(weights, found.hparams, [mw.token_to_id(piece) for piece in pieces])
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    return slow


def test_load(lm_dir, mw):
    assert lmi.ModelWrapper.load(str(lm_dir)).params == mw.params and mw.params["seen_tokens"] == 1234
    assert mw.params["lr"] == 1e-3 and mw.params["hparams"]["n_embed"] == 32
    sizes = {"n_vocab": 120, "n_ctx": 32, "n_embed": 32, "n_hidden": 32, "n_head": 4, "n_layer": 2}
    assert mw.model.hparams._asdict() == {**sizes, "gradient_checkpointing": False}
    assert mw.END_OF_TEXT == "<endoftext>" and mw.END_OF_LINE == lmi.END_OF_LINE == "<endofline>"


def test_layers_wider_than_the_embeddings(tmp_path, sp_model):
    mw = lmi.ModelWrapper.load(tiny_lm.write_model(tmp_path / "de", sp_model, tiny_lm.WIDER))
    assert (mw.model.hparams.n_embed, mw.model.hparams.n_hidden) == (32, 48)
    assert len(mw.generate_tokens(mw.tokenize(TEXT), 5, top_k=8)) == 5


def test_other_vocabularies_are_refused(tiny_dir, tmp_path):
    with pytest.raises(GPT2Error, match="tiny has no SentencePiece vocabulary, which lm needs"):
        lmi.ModelWrapper.load(tiny_dir)
    with pytest.raises(GPT2Error, match="nor the path of a folder"):
        lmi.ModelWrapper.load(tmp_path / "nosuch")


def test_pieces(mw):
    pieces = mw.tokenize(TEXT)
    assert "".join(pieces) == "▁Das▁blaue▁Pferd▁war" and mw.tokenize(" \n ") == []
    assert [mw.id_to_token(mw.token_to_id(piece)) for piece in pieces] == pieces
    assert mw.token_to_id("nosuch") == 0 and mw.token_to_id(mw.END_OF_TEXT) == 2
    assert mw.sp_model.DecodePieces(pieces) == TEXT == mw.sp_model.decode_pieces(pieces)


def test_log_probs(mw, slow):
    pieces = [mw.END_OF_TEXT, *mw.tokenize(TEXT)]
    expected = slow(mw, pieces)
    found = mw.get_log_probs(pieces)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert type(found.numpy()) is np.ndarray and found.shape == (len(pieces), 120)
    np.testing.assert_allclose(found.exp().sum(-1), 1, atol=1e-4)
    values, places = found[-1].topk(3)
    assert places.tolist() == np.argsort(-expected[-1])[:3].tolist()
    np.testing.assert_allclose(values, np.sort(expected[-1])[::-1][:3], atol=1e-4)


def test_occurred_log_probs(mw, slow):
    pieces = mw.tokenize(TEXT)
    expected = slow(mw, pieces)
    found = mw.get_occurred_log_probs(pieces)
    assert [piece for _, piece in found] == pieces[1:]
    wanted = [expected[i, mw.token_to_id(piece)] for i, piece in enumerate(pieces[1:])]
    np.testing.assert_allclose([log_prob for log_prob, _ in found], wanted, atol=1e-4)


def test_the_window_is_scored_to_its_end_and_no_further(mw, slow):
    pieces = (mw.tokenize(TEXT) * 10)[:32]
    np.testing.assert_allclose(mw.get_log_probs(pieces), slow(mw, pieces), atol=1e-4)
    assert len(mw.get_occurred_log_probs(pieces)) == 31
    for score in (mw.get_log_probs, mw.get_occurred_log_probs, mw.get_occurred_word_log_probs):
        with pytest.raises(ValueError, match="there are 33 pieces, but the window holds 32"):
            score([*pieces, "x"])


def test_next_pieces(mw, slow):
    pieces = mw.tokenize(TEXT)
    expected = slow(mw, pieces)[-1]
    top = mw.get_next_top_k(pieces, 8)
    assert len(top) == 8 and top == sorted(top, reverse=True) and isinstance(top[0][0], float)
    assert [mw.token_to_id(piece) for _, piece in top] == np.argsort(-expected)[:8].tolist()
    np.testing.assert_allclose([log_prob for log_prob, _ in top], np.sort(expected)[::-1][:8], atol=1e-4)
    assert len(mw.get_next_top_k(pieces, 0)) == len(mw.get_next_top_k(pieces, 500)) == 120
    assert mw.get_next_top_k(pieces * 20, 1) == mw.get_next_top_k((pieces * 20)[-31:], 1)


@pytest.mark.parametrize("top_p", [0.0, 0.1, 0.5, 0.99, 1.0])
def test_nucleus(mw, slow, top_p):
    pieces = mw.tokenize(TEXT)
    expected = slow(mw, pieces)[-1]
    found = mw.get_next_top_p_nucleus(pieces, top_p)
    kept = np.isfinite(found)
    order = np.argsort(-expected)
    before = np.cumsum(np.exp(expected[order])) - np.exp(expected[order])
    assert set(np.flatnonzero(kept)) == set(order[(before <= top_p) | (np.arange(120) == 0)])
    np.testing.assert_allclose(found[kept], expected[kept], atol=1e-4)


def greedy(mw, slow, pieces, n):
    """By the slow reference; within the window."""
    pieces = list(pieces)
    for _ in range(n):
        pieces.append(mw.id_to_token(slow(mw, pieces)[-1].argmax()))
    return pieces[-n:]


def test_generate_tokens(mw, slow):
    pieces = mw.tokenize(TEXT)
    expected = greedy(mw, slow, pieces, 12)
    assert mw.generate_tokens(pieces, tokens_to_generate=12, top_k=1) == expected
    assert mw.generate_tokens(pieces, 12, 0, temperature=0) == expected
    assert mw.generate_tokens(pieces, 12, 8, top_p=1e-9) == expected, "the likeliest one is always kept"
    assert mw.generate_tokens(pieces, 0, 8) == []


def test_sampling_follows_numpys_seed(mw):
    pieces = mw.tokenize(TEXT)

    def written(**options):
        np.random.seed(5)
        return [mw.generate_tokens(pieces, 20, **options) for _ in range(2)]

    for options in ({"top_k": 8}, {"top_k": 0}, {"top_k": 1, "top_p": 0.9, "temperature": 0.7}):
        first, second = written(**options)
        assert written(**options) == [first, second] and first != second


def test_only_the_likeliest_are_drawn(mw):
    pieces = mw.tokenize(TEXT)
    allowed = {piece for _, piece in mw.get_next_top_k(pieces, 3)}
    assert {mw.generate_tokens(pieces, 1, top_k=3)[0] for _ in range(60)} == allowed


def test_where_the_old_one_failed(mw):
    """Past the window, from nothing, more than there are."""
    pieces = mw.tokenize(TEXT)
    assert len(mw.generate_tokens(pieces, 100, top_k=8)) == 100
    assert mw.generate_tokens([], 5, top_k=1) == mw.generate_tokens([mw.END_OF_TEXT], 5, top_k=1)
    assert len(mw.generate_tokens(pieces, 3, top_k=10**6)) == 3
    for wrong in ({"top_k": -1}, {"top_k": 8, "temperature": -1}, {"top_k": 2.5}):
        with pytest.raises(UsageError):
            mw.generate_tokens(pieces, 3, **wrong)


def test_the_prefix_too_as_before_july_2020(mw, monkeypatch):
    pieces = mw.tokenize(TEXT)
    new = mw.generate_tokens(pieces, 5, top_k=1)
    monkeypatch.setattr(lmi.ModelWrapper, "prefix_too", True)
    assert mw.generate_tokens(pieces, 5, top_k=1) == pieces + new


def test_words(mw, slow):
    """What upstream does, once more and slowly."""
    pieces = [mw.END_OF_TEXT, *mw.tokenize("Das blaue Pferd, war")]
    logs = slow(mw, pieces)
    known = [mw.id_to_token(i) for i in range(120)]
    is_word = np.array([any(c.isalnum() or c == "_" for c in piece) for piece in known])
    goes_on = np.array([word and not piece.startswith("▁") for word, piece in zip(is_word, known)])

    def among(line, which):
        return np.log(np.exp(line[which]).sum())

    expected, total, word = [], 0.0, ""
    for line, piece in zip(logs, pieces[1:]):
        i = mw.token_to_id(piece)
        if not goes_on[i] and word:
            expected.append((total + among(line, ~goes_on), word))
            total, word = 0.0, ""
        if is_word[i]:
            total, word = total + line[i] - among(line, is_word), word + piece.lstrip("▁")
    expected.append((total, word))
    found = mw.get_occurred_word_log_probs(pieces)
    assert [word for _, word in found] == [word for _, word in expected] == ["Das", "blaue", "Pferd", "war"]
    np.testing.assert_allclose([p for p, _ in found], [p for p, _ in expected], atol=1e-4)


def test_no_tensorflow(native, lm_dir):
    code = f"""
import sys
sys.path.insert(0, {str(SRC)!r})
import lm.inference as lmi
mw = lmi.ModelWrapper.load({str(lm_dir)!r})
assert len(mw.generate_tokens(mw.tokenize("Das"), 5, top_k=8)) == 5 and mw.get_next_top_k(["▁Das"], 1)
sys.exit("tensorflow" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize("name", ["model.pt", "model-legacy.pt"])
def test_a_model_that_transformer_lm_trained(german, tmp_path, name):
    """The same log-probabilities, and greedy pieces, as transformer-lm's own code gives."""
    expected = json.loads((german / "expected.json").read_text(encoding="utf-8"))
    last = np.load(german / "expected.npz")
    for file, target in (("params.json", "params.json"), ("sp.model", "sp.model"), (name, "model.pt")):
        (tmp_path / target).symlink_to(german / file)
    mw = lmi.ModelWrapper.load(tmp_path)
    for i, prompt in enumerate(expected["prompts"]):
        pieces = mw.tokenize(prompt)
        assert pieces == expected["pieces"][i]
        assert [mw.token_to_id(piece) for piece in pieces] == expected["ids"][i]
        occurred = [log_prob for log_prob, _ in mw.get_occurred_log_probs(pieces)]
        np.testing.assert_allclose(occurred, expected["occurred"][i], atol=1e-4)
        np.testing.assert_allclose(mw.get_log_probs(pieces)[-1], last[f"last{i}"], atol=1e-4)
        top = mw.get_next_top_k(pieces, 5)
        assert [piece for _, piece in top] == [piece for _, piece in expected["next_top5"][i]]
        np.testing.assert_allclose([p for p, _ in top], [p for p, _ in expected["next_top5"][i]], atol=1e-4)
        new = mw.generate_tokens(pieces, 24, top_k=1)
        assert new == expected["greedy_pieces"][i]
        assert mw.sp_model.DecodePieces(pieces + new) == expected["greedy_text"][i]
