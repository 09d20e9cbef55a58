"""The byte-level BPE: the original's ids, round trips of any text, bounded time, and damaged vocabularies."""

import heapq
import json
import pickle
import re
from array import array

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from tiny import GOLDEN

from gpt2 import encoder as encoder_module
from gpt2.encoder import (
    ASCII_PIECE_PATTERN,
    PIECE_PATTERN,
    Encoder,
    compiled_piece_pattern,
    merge_many_symbols,
    merge_symbols,
)
from gpt2.errors import GPT2Error
from gpt2.formats.openai.vocabulary import load_encoder

# Characters on which the character classes of the two regular expression engines could disagree.
ODD = st.text(st.sampled_from(" \n\t\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0'sStdrvelm09²½Ⅷaéß你🦄\u3000\u200b\ud800\udc00"))


@pytest.fixture(scope="session")
def tiktoken_encoder(vocabulary):
    """Return tiktoken's encoder of the same two files."""
    ranks = data_gym_to_mergeable_bpe_ranks(str(vocabulary / "vocab.bpe"), str(vocabulary / "encoder.json"))
    return tiktoken.Encoding("gpt2", pat_str=PIECE_PATTERN, mergeable_ranks=ranks, special_tokens={})


PAIRS = st.tuples(st.text("abc", min_size=1, max_size=3), st.text("abc", min_size=1, max_size=3))


class CountingDict(dict):
    """A dictionary that counts its lookups."""

    lookups = 0

    def get(self, *args):
        self.lookups += 1
        return super().get(*args)

    def __contains__(self, key):
        self.lookups += 1
        return super().__contains__(key)


def merge_slowly(symbols, ranks):
    """Merge as OpenAI's loop does: the pair of lowest rank, everywhere, from left to right."""
    symbols = list(symbols)
    while True:
        pairs = set(zip(symbols, symbols[1:])) & set(ranks)
        if not pairs:
            return symbols
        pair, merged = min(pairs, key=ranks.get), []
        while symbols:
            width = 2 if tuple(symbols[:2]) == pair else 1
            merged.append("".join(symbols[:width]))
            symbols = symbols[width:]
        symbols = merged


@pytest.mark.parametrize("prompt, ids", list(zip(GOLDEN["prompts"], GOLDEN["tokens"])))
def test_golden_ids(encoder, prompt, ids):
    assert encoder.encode(prompt) == ids
    assert encoder.decode(ids) == prompt


@pytest.mark.parametrize(
    "text, ids",
    [
        ("", []),
        ("0", [15]),
        ("'s'S", [338, 6, 50]),  # upper-case contractions are not split: OpenAI's oversight, kept
        ("<|endoftext|>", [27, 91, 437, 1659, 5239, 91, 29]),
        ("\ud83e\udd84", [8582, 99, 226]),  # a surrogate pair is one character
        ("\ud83e", [4210]),  # an unpaired surrogate is U+FFFD
    ],
)
def test_ids_of_special_cases(encoder, text, ids):
    assert encoder.encode(text) == ids


def test_end_of_text_is_special_only_on_request(encoder):
    assert encoder.encode("a<|endoftext|>b", special=True) == [64, 50256, 65]
    assert encoder.encode("<|endoftext|>", special=True) == [encoder.end_of_text] == [50256]
    assert encoder.decode([50256]) == "<|endoftext|>"


@settings(max_examples=300, deadline=None)
@given(st.text() | ODD)
def test_ids_equal_those_of_tiktoken(encoder, tiktoken_encoder, text):
    assert encoder.encode(text) == tiktoken_encoder.encode_ordinary(text)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(max_codepoint=127)) | ODD.map(lambda text: text.encode("ascii", "ignore").decode()))
def test_the_ascii_pattern_splits_like_the_full_one(text):
    assert ASCII_PIECE_PATTERN.findall(text) == compiled_piece_pattern().findall(text)


@settings(max_examples=300, deadline=None)
@given(
    st.text("abc", max_size=12),
    st.lists(PAIRS, unique=True),
)
def test_merges_equal_those_of_the_slow_loop(text, pairs):
    ranks = {pair: rank for rank, pair in enumerate([("a", "b"), ("c", "a"), *pairs])}
    assert merge_symbols(text, ranks) == merge_many_symbols(text, ranks) == merge_slowly(text, ranks)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_decoding_restores_the_text(encoder, text):
    assert encoder.decode(encoder.encode(text)) == text


@pytest.mark.parametrize("unit", ["a", "0", " ", "\n", "-", "é", "ab"])
def test_long_repeats_are_not_quadratic(encoder, tiktoken_encoder, unit, monkeypatch):
    def merge_short_pieces_only(symbols, ranks):
        assert len(symbols) <= encoder_module.LONG_PIECE_SYMBOLS
        return merge_symbols(symbols, ranks)

    monkeypatch.setattr(encoder_module, "merge_symbols", merge_short_pieces_only)
    monkeypatch.setattr(encoder, "ranks", CountingDict(encoder.ranks))
    assert encoder.encode(unit * 10_000) == tiktoken_encoder.encode_ordinary(unit * 10_000)
    assert encoder.ranks.lookups < 20 * len(unit.encode()) * 10_000


@pytest.mark.parametrize("unit", ["a", "\U0001f600", "the", "-=", "\u4e00\u4e8c"])
def test_the_heap_of_a_long_piece_holds_ranks_and_not_pairs(encoder, unit, monkeypatch):
    """A heap of all pairs would make each pair slower, and would be built in a single call that blocks all threads."""
    sizes = []

    class CountingHeapq:
        heappop = staticmethod(heapq.heappop)

        @staticmethod
        def heapify(heap):
            sizes.append(len(heap))
            heapq.heapify(heap)

        @staticmethod
        def heappush(heap, item):
            heapq.heappush(heap, item)
            sizes.append(len(heap))

    expected = encoder.encode(unit * 2000)
    monkeypatch.setattr(encoder_module, "heapq", CountingHeapq)
    assert encoder.encode(unit * 2000) == expected
    assert sizes and max(sizes) <= 20


def test_the_piece_cache_is_bounded(encoder, monkeypatch):
    monkeypatch.setattr(encoder_module, "MAX_CACHED_PIECES", 10)
    encoder.cache.clear()
    ids = encoder.encode(" ".join(map(str, range(100))) + " " + "x" * 100)
    assert len(encoder.cache) <= 10
    assert "x" * 100 not in encoder.cache
    monkeypatch.undo()
    assert encoder.encode(" ".join(map(str, range(100))) + " " + "x" * 100) == ids


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 50256)))
def test_streamed_text_equals_the_decoded_text(encoder, ids):
    stream = encoder.stream()
    assert "".join([stream.feed([i]) for i in ids] + [stream.finish()]) == encoder.decode(ids)


def test_a_stream_holds_an_incomplete_character_back(encoder):
    stream = encoder.stream()
    assert [stream.feed([i]) for i in encoder.encode("🦄")] == ["", "", "🦄"]
    assert stream.feed([8582]) == ""
    assert stream.finish() == "\ufffd"


def test_an_unknown_id_is_named(encoder):
    with pytest.raises(GPT2Error, match="no id 50257; its ids are below 50257"):
        encoder.decode([50257])


@pytest.mark.parametrize(
    "name, damage, message",
    [
        ("vocab.bpe", lambda text: text[: len(text) // 2], "vocab.bpe (is cut off|is damaged: line)"),
        ("vocab.bpe", lambda text: text + "three pieces here\n", "line 50002 should be two pieces"),
        ("encoder.json", lambda text: text[:-100], "it cannot be parsed as JSON"),
        ("encoder.json", lambda text: "[]", "should map pieces of text to ids"),
        ("encoder.json", lambda text: text.replace('"!": 0', '"!": 1'), "one id to several pieces"),
        (
            "encoder.json",
            lambda text: text.replace('"!": 0, ', ""),
            "lacks 1 of",
        ),
        ("encoder.json", lambda text: "[" * 100_000, "encoder.json is damaged: .* maximum recursion"),
        ("encoder.json", lambda text: '{"a":' * 100_000, "encoder.json is damaged: .* maximum recursion"),
        ("encoder.json", lambda text: "7", "should map pieces of text to ids"),
        ("encoder.json", lambda text: "[[1]]", "should map pieces of text to ids"),
        ("encoder.json", lambda text: text.replace('"!": 0', '"!": true'), "should map pieces of text to ids"),
        ("encoder.json", lambda text: text.replace('"!": 0', '"!": "0"'), "should map pieces of text to ids"),
        ("encoder.json", lambda text: text.replace('"!": 0', '"!": -1'), "its 50257 pieces should be 0 to 50256"),
        ("encoder.json", lambda text: text.replace('"!": 0', '"!": 50257'), "its 50257 pieces should be 0 to 50256"),
        ("encoder.json", lambda text: text.replace('"!": 0', '"!": 1' + "0" * 400), "pieces should be 0 to 50256"),
        (
            "encoder.json",
            lambda text: text.replace('"!": 0', '"!": 1' + "0" * 5000),
            "encoder.json is damaged: it cannot be parsed as JSON",
        ),
        ("encoder.json", lambda text: text.replace('"!": 0', '"!": 0, "!": 0, "<x>": 50258'), "should be 0 to 50257"),
        ("encoder.json", lambda text: text.replace("<|endoftext|>", "<\\ud800>"), "an unpaired surrogate"),
        ("vocab.bpe", lambda text: text + "hello world\n", "vocab.bpe belongs to another vocabulary: .* 'helloworld'"),
        ("vocab.bpe", lambda text: "", "vocab.bpe is cut off: it has 0 merges"),
        ("vocab.bpe", lambda text: "\x00\x01" * 99, "vocab.bpe is damaged: line 1|is cut off"),
    ],
    ids=lambda value: value if isinstance(value, str) else "damage",
)
def test_damaged_vocabularies_are_rejected(tmp_path, vocabulary, name, damage, message):
    for file in ("encoder.json", "vocab.bpe"):
        text = (vocabulary / file).read_text(encoding="utf-8")
        (tmp_path / file).write_text(damage(text) if file == name else text, encoding="utf-8")
    with pytest.raises(GPT2Error, match=message) as raised:
        load_encoder(tmp_path)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("name", ["encoder.json", "vocab.bpe"])
def test_a_vocabulary_that_is_not_utf_8_is_rejected(tmp_path, tiny_dir, name):
    for file in ("encoder.json", "vocab.bpe"):
        data = (tiny_dir / file).read_bytes()
        (tmp_path / file).write_bytes(data if file != name else b"\xff\xfe" + data)
    with pytest.raises(GPT2Error, match=f"{name} is damaged: it is not UTF-8"):
        load_encoder(tmp_path)


def test_a_vocabulary_without_end_of_text_raises_an_error(tmp_path, tiny_dir):
    ids = json.loads((tiny_dir / "encoder.json").read_text(encoding="utf-8"))
    ids.pop("<|endoftext|>")
    (tmp_path / "encoder.json").write_text(json.dumps(ids), encoding="utf-8")
    (tmp_path / "vocab.bpe").write_bytes((tiny_dir / "vocab.bpe").read_bytes())
    with pytest.raises(GPT2Error, match="no <|endoftext|> token"):
        _ = load_encoder(tmp_path).end_of_text


@settings(max_examples=100, deadline=None)
@given(st.text() | ODD)
def test_packed_ids_equal_the_encoded_ids(encoder, text):
    assert encoder.pack(text) == array("H", encoder.encode(text)).tobytes()


def test_ids_above_uint16_are_packed_as_uint32():
    encoder = Encoder({"a": 65535, "b": 65536}, [])
    assert encoder.pack("ab") == array("I", [65535, 65536]).tobytes()
    assert Encoder({"a": 65535}, []).pack("a") == array("H", [65535]).tobytes()


def test_the_fingerprint_distinguishes_vocabularies(tiny_dir):
    encoder = load_encoder(tiny_dir)
    merges, ids_of = encoder.merges(), encoder.ids_of
    assert re.fullmatch("[0-9a-f]{16}", encoder.fingerprint)
    assert Encoder(dict(reversed(ids_of.items())), merges).fingerprint == encoder.fingerprint
    others = [
        Encoder(ids_of, merges[:-1]),
        Encoder(ids_of, [merges[1], merges[0], *merges[2:]]),
        Encoder({**ids_of, "!": 1, '"': 0}, merges),
        Encoder({piece: i for piece, i in ids_of.items() if piece != "<|endoftext|>"}, merges),
    ]
    assert len({encoder.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_an_encoder_is_pickled_without_its_cache(encoder):
    encoder.encode("some words")
    copy = pickle.loads(pickle.dumps(encoder))
    assert not copy.cache and copy.fingerprint == encoder.fingerprint
    assert copy.encode("some words") == encoder.encode("some words")
