"""transformer-lm's ModelWrapper on the engine: its methods work as before, and its numbers match the slow reference."""

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


@pytest.fixture
def only_new_pieces(monkeypatch):
    monkeypatch.setattr(lmi.ModelWrapper, "prefix_too", False)


@pytest.fixture(scope="module")
def slow(lm_dir):
    """Return slow(mw, pieces), which computes log-probabilities [T, V] with the NumPy reference."""
    directory = find_model(str(lm_dir))
    named_weights = (
        (n, w.array().T if w.layout is Layout.OUT_IN and n.endswith("/w") else w.array())
        for n, w in directory.read().items()
    )
    weights = nest(named_weights)

    def slow(mw, pieces):
        logits = numpy_gpt2.logits(weights, directory.hparams, [mw.token_to_id(piece) for piece in pieces])
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
    pieces = mw.tokenize(TEXT)
    assert len(mw.generate_tokens(pieces, 5, top_k=8)) == len(pieces) + 5


def test_other_vocabularies_are_rejected(tiny_dir, tmp_path):
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
    log_probs = mw.get_log_probs(pieces)
    np.testing.assert_allclose(log_probs, expected, atol=1e-4)
    assert type(log_probs.numpy()) is np.ndarray and log_probs.shape == (len(pieces), 120)
    np.testing.assert_allclose(log_probs.exp().sum(-1), 1, atol=1e-4)
    values, indices = log_probs[-1].topk(3)
    assert indices.tolist() == np.argsort(-expected[-1])[:3].tolist()
    np.testing.assert_allclose(values, np.sort(expected[-1])[::-1][:3], atol=1e-4)


def test_occurred_log_probs(mw, slow):
    pieces = mw.tokenize(TEXT)
    slow_log_probs = slow(mw, pieces)
    occurred = mw.get_occurred_log_probs(pieces)
    assert [piece for _, piece in occurred] == pieces[1:]
    expected = [slow_log_probs[i, mw.token_to_id(piece)] for i, piece in enumerate(pieces[1:])]
    np.testing.assert_allclose([log_prob for log_prob, _ in occurred], expected, atol=1e-4)


def test_scoring_reaches_the_end_of_the_window_and_not_beyond(mw, slow):
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
    filtered = mw.get_next_top_p_nucleus(pieces, top_p)
    kept = np.isfinite(filtered)
    order = np.argsort(-expected)
    before = np.cumsum(np.exp(expected[order])) - np.exp(expected[order])
    assert set(np.flatnonzero(kept)) == set(order[(before <= top_p) | (np.arange(120) == 0)])
    np.testing.assert_allclose(filtered[kept], expected[kept], atol=1e-4)


def greedy(mw, slow, pieces, n):
    """Return n greedy pieces computed by the slow reference, within the window."""
    pieces = list(pieces)
    for _ in range(n):
        pieces.append(mw.id_to_token(slow(mw, pieces)[-1].argmax()))
    return pieces[-n:]


def test_generate_tokens(only_new_pieces, mw, slow):
    pieces = mw.tokenize(TEXT)
    expected = greedy(mw, slow, pieces, 12)
    assert mw.generate_tokens(pieces, tokens_to_generate=12, top_k=1) == expected
    assert mw.generate_tokens(pieces, 12, 0, temperature=0) == expected
    assert mw.generate_tokens(pieces, 12, 8, top_p=1e-9) == expected, "the likeliest piece is always kept"
    assert mw.generate_tokens(pieces, 0, 8) == []


def test_numpys_seed_repeats_samples(mw):
    pieces = mw.tokenize(TEXT)

    def generate_twice(**options):
        np.random.seed(5)
        return [mw.generate_tokens(pieces, 20, **options) for _ in range(2)]

    for options in ({"top_k": 8}, {"top_k": 0}, {"top_k": 1, "top_p": 0.9, "temperature": 0.7}):
        first, second = generate_twice(**options)
        assert generate_twice(**options) == [first, second] and first != second


def test_only_the_top_k_are_drawn(only_new_pieces, mw):
    pieces = mw.tokenize(TEXT)
    allowed = {piece for _, piece in mw.get_next_top_k(pieces, 3)}
    assert {mw.generate_tokens(pieces, 1, top_k=3)[0] for _ in range(60)} == allowed


def test_cases_that_raised_errors_in_transformer_lm(only_new_pieces, mw):
    """Generation beyond the window, from an empty prefix, and with top_k above the number of pieces."""
    pieces = mw.tokenize(TEXT)
    assert len(mw.generate_tokens(pieces, 100, top_k=8)) == 100
    assert mw.generate_tokens([], 5, top_k=1) == mw.generate_tokens([mw.END_OF_TEXT], 5, top_k=1)
    assert len(mw.generate_tokens(pieces, 3, top_k=10**6)) == 3
    for invalid in ({"top_k": -1}, {"top_k": 8, "temperature": -1}, {"top_k": 2.5}):
        with pytest.raises(UsageError):
            mw.generate_tokens(pieces, 3, **invalid)


@pytest.mark.parametrize("text", [TEXT, "", "Wenn der Regen", "ﬁ  x ", "x" * 50], ids=str)
@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_k": 8}, {"top_k": 1, "top_p": 0.9}, {"top_k": 0}], ids=str)
def test_the_prefix_is_returned_unless_the_program_declines_it(mw, monkeypatch, text, options):
    pieces = mw.tokenize(text)
    np.random.seed(1)
    whole = mw.generate_tokens(tuple(pieces), 5, **options)
    monkeypatch.setattr(lmi.ModelWrapper, "prefix_too", False)
    np.random.seed(1)
    assert whole == pieces + mw.generate_tokens(pieces, 5, **options) and len(whole) == len(pieces) + 5
    monkeypatch.setattr(mw, "prefix_too", True, raising=False)  # of one model
    assert mw.generate_tokens(pieces, 0, 8) == pieces


def test_the_first_call_says_once_how_to_get_only_the_new_pieces(mw, monkeypatch, capsys):
    monkeypatch.setattr(lmi, "_unprinted_notices", [lmi.PREFIX_NOTICE])
    monkeypatch.setattr(lmi.ModelWrapper, "prefix_too", False)
    mw.generate_tokens(mw.tokenize(TEXT), 2, top_k=8)
    assert capsys.readouterr().err == ""
    monkeypatch.undo()
    monkeypatch.setattr(lmi, "_unprinted_notices", [lmi.PREFIX_NOTICE])
    for _ in range(3):
        mw.generate_tokens(mw.tokenize(TEXT), 2, top_k=8)
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines() == [lmi.PREFIX_NOTICE]


def test_words(mw, slow):
    """Compare with a slow copy of transformer-lm's algorithm."""
    pieces = [mw.END_OF_TEXT, *mw.tokenize("Das blaue Pferd, war")]
    logs = slow(mw, pieces)
    vocabulary = [mw.id_to_token(i) for i in range(120)]
    is_word = np.array([any(c.isalnum() or c == "_" for c in piece) for piece in vocabulary])
    continues = np.array([word and not piece.startswith("▁") for word, piece in zip(is_word, vocabulary)])

    def log_sum_exp(line, selected):
        return np.log(np.exp(line[selected]).sum())

    expected, total, word = [], 0.0, ""
    for line, piece in zip(logs, pieces[1:]):
        i = mw.token_to_id(piece)
        if not continues[i] and word:
            expected.append((total + log_sum_exp(line, ~continues), word))
            total, word = 0.0, ""
        if is_word[i]:
            total, word = total + line[i] - log_sum_exp(line, is_word), word + piece.lstrip("▁")
    expected.append((total, word))
    scored = mw.get_occurred_word_log_probs(pieces)
    assert [word for _, word in scored] == [word for _, word in expected] == ["Das", "blaue", "Pferd", "war"]
    np.testing.assert_allclose([p for p, _ in scored], [p for p, _ in expected], atol=1e-4)


def test_tensorflow_is_not_imported(native, lm_dir):
    code = f"""
import sys
sys.path.insert(0, {str(SRC)!r})
import lm.inference as lmi
mw = lmi.ModelWrapper.load({str(lm_dir)!r})
mw.prefix_too = False
assert len(mw.generate_tokens(mw.tokenize("Das"), 5, top_k=8)) == 5 and mw.get_next_top_k(["▁Das"], 1)
sys.exit("tensorflow" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize("name", ["model.pt", "model-legacy.pt"])
def test_a_model_that_transformer_lm_trained(only_new_pieces, german, tmp_path, name):
    """Log-probabilities and greedy pieces are those of transformer-lm's own code."""
    expected = json.loads((german / "expected.json").read_text(encoding="utf-8"))
    last_log_probs = np.load(german / "expected.npz")
    for file, target in (("params.json", "params.json"), ("sp.model", "sp.model"), (name, "model.pt")):
        (tmp_path / target).symlink_to(german / file)
    mw = lmi.ModelWrapper.load(tmp_path)
    for i, prompt in enumerate(expected["prompts"]):
        pieces = mw.tokenize(prompt)
        assert pieces == expected["pieces"][i]
        assert [mw.token_to_id(piece) for piece in pieces] == expected["ids"][i]
        occurred = [log_prob for log_prob, _ in mw.get_occurred_log_probs(pieces)]
        np.testing.assert_allclose(occurred, expected["occurred"][i], atol=1e-4)
        np.testing.assert_allclose(mw.get_log_probs(pieces)[-1], last_log_probs[f"last{i}"], atol=1e-4)
        top = mw.get_next_top_k(pieces, 5)
        assert [piece for _, piece in top] == [piece for _, piece in expected["next_top5"][i]]
        np.testing.assert_allclose([p for p, _ in top], [p for p, _ in expected["next_top5"][i]], atol=1e-4)
        new_pieces = mw.generate_tokens(pieces, 24, top_k=1)
        assert new_pieces == expected["greedy_pieces"][i]
        assert mw.sp_model.DecodePieces(pieces + new_pieces) == expected["greedy_text"][i]
