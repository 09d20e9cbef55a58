"""Added tokens: the matching of Hugging Face's library, and cuts that do not change ids."""

import pickle

import pytest
import tokenizers
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gpt2.encoder import Encoder
from gpt2.text.added_tokens import AddedToken, AddedTokens
from gpt2.text.byte_level import byte_characters

CHARACTERS = "ab<>s_ \n\té9\u200d\u0301\x1c\xa0你²-[]\u3000\x85ª〸\u2028"
PIECES = {piece: i for i, piece in enumerate(byte_characters().values())}
FLAGS = st.fixed_dictionaries(
    dict.fromkeys(("special", "lstrip", "rstrip", "single_word", "normalized"), st.booleans())
)
CONTENTS = st.text(st.sampled_from(CHARACTERS), min_size=2, max_size=5)
TOKENS = st.lists(st.tuples(CONTENTS, FLAGS), min_size=1, max_size=6, unique_by=lambda token: token[0])


def build(tokens):
    return [AddedToken(text, len(PIECES) + i, **flags) for i, (text, flags) in enumerate(tokens)]


def texts(tokens):
    """Return random texts that are full of the tokens."""
    parts = st.sampled_from([*CHARACTERS, *(text for text, _ in tokens), *(text for text, _ in tokens)])
    return st.lists(parts, max_size=14).map("".join)


@settings(max_examples=400, deadline=None)
@given(st.data(), TOKENS)
def test_ids_match_the_library(data, tokens):
    # The library fails if a token starts with white space that belongs to the token before it.
    assume(not any(flags["rstrip"] for _, flags in tokens) or not any(text[0].isspace() for text, _ in tokens))
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(PIECES, []))
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    for text, flags in tokens:
        theirs.add_tokens([tokenizers.AddedToken(text, **flags)])
    ours = Encoder(PIECES, [], added=build(tokens))
    for text in data.draw(st.lists(texts(tokens), min_size=1, max_size=8)):
        assert ours.encode(text) == theirs.encode(text).ids
        assert memoryview(ours.pack(text)).cast("H").tolist() == ours.encode(text)


@settings(max_examples=400, deadline=None)
@given(st.data(), TOKENS)
def test_a_safe_cut_does_not_change_ids(data, tokens):
    assume(not any(flags["rstrip"] for _, flags in tokens) or not any(text[0].isspace() for text, _ in tokens))
    encoder = Encoder(PIECES, [], added=build(tokens))
    start, rest = data.draw(texts(tokens)), data.draw(texts(tokens))
    cut = encoder.last_safe_cut(start)
    whole = start + rest
    assert encoder.encode(whole) == encoder.encode(whole[:cut]) + encoder.encode(whole[cut:])


@pytest.mark.parametrize(
    "content, text, cut",
    [
        ("<sep>", "one two<sep>three four", 17),
        ("two three", "one two three", 3),
        ("two three", "one two threw more words", 13),
        ("note_6", "note_6 note_6 note_6 note_6", 20),
    ],
)
def test_cuts_are_found_around_tokens(content, text, cut):
    encoder = Encoder(PIECES, [], added=[AddedToken(content, 256)])
    assert encoder.last_safe_cut(text) == cut


def test_many_tokens_that_are_prefixes_of_each_other():
    """Their pattern would be nested too deeply."""
    added = AddedTokens(AddedToken("a" * n, n) for n in range(1, 3000))
    assert added.split("b" + "a" * 2999 + "aab") == ["b", 2999, 2, "b"]


def test_empty_and_repeated_tokens():
    added = AddedTokens([AddedToken("", 1), AddedToken("x", 2), AddedToken("x", 3, lstrip=True)])
    assert added.split(" x") == [3] and len(added.tokens) == 1
    assert not AddedTokens([AddedToken("", 1)]) and AddedTokens().split("a") == ["a"]
    assert pickle.loads(pickle.dumps(added)).split("x y") == [3, " y"]
