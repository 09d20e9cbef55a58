"""Added tokens of Hugging Face's folders: transformers' ids, the ids that end a text, and damaged files."""

import json
import pickle
import random
import warnings
from pathlib import Path

import added_token_dirs
import huggingface_dirs
import pytest
from added_token_dirs import CASES, end, token
from damage import damage_bytes, odd_json_value

from gpt2.encoder import END_OF_TEXT
from gpt2.errors import DamagedFileError, GPT2Error
from gpt2.formats import vocabularies

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
EXPECTED = json.loads((GOLDEN / "added_tokens.json").read_text(encoding="utf-8"))["cases"]
FREE = added_token_dirs.N_PIECES  # the id of the first added token
END = FREE - 1


def save_and_load(encoder, folder):
    """Return the vocabulary as a run's folder keeps it."""
    folder.mkdir()
    for name, content in encoder.files().items():
        assert name in vocabularies.FILES
        (folder / name).write_bytes(content)
    return vocabularies.load(folder)


@pytest.mark.parametrize("name", CASES)
def test_ids_match_transformers(tmp_path, name):
    """They stay the same after pickling, in a run's folder, and in packed training data."""
    expected = EXPECTED[name]
    encoder = vocabularies.load(added_token_dirs.write(tmp_path / "model", CASES[name]))
    if expected["end"] is not None:
        assert encoder.end_of_text == expected["end"]
    for each in (encoder, pickle.loads(pickle.dumps(encoder)), save_and_load(encoder, tmp_path / "run")):
        assert [each.encode(text) for text in expected["texts"]] == expected["ids"]
        assert each.ending_ids == encoder.ending_ids and each.fingerprint == encoder.fingerprint
    for text, ids in zip(expected["texts"], expected["ids"]):
        assert memoryview(encoder.pack(text)).cast("H").tolist() == ids


@pytest.mark.parametrize("name", ["chat", "words", "overlapping", "pair and added_tokens.json"])
def test_texts_come_back(tmp_path, name):
    """Tokens that do not swallow white space decode to the text, in parts too."""
    encoder = vocabularies.load(added_token_dirs.write(tmp_path, CASES[name]))
    for text, ids in zip(EXPECTED[name]["texts"], EXPECTED[name]["ids"]):
        stream = encoder.stream()
        assert encoder.decode(ids) == text == "".join(stream.feed([i]) for i in ids) + stream.finish()


@pytest.mark.parametrize(
    "text, ids",
    [
        ("<|user|>the cat<sep>", [FREE, 83, 71, 68, 261, FREE + 2]),
        ("[PAD][PAD]", [FREE + 3, FREE + 3]),
        ("the cat<|endoftext|> the", [83, 71, 68, 261, END, 258]),
        ("<|assistant|>", [FREE + 1]),
        ("<|assistant", [27, 91, 64, 82, 82, 72, 82, 83, 64, 77, 83]),
        ("\ud83d<sep>", [171, 123, 121, FREE + 2]),
    ],
)
def test_markers_are_one_id_each(tmp_path, text, ids):
    assert vocabularies.load(added_token_dirs.write(tmp_path, CASES["chat"])).encode(text) == ids


def test_special_is_the_same_for_an_added_end_token(tmp_path):
    """White space that belongs to the token is not encoded, with `special` or without it."""
    encoder = vocabularies.load(added_token_dirs.write(tmp_path, CASES["stripped"]))
    assert encoder.encode("a  <|endoftext|>b", special=True) == encoder.encode("a  <|endoftext|>b") == [64, END, 65]


@pytest.mark.parametrize("first", ["<sep>", "[PAD]", "a word", "🙂"])
def test_tokens_without_an_embedding_are_ordinary_text_with_a_warning(tmp_path, first):
    case = {"tokens": [end(), token(first, 0), token("<|x|>", 9)], "config": {"vocab_size": FREE}}
    with pytest.warns(UserWarning) as warned:
        encoder = vocabularies.load(added_token_dirs.write(tmp_path, case))
    assert len(warned) == 1 and f"the added tokens {first}, <|x|>, because" in str(warned[0].message)
    assert encoder.n_vocab == FREE and len(encoder.encode(first)) > 1
    assert encoder.encode(f"{first}<|endoftext|>")[-1] == END


SPECIAL = {"tokens": [end(), *added_token_dirs.ROLES, token("word", 4, special=False)]}
ENDINGS = [
    ({}, set()),
    ({"generation_config": {"eos_token_id": FREE}}, {FREE}),
    ({"generation_config": {"eos_token_id": [FREE, FREE + 1]}}, {FREE, FREE + 1}),
    ({"generation_config": {"eos_token_id": [FREE]}, "config": {"eos_token_id": FREE + 1}}, {FREE}),
    ({"generation_config": {}, "config": {"eos_token_id": FREE + 1}}, set()),
    ({"generation_config": {"eos_token_id": None}, "config": {"eos_token_id": FREE + 1}}, set()),
    ({"generation_config": {"eos_token_id": [198, 258]}}, {198, 258}),  # ordinary pieces, such as a line end
    ({"generation_config": {"eos_token_id": [50256, FREE, 99999, -1]}}, {FREE}),
    ({"config": {"eos_token_id": FREE + 2}}, {FREE + 2}),
    ({"config": {"eos_token_id": [FREE + 2, FREE + 3]}}, {FREE + 2, FREE + 3}),
    ({"config": {"eos_token_id": [198, FREE]}}, {FREE}),  # ordinary pieces do not count there
]


@pytest.mark.parametrize("files, ids", ENDINGS)
def test_the_ids_that_end_a_text(tmp_path, files, ids):
    files = {name: dict(content) for name, content in files.items()}
    encoder = vocabularies.load(added_token_dirs.write(tmp_path / "model", {**SPECIAL, **files}))
    end_id = encoder.end_of_text
    assert encoder.ending_ids == {end_id} | ids
    if "config" not in files or "generation_config" in files:
        assert encoder.end_of_text in {END, *ids}
    assert save_and_load(encoder, tmp_path / "run").ending_ids == encoder.ending_ids


@pytest.mark.parametrize("value", ["2", [1, "2"], {"id": 1}, 1.5, True, [[1]]])
def test_damaged_ending_ids(tmp_path, value):
    folder = added_token_dirs.write(tmp_path, {"generation_config": {"eos_token_id": value}})
    with pytest.raises(DamagedFileError, match="generation_config.json is damaged: eos_token_id should be an id or a"):
        vocabularies.load(folder)


@pytest.mark.parametrize("name", ["special", "lstrip", "rstrip", "single_word", "normalized"])
@pytest.mark.parametrize("value", ["yes", 1, []])
def test_damaged_flags(tmp_path, name, value):
    bad = {**token("<sep>", 0), name: value}
    for case in ({"tokens": [bad]}, {"tokenizer_config": {"added_tokens_decoder": added_token_dirs.decoder(bad)}}):
        with pytest.raises(DamagedFileError, match=f"{name} of an added token should be true or false, not ") as error:
            vocabularies.load(added_token_dirs.write(tmp_path, case))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("pair", [True, False])
@pytest.mark.parametrize("name", ["add_bos_token", "add_eos_token", "add_prefix_space"])
def test_ids_around_a_text_are_rejected_by_name(tmp_path, name, pair):
    case = {} if pair else {"tokens": [end()]}
    assert vocabularies.load(added_token_dirs.write(tmp_path, {**case, "tokenizer_config": {name: False}}))
    folder = added_token_dirs.write(tmp_path, {**case, "tokenizer_config": {name: True}})
    with pytest.raises(GPT2Error, match=f"tokenizer_config.json has {name}"):
        vocabularies.load(folder)


OWN_FILE = {"added_tokens": [{"id": END, "content": END_OF_TEXT}], "ending_ids": [END]}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"added_tokens": None}, "an added token should be a text and its id"),
        ({"added_tokens": [{"id": 3, "content": END_OF_TEXT}]}, "'<|endoftext|>' has another id"),
        ({"added_tokens": [{"id": FREE, "content": "<new>"}]}, "'<new>' has another id"),
        ({"added_tokens": [{"id": 256, "content": "Ġt", "lstrip": 1}]}, "lstrip of an added token"),
        ({"ending_ids": END}, "ending_ids should be a list of ids"),
        ({"ending_ids": ["x"]}, "ending_ids should be a list of ids"),
        ({"ending_ids": [FREE]}, "ending_ids has an id that the vocabulary does not have"),
    ],
)
def test_damage_of_this_library_s_file(tmp_path, changes, message):
    huggingface_dirs.write_vocabulary(tmp_path, pair=True)
    path = tmp_path / "special_tokens.json"
    path.write_text(json.dumps(OWN_FILE))
    assert vocabularies.load(tmp_path).encode(END_OF_TEXT) == [END]
    path.write_text(json.dumps(OWN_FILE | changes))
    with pytest.raises(DamagedFileError, match="special_tokens.json is damaged") as error:
        vocabularies.load(tmp_path)
    assert message in str(error.value)


def damaged(rng, content):
    """Return a JSON file with another value at any depth, or with damaged bytes."""
    value = json.loads(content)
    target = value
    while True:
        key = rng.choice(list(target) if isinstance(target, dict) else range(len(target)))
        if not isinstance(target[key], (dict, list)) or not target[key] or rng.random() < 0.2:
            break
        target = target[key]
    target[key] = "VICTIM"
    odd = json.dumps(value).replace('"VICTIM"', odd_json_value(rng), 1).encode()
    return rng.choice([odd, odd, damage_bytes(rng, content)])


@pytest.mark.parametrize("name", ["tokenizer_config", "special_tokens_map", "added_tokens", "generation_config", "own"])
def test_random_damage_gives_a_one_line_error_or_a_vocabulary_that_works(tmp_path, name):
    """Other files of the folder are whole."""
    added = {each["content"]: each["id"] for each in added_token_dirs.ROLES}
    case = {
        "tokenizer_config": {"added_tokens_decoder": added_token_dirs.decoder(end(), *added_token_dirs.ROLES)},
        "special_tokens_map": {
            "pad_token": {"content": "[PAD]", "lstrip": True},
            "additional_special_tokens": ["<sep>"],
        },
        "added_tokens": added,
        "generation_config": {"eos_token_id": [END, FREE, FREE + 1]},
    }
    if name in ("special_tokens_map", "added_tokens"):
        del case["tokenizer_config"]
    folder = added_token_dirs.write(tmp_path, case)
    if name == "own":
        for file, content in vocabularies.load(folder).files().items():
            (folder / file).write_bytes(content)
    path = folder / ("special_tokens.json" if name == "own" else f"{name}.json")
    whole, rng, loaded = path.read_bytes(), random.Random(name), 0
    for _ in range(150):
        path.write_bytes(damaged(rng, whole))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                encoder = vocabularies.load(folder)
            except GPT2Error as error:
                assert "\n" not in str(error) and str(folder) in str(error) and len(str(error)) < 2000
                continue
        loaded += 1
        ids = encoder.encode("the cat<sep>[PAD] <|user|><|endoftext|> x")
        assert ids and max(ids) < encoder.n_vocab and encoder.decode(ids)
        assert encoder.ending_ids <= set(encoder.ids_of.values())
    assert loaded < 140
