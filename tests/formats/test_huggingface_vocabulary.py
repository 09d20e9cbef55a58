"""Tokenizers of Hugging Face: the ids of its own library, added tokens, the end of a text, and what is rejected."""

import json
import pickle
from pathlib import Path

import huggingface_dirs
import pytest
import tokenizers
from huggingface_dirs import tokenizer_json
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2 import encoder as encoder_module
from gpt2.encoder import END_OF_TEXT, Encoder
from gpt2.errors import DamagedFileError, GPT2Error
from gpt2.formats import vocabularies
from gpt2.formats.openai.vocabulary import load_encoder

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
EXPECTED = json.loads((GOLDEN / "huggingface.json").read_text(encoding="utf-8"))
ODD_TEXT = st.text(st.sampled_from(" \n\t\r\x0b\x0c\x1c\x1f\x85\xa0'sStdrvelm09²½Ⅷaéß你🦄\u3000\u200b<>|endoftx"))


def write_tokenizer(folder, content=None, **changes):
    (folder / "tokenizer.json").write_text(json.dumps(content or tokenizer_json(**changes)), encoding="utf-8")
    return folder


def write(folder, **files):
    """Write JSON files, given by their names without `.json`, and return the folder."""
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture(params=["tokenizer", "pair"])
def folder(request, tmp_path):
    """Return a folder with only a vocabulary, in either form."""
    huggingface_dirs.write_vocabulary(tmp_path, pair=request.param == "pair")
    return tmp_path


def test_ids_match_transformers():
    """The vocabulary is the one that transformers wrote."""
    encoder = vocabularies.load(GOLDEN / "huggingface")
    assert encoder.end_of_text == EXPECTED["end"]
    for text, ids in zip(EXPECTED["texts"], EXPECTED["ids"]):
        assert encoder.encode(text) == ids, text
        assert encoder.decode(ids) == text


@pytest.fixture(scope="module")
def both(vocabulary, tmp_path_factory):
    """Return GPT-2's vocabulary as read here and by Hugging Face's library, from a file that the library wrote."""
    ids_of, merges = load_encoder(vocabulary).ids_of, load_encoder(vocabulary).merges()
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(ids_of, merges))
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = tokenizers.decoders.ByteLevel()
    folder = tmp_path_factory.mktemp("gpt2")
    theirs.save(str(folder / "tokenizer.json"))
    theirs.add_special_tokens([END_OF_TEXT])  # as transformers' GPT2Tokenizer does
    return vocabularies.load(folder), theirs


@settings(max_examples=300, deadline=None)
@given(ODD_TEXT)
def test_ids_match_the_library(both, text):
    ours, theirs = both
    assert ours.encode(text) == theirs.encode(text).ids


def test_the_same_vocabulary_in_each_form(both, vocabulary, tmp_path):
    """All three forms have the same fingerprint, so token files fit each of them."""
    expected = load_encoder(vocabulary)
    for ours, theirs in (("encoder.json", "vocab.json"), ("vocab.bpe", "merges.txt")):
        (tmp_path / theirs).write_bytes((vocabulary / ours).read_bytes())
    for loaded in (both[0], vocabularies.load(tmp_path)):
        assert loaded.fingerprint == expected.fingerprint
        assert loaded.files().items() >= expected.files().items()


def test_merges_may_be_pairs(tmp_path):
    tokenizer = tokenizer_json()
    tokenizer["model"]["merges"] = [merge.split(" ") for merge in tokenizer["model"]["merges"]]
    write_tokenizer(tmp_path, tokenizer)
    assert vocabularies.load(tmp_path).encode(" the cat") == [258, 261]


def test_older_forms_of_the_tokenizer(tmp_path):
    """Older files lack the model's type and use_regex, or wrap the pre-tokenizer in a sequence."""
    tokenizer = tokenizer_json()
    del tokenizer["model"]["type"], tokenizer["pre_tokenizer"]["use_regex"]
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [tokenizer["pre_tokenizer"]]}
    assert vocabularies.load(write_tokenizer(tmp_path, tokenizer)).encode(" the cat") == [258, 261]


TEXT_ONLY = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}], "pair": []}
WITH_START_TOKEN = {**TEXT_ONLY, "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, *TEXT_ONLY["single"]]}


def test_a_template_that_adds_nothing(tmp_path):
    """transformers 5 writes one when it converts the older pair of files."""
    write_tokenizer(tmp_path, post_processor=TEXT_ONLY)
    assert vocabularies.load(tmp_path).encode(" the cat") == [258, 261]


ADDED = {"id": 280, "content": "<pad>", "special": True}


@pytest.mark.parametrize(
    "add_tokens",
    [
        lambda folder: write(folder, added_tokens={"<pad>": 280, "[für]": 281}),
        lambda folder: write(
            folder,
            tokenizer_config={"added_tokens_decoder": {"280": {"content": "<pad>"}, "281": {"content": "[für]"}}},
        ),
        lambda folder: write_tokenizer(folder, added_tokens=[ADDED, {**ADDED, "id": 281, "content": "[für]"}]),
    ],
)
def test_added_tokens_are_pieces_with_their_ids(folder, add_tokens):
    """They decode to their own text, not to the bytes that its characters spell."""
    add_tokens(folder)
    encoder = vocabularies.load(folder)
    assert encoder.n_vocab == 282
    assert encoder.decode([280, 281, 258]) == "<pad>[für] the"
    assert encoder.encode("<pad>[für] the") == [280, 281, 258]


def test_tokens_without_a_row_in_the_embedding_are_left_out(folder):
    """A padding token may be added after the training, so the model does not know it."""
    write(folder, added_tokens={"<pad>": 280}, config={"vocab_size": 280})
    with pytest.warns(UserWarning, match="has no embedding for the added tokens <pad>, because config.json has voc"):
        encoder = vocabularies.load(folder)
    assert encoder.n_vocab == 280 and encoder.encode("<pad>") == [27, 79, 64, 67, 29]


def test_unused_ids_get_a_piece(folder):
    """The model may still choose them."""
    write(folder, added_tokens={"<pad>": 283})
    encoder = vocabularies.load(folder)
    assert encoder.n_vocab == 284 and encoder.decode([281, 283]) == "<unused 281><pad>"
    write(folder, added_tokens={"<pad>": 1 << 40})
    with pytest.raises(GPT2Error, match=f"only 281 of the ids up to {1 << 40} have a piece"):
        vocabularies.load(folder)


@pytest.mark.parametrize(
    "add_tokens",
    [
        lambda folder: write(folder, added_tokens={"Größe": 280}, special_tokens_map={"cls_token": "Größe"}),
        lambda folder: write(
            folder, tokenizer_config={"added_tokens_decoder": {"280": {"content": "Größe", "special": True}}}
        ),
        lambda folder: write_tokenizer(folder, added_tokens=[{**ADDED, "content": "Größe"}]),
    ],
)
def test_no_warning_for_declared_special_tokens(folder, add_tokens):
    add_tokens(folder)
    assert vocabularies.load(folder).decode([280]) == "Größe"


ENDS = [
    ({}, END_OF_TEXT),
    ({"config": {"eos_token_id": 280}}, "</s>"),
    ({"config": {"eos_token_id": [280, 1]}}, "</s>"),
    ({"generation_config": {"eos_token_id": 280}, "config": {"eos_token_id": 279}}, "</s>"),
    ({"config": {"bos_token_id": 281}}, "<s>"),
    ({"config": {"eos_token_id": 279, "bos_token_id": 281}}, END_OF_TEXT),
    ({"config": {"eos_token_id": 260, "bos_token_id": None}}, END_OF_TEXT),  # an ordinary piece
    ({"config": {"eos_token_id": 50256, "bos_token_id": 50256}}, END_OF_TEXT),
    ({"tokenizer_config": {"eos_token": "</s>"}, "config": {"eos_token_id": 279}}, "</s>"),
    ({"tokenizer_config": {"eos_token": {"content": "</s>", "lstrip": False}}}, "</s>"),
    ({"tokenizer_config": {"eos_token": None, "bos_token": "<s>"}}, "<s>"),
    ({"tokenizer_config": {"eos_token": "<new>"}, "config": {"eos_token_id": 280}}, "<new>"),
    ({"special_tokens_map": {"eos_token": "</s>", "bos_token": "<s>"}}, "</s>"),
]


@pytest.mark.parametrize("files, end", ENDS)
def test_the_end_token(folder, files, end):
    write(folder, added_tokens={"</s>": 280, "<s>": 281}, **files)
    encoder = vocabularies.load(folder)
    assert encoder.end_token == end and encoder.end_of_text == encoder.ids_of[end]
    assert encoder.encode(f"a{end}b", special=True) == [64, encoder.end_of_text, 65]


def test_a_vocabulary_with_another_end_token(folder, tmp_path_factory):
    """It survives pickling and a run's folder, and its fingerprint differs from that of other end tokens."""
    write(folder, added_tokens={"</s>": 280, "TL;DR": 281}, config={"eos_token_id": 280})
    encoder = vocabularies.load(folder)
    unpickled = pickle.loads(pickle.dumps(encoder))
    saved = tmp_path_factory.mktemp("run")
    for name, content in encoder.files().items():
        (saved / name).write_bytes(content)
        assert name in vocabularies.FILES
    for loaded in (unpickled, vocabularies.load(saved)):
        assert (loaded.end_token, loaded.end_of_text, loaded.ids_of) == ("</s>", 280, encoder.ids_of)
        assert loaded.fingerprint == encoder.fingerprint
        assert loaded.added.tokens == encoder.added.tokens and loaded.encode("TL;DR</s>") == [281, 280]
    assert Encoder(encoder.ids_of, encoder.merges()).fingerprint != encoder.fingerprint


def test_a_vocabulary_without_some_bytes(tmp_path, tmp_path_factory):
    tokenizer = tokenizer_json()
    pieces = tokenizer["model"]["vocab"]
    pieces[" "] = pieces.pop(encoder_module.byte_characters()[0])
    tokenizer["added_tokens"].append({"id": pieces[" "], "content": " ", "special": False})
    write_tokenizer(tmp_path, tokenizer)
    encoder = vocabularies.load(write(tmp_path, special_tokens_map={"additional_special_tokens": [" "]}))
    with pytest.raises(GPT2Error, match="this vocabulary cannot encode"):
        encoder.encode("\0")
    saved = tmp_path_factory.mktemp("run")
    for name, content in encoder.files().items():
        (saved / name).write_bytes(content)
    assert vocabularies.load(saved).ids_of == encoder.ids_of


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
OTHERS = [
    ({"model": {"type": "WordPiece"}}, "has model WordPiece"),
    ({"model": {"type": "Unigram"}}, "has model Unigram"),
    ({"model": {"type": ["BPE"]}}, "has model ['BPE']"),
    ({"model": {"dropout": 0.1}}, "has dropout 0.1"),
    ({"model": {"continuing_subword_prefix": "##"}}, "has continuing_subword_prefix '##'"),
    ({"model": {"end_of_word_suffix": "</w>"}}, "has end_of_word_suffix '</w>'"),
    ({"model": {"byte_fallback": True}}, "has byte_fallback True"),
    ({"model": {"ignore_merges": True}}, "has ignore_merges True"),
    ({"pre_tokenizer": None}, "has pre_tokenizer None"),
    ({"pre_tokenizer": {"type": "Metaspace"}}, "has pre_tokenizer Metaspace"),
    ({"pre_tokenizer": {"type": "Whitespace"}}, "has pre_tokenizer Whitespace"),
    ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTE_LEVEL] * 2}}, "has pre_tokenizer Sequence"),
    ({"pre_tokenizer": {**BYTE_LEVEL, "use_regex": False}}, "has pre_tokenizer ByteLevel"),
    ({"pre_tokenizer": {**BYTE_LEVEL, "add_prefix_space": True}}, "has add_prefix_space"),
    ({"normalizer": {"type": "NFKC"}}, "has normalizer NFKC"),
    ({"normalizer": {"type": "Lowercase"}}, "has normalizer Lowercase"),
    ({"post_processor": {"type": "RobertaProcessing"}}, "has post_processor RobertaProcessing"),
    ({"post_processor": WITH_START_TOKEN}, "has post_processor TemplateProcessing"),
    ({"decoder": {"type": "WordPiece"}}, "has decoder WordPiece"),
]


@pytest.mark.parametrize("changes, message", OTHERS)
def test_other_kinds_of_tokenizers_are_rejected_by_name(tmp_path, changes, message):
    write_tokenizer(tmp_path, **changes)
    with pytest.raises(GPT2Error) as raised:
        vocabularies.load(tmp_path)
    assert str(raised.value) == f"{tmp_path / 'tokenizer.json'} {message}; only GPT-2's byte-level BPE is supported"


@pytest.mark.parametrize(
    "config, message",
    [
        ({"tokenizer_class": "CTRLTokenizer"}, "has tokenizer_class 'CTRLTokenizer'"),
        ({"tokenizer_class": 3}, "has tokenizer_class 3"),
        ({"add_prefix_space": True}, "has add_prefix_space"),
    ],
)
def test_the_pair_of_files_of_another_tokenizer_is_rejected(tmp_path, config, message):
    huggingface_dirs.write_vocabulary(tmp_path, pair=True)
    write(tmp_path, tokenizer_config=config)
    with pytest.raises(GPT2Error, match=f"tokenizer_config.json {message}; only GPT-2's byte-level BPE is supported"):
        vocabularies.load(tmp_path)


DAMAGED = [
    ({"model": 1}, "it has no model"),
    ({"model": {"vocab": None}}, "it should map pieces of text to ids"),
    ({"model": {"vocab": {"a": 1.5}}}, "it should map pieces of text to ids"),
    ({"model": {"vocab": {"a": 0, "b": 0}}}, "it assigns one id to several pieces"),
    ({"model": {"vocab": {}}}, "it should map pieces of text to ids"),
    ({"model": {"vocab": {"a": -1}, "merges": []}}, "it has negative ids"),
    ({"model": {"merges": None}}, "a merge should be two pieces, not None"),
    ({"model": {"merges": ["a"]}}, "a merge should be two pieces, not 'a'"),
    ({"model": {"merges": ["a b c"]}}, "a merge should be two pieces"),
    ({"model": {"merges": [["a", 1]]}}, "a merge should be two pieces"),
    ({"model": {"merges": []}}, "is cut off: it has 0 merges, and none of them produces"),
    ({"model": {"merges": ["z z"]}}, "is cut off"),
    ({"added_tokens": {}}, "an added token should be a text and its id, not None"),
    ({"added_tokens": ["x"]}, "an added token should be a text and its id, not 'x'"),
    ({"added_tokens": [{"id": "1", "content": "x"}]}, "an added token should be a text and its id"),
    ({"added_tokens": [{"id": 3, "content": "<new>"}]}, "it assigns one id to several pieces"),
    ({"added_tokens": [{"id": 3, "content": END_OF_TEXT}]}, "the piece of the same name have different ids"),
    ({"added_tokens": [{"id": 280, "content": "\ud800"}]}, "an unpaired surrogate"),
]


@pytest.mark.parametrize("changes, message", DAMAGED)
def test_damage(tmp_path, changes, message):
    changes = dict(changes)
    if changes.get("model") == 1:
        write_tokenizer(tmp_path, {**tokenizer_json(), **changes})
    else:
        write_tokenizer(tmp_path, **changes)
    with pytest.raises(GPT2Error, match=f"tokenizer.json .*{message}") as raised:
        vocabularies.load(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("added_tokens", {"x": "y"}, "it should map texts to ids"),
        ("added_tokens", {"x": -1}, "it should map texts to ids"),
        ("added_tokens", [], "it should be a JSON object"),
        ("tokenizer_config", {"added_tokens_decoder": {"x": {"content": "y"}}}, "should map ids to texts"),
        ("tokenizer_config", {"added_tokens_decoder": {"1": {}}}, "should map ids to texts"),
        ("tokenizer_config", {"added_tokens_decoder": [1]}, "should map ids to texts"),
        ("special_tokens_map", 1, "it should be a JSON object"),
        ("config", "x", "it should be a JSON object"),
    ],
)
def test_damage_of_the_other_files(folder, name, content, message):
    with pytest.raises(DamagedFileError, match=f"{name}.json is damaged: .*{message}"):
        vocabularies.load(write(folder, **{name: content}))
