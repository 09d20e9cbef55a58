"""SentencePiece vocabularies: the ids of transformer-lm, and streamed texts that join their prompts."""

import pickle
import sys
from itertools import chain

import pytest
import tiny_lm
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2.errors import GPT2Error
from gpt2.formats.sentencepiece.sp_model import read
from gpt2.text.sentencepiece import SentencePiece

spm = pytest.importorskip("sentencepiece")
ODD_TEXT = st.text(st.sampled_from(" \n\t\r\x0b\u2028\u3000\xa0abdeDrstüß1.,…ﬁ中🦄\0\ud800▁"), max_size=30)


@pytest.fixture(scope="module")
def vocabulary(sp_model) -> SentencePiece:
    return read(sp_model)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a function that trains a vocabulary with the given options."""
    folder = tmp_path_factory.mktemp("others")
    (folder / "text.txt").write_text(tiny_lm.TEXT * 20, encoding="utf-8")

    def train(**options):
        options = {"vocab_size": 100, "model_type": "bpe", "minloglevel": 2} | options
        spm.SentencePieceTrainer.train(input=str(folder / "text.txt"), model_prefix=str(folder / "other"), **options)
        return read(folder / "other.model")

    return train


@pytest.fixture(scope="module")
def bytewise(trained):
    """Return a vocabulary like Llama's: no character is unknown, and no space is lost."""
    spaces = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    return trained(byte_fallback=True, vocab_size=360, character_coverage=0.98, **spaces)


def ids_of(vocabulary, *pieces):
    ids = [vocabulary.processor.piece_to_id(piece) for piece in pieces]
    assert [vocabulary.processor.id_to_piece(token) for token in ids] == list(pieces)
    return ids


def sp_encode(vocabulary, text):
    """Return the ids that transformer-lm's sp-encode writes for a file, without the end of text."""
    processor = vocabulary.processor
    lines = [f"{line}\n" for line in text.split("\n")[:-1]]
    return list(chain(*([*processor.EncodeAsIds(line), processor.PieceToId("<endofline>")] for line in lines)))


def test_the_control_tokens_are_where_sp_train_puts_them(vocabulary):
    assert ids_of(vocabulary, "<unk>", "<endofline>", "<endoftext>") == [0, 1, 2]
    assert vocabulary.n_vocab == tiny_lm.PIECES and vocabulary.end_of_text == 2 and vocabulary.end_of_line == 1
    assert vocabulary.ends_lines


def test_lines_end_as_in_sp_encode(vocabulary):
    assert vocabulary.encode(tiny_lm.TEXT) == sp_encode(vocabulary, tiny_lm.TEXT)
    assert vocabulary.encode("Das\n\n") == [*vocabulary.encode("Das"), 1, 1]
    assert 1 not in vocabulary.encode("Das blaue Pferd")


@settings(max_examples=300, deadline=None)
@given(ODD_TEXT)
def test_encode_and_pack_agree_for_any_text(vocabulary, text):
    ids = vocabulary.encode(text)
    assert ids.count(1) == text.count("\n") and 2 not in ids
    assert memoryview(vocabulary.pack(text)).cast("H").tolist() == ids
    assert pickle.loads(pickle.dumps(vocabulary)).encode(text) == ids
    assert vocabulary.decode(ids).count("\n") == text.count("\n")


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.sampled_from("Das blue\nPf,1üß"), max_size=40))
def test_a_safe_cut_does_not_change_the_ids(vocabulary, text):
    cut = vocabulary.last_safe_cut(text)
    assert vocabulary.encode(text[:cut]) + vocabulary.encode(text[cut:]) == vocabulary.encode(text)


def test_end_of_text_is_special_on_request(vocabulary):
    text = "Das<endoftext>Pferd"
    assert vocabulary.encode(text, special=True) == [*vocabulary.encode("Das"), 2, *vocabulary.encode("Pferd")]
    assert 2 not in vocabulary.encode(text)


@pytest.mark.parametrize(
    "pieces, text",
    [
        ([], ""),
        (["▁d", "er", "▁d"], "der d"),
        (["er", "▁d"], "er d"),
        (["▁", "▁d"], "d"),
        (["▁d", "er", "<endofline>", "▁d", "<endofline>", "<endofline>", "er"], "der\nd\n\ner"),
        (["▁d", "<endoftext>", "▁d", "er"], "d<endoftext>der"),
        (["▁d", "<unk>", "er"], "d ⁇ er"),
    ],
)
def test_decode(vocabulary, pieces, text):
    ids = ids_of(vocabulary, *pieces)
    assert vocabulary.decode(ids) == text
    if "▁" not in pieces:
        assert vocabulary.decode_bytes(ids).decode() == (" " if pieces and pieces[0][0] == "▁" else "") + text


@pytest.mark.parametrize(
    "prompt, pieces, text",
    [
        ("Das blaue Pferd", ["▁d", "er"], " der"),
        ("Das blaue Pferd", ["er", "▁d"], "er d"),
        ("Das blaue Pferd ", ["▁d", "er"], "der"),
        ("Das blaue Pferd\t", ["▁d", "er"], "der"),
        ("Das blaue Pferd\u3000", ["▁d", "er"], "der"),
        ("Das blaue Pferd ", ["▁", "▁d", "er"], "der"),
        ("Das blaue Pferd ", ["<endofline>", "▁d"], "\nd"),
        ("Das  blaue", ["▁d"], " d"),
        ("Das blaue Pferd\n", ["▁d", "er"], "der"),
        ("Das blaue Pferd\n", ["<endofline>", "▁d"], "\nd"),
        (" ", ["▁d", "er"], "der"),
        ("", ["▁d", "er"], "der"),
        (None, ["▁d", "er"], "der"),
        (None, ["▁", "▁d", "er"], "der"),
    ],
)
def test_a_completion_joins_its_prompt(vocabulary, prompt, pieces, text):
    stream = vocabulary.stream(prompt)
    assert "".join(stream.feed([token]) for token in ids_of(vocabulary, *pieces)) + stream.finish() == text


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_lines_are_decoded_as_the_package_does(vocabulary, bytewise, data):
    for tested in (vocabulary, bytewise):
        tokens = [token for token in range(tested.n_vocab) if not tested.processor.is_control(token)]
        ids = data.draw(st.lists(st.sampled_from(tokens), max_size=20))
        expected = tested.processor.decode(ids)
        decoded = tested.decode(ids)
        if tested is bytewise:  # invalid bytes: the package gives one U+FFFD per byte, Python sometimes fewer
            expected = expected.replace("\ufffd", "")
            decoded = decoded.replace("\ufffd", "")
        assert decoded == expected
        stream = tested.stream()
        assert "".join(stream.feed([token]) for token in ids) + stream.finish() == tested.decode(ids)


def test_byte_tokens_never_give_part_of_a_character(bytewise):
    ids = bytewise.encode("ab🦄 c")
    stream = bytewise.stream()
    parts = [stream.feed([token]) for token in ids]
    assert "".join(parts) == "ab🦄 c" and "🦄" in parts and "\ufffd" not in "".join(parts)
    assert bytewise.decode_bytes(ids) == " ab🦄 c".encode()
    cut = ids[: parts.index("🦄")]
    assert bytewise.decode(cut) == "ab\ufffd"
    unfinished = [*cut, *bytewise.encode("c")[-1:]]
    assert bytewise.decode(unfinished) == "ab\ufffdc"
    assert [bytewise.token_text(token) for token in ids_of(bytewise, "<0xF0>", "<0x0A>", "<unk>")] == [
        "\\xf0",
        "\n",
        "<unk>",
    ]


def test_a_vocabulary_that_keeps_its_spaces(bytewise):
    """The prompt keeps its last space, so the completion keeps its first."""
    (word,) = ids_of(bytewise, "▁d")
    assert bytewise.encode("Das ") != bytewise.encode("Das")
    assert bytewise.stream("Das ").feed([word]) == " d" and bytewise.stream(None).feed([word]) == "d"
    assert bytewise.decode(bytewise.encode("  Das  blaue\nPferd ")) == "  Das  blaue\nPferd "


def test_vocabularies_without_the_control_tokens(trained):
    plain, bare = trained(), trained(bos_id=-1, eos_id=-1)
    assert plain.end_of_line is None and not plain.ends_lines
    assert plain.end_of_text == plain.processor.eos_id() and plain.token_text(plain.end_of_text) == "</s>"
    assert plain.encode("Das</s>er", special=True) == [*plain.encode("Das"), plain.end_of_text, *plain.encode("er")]
    assert plain.decode([plain.processor.bos_id(), *plain.encode("Das\nPferd"), plain.end_of_text]) == "Das Pferd</s>"
    assert plain.stream("Das\n").feed(ids_of(plain, "▁d")) == "d"
    with pytest.raises(GPT2Error, match="neither <endoftext> nor </s>; start from a prompt"):
        bare.end_of_text  # noqa: B018
    assert bare.decode(bare.encode("Das Pferd", special=True)) == "Das Pferd"


@pytest.mark.parametrize("model_type", ["unigram", "char", "word"])
def test_other_model_types(trained, model_type):
    size = {"unigram": 60, "char": 40, "word": 40}[model_type]
    vocabulary = trained(model_type=model_type, vocab_size=size)
    assert vocabulary.encode("Das der die") == vocabulary.processor.encode("Das der die")
    assert vocabulary.decode(vocabulary.encode("der")) == "der"


def test_unknown_characters(vocabulary):
    ids = vocabulary.encode("der 中文 der")
    assert ids.count(0) == 1 and vocabulary.decode(ids) == "der  ⁇  der"
    assert vocabulary.token_text(0) == "<unk>"


def test_token_texts(vocabulary):
    assert [vocabulary.token_text(token) for token in ids_of(vocabulary, "▁d", "er", "<endofline>", "<endoftext>")] == [
        " d",
        "er",
        "<endofline>",
        "<endoftext>",
    ]


@pytest.mark.parametrize("token", [-1, tiny_lm.PIECES, 1 << 40])
def test_unknown_ids_are_rejected(vocabulary, token):
    for lookup in (
        vocabulary.token_text,
        lambda token: vocabulary.decode([token]),
        lambda token: vocabulary.decode_bytes([token]),
    ):
        with pytest.raises(GPT2Error, match=f"has no id {token}; its ids are below {tiny_lm.PIECES}"):
            lookup(token)


def test_files_and_fingerprint(vocabulary, sp_model, trained):
    assert vocabulary.files() == {"sp.model": sp_model.read_bytes()}
    assert len(vocabulary.fingerprint) == 16 and vocabulary.fingerprint != trained().fingerprint
    assert pickle.loads(pickle.dumps(vocabulary)).fingerprint == vocabulary.fingerprint


def test_the_error_for_a_missing_package_says_what_to_type(sp_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(GPT2Error, match="needs the package sentencepiece; type: pip install sentencepiece"):
        read(sp_model)


SYMBOLS = ["<sep>", "[PAD]", "<|user|>"]


@pytest.mark.parametrize("options", [{}, {"control_symbols": ["<endofline>", "<endoftext>"]}])
def test_user_defined_symbols_are_one_id_each(trained, options):
    """The package matches them, as in transformer-lm; control symbols in a text stay ordinary text."""
    vocabulary = trained(user_defined_symbols=SYMBOLS, vocab_size=120, **options)
    for text in ("der<sep>Hund", "[PAD][PAD]", "<|user|> der Hund <sep>", "<sep>"):
        ids = vocabulary.encode(text)
        symbols = [token for token in ids if vocabulary.token_text(token) in SYMBOLS]
        assert len(symbols) == sum(text.count(symbol) for symbol in SYMBOLS)
        assert "".join(vocabulary.token_text(token) for token in ids).strip() == text
    end = vocabulary.token_text(vocabulary.end_of_text)
    assert vocabulary.end_of_text not in vocabulary.encode(f"der{end}Hund")
    assert vocabulary.ending_ids == {vocabulary.end_of_text}


@given(st.lists(st.sampled_from(["der", "Hund", " ", "  ", "\n", "<sep>", "[PAD]", "ist "]), max_size=14), st.data())
def test_cuts_with_user_defined_symbols(with_newline, parts, data):
    text = "".join(parts)
    start = text[: data.draw(st.integers(0, len(text)))]
    cut = with_newline.last_safe_cut(start)
    assert with_newline.encode(text) == with_newline.encode(text[:cut]) + with_newline.encode(text[cut:])


@pytest.fixture(scope="module")
def with_newline(trained):
    return trained(user_defined_symbols=["\n", *SYMBOLS], vocab_size=120)
