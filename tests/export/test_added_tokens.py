"""Added tokens and end tokens in converted models: each format keeps them, or a warning names them."""

import json
import warnings

import huggingface_dirs
import pytest
from added_token_dirs import N_PIECES, ROLES, decoder, end, token

from gpt2.errors import GPT2Error
from gpt2.export.convert import convert
from gpt2.export.options import ExportOptions
from gpt2.formats.model_dir import load_vocabulary, open_model_dir

PLAIN = [end(), *ROLES, token("note_60", 4, special=False, normalized=True)]
TEXT = "<|user|>the cat<sep> the[PAD] note_60<|assistant|>.<|endoftext|> sat"
ENDINGS = [N_PIECES - 1, N_PIECES + 1, N_PIECES + 3]


def write_model(folder, tokens, **files):
    """Write a model with these added tokens in its tokenizer.json."""
    huggingface_dirs.write(folder, {"vocab_size": N_PIECES - 1 + len(tokens)})
    files["tokenizer"] = huggingface_dirs.tokenizer_json(added_tokens=tokens)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return open_model_dir(folder)


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model", PLAIN, generation_config={"eos_token_id": ENDINGS})


def messages(convert_model):
    """Return the warnings of a conversion."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        convert_model()
    return [str(each.message) for each in caught if issubclass(each.category, UserWarning)]


@pytest.mark.parametrize("first", ["openai", "huggingface", "gguf"])
@pytest.mark.parametrize("second", ["openai", "huggingface", "gguf"])
def test_every_direction_keeps_them(tmp_path, model, first, second):
    expected = load_vocabulary(model)
    said = messages(lambda: convert(model, tmp_path / "a", first))
    said += messages(lambda: convert(open_model_dir(tmp_path / "a"), tmp_path / "b", second))
    assert len(said) == [first, second].count("openai")
    assert all("<|user|>, <|assistant|>, <sep> and 2 more are ordinary text for the old tools" in each for each in said)
    for name in ("a", "b"):
        vocabulary = load_vocabulary(open_model_dir(tmp_path / name))
        assert vocabulary.encode(TEXT) == expected.encode(TEXT) and vocabulary.decode(expected.encode(TEXT)) == TEXT
        assert len(vocabulary.encode(TEXT)) == 14
        assert vocabulary.ending_ids == set(ENDINGS) and vocabulary.end_of_text == ENDINGS[0]
        assert [token.special for token in vocabulary.added.tokens] == [True] * 5 + [False]


def test_openai_s_files_are_those_that_the_old_tools_read(tmp_path, model):
    messages(lambda: convert(model, tmp_path / "new", "openai"))
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names >= {"encoder.json", "vocab.bpe", "special_tokens.json"} and "vocab.json" not in names
    assert json.loads((tmp_path / "new/encoder.json").read_text())["[PAD]"] == N_PIECES + 3


@pytest.mark.parametrize("content", ["two words", "tab\t", "Straße\n"])
def test_tokens_that_the_old_tools_cannot_decode_need_variant(tmp_path, content):
    model = write_model(tmp_path / "model", [end(), token(content, 0)])
    with pytest.raises(GPT2Error, match="do not support the special tokens .*; use --variant") as error:
        convert(model, tmp_path / "new", "openai")
    assert content.split()[0] in str(error.value) and "\n" not in str(error.value)
    messages(lambda: convert(model, tmp_path / "new", "openai", ExportOptions(variant=True)))
    assert load_vocabulary(open_model_dir(tmp_path / "new")).encode(f"a{content}b") == [64, N_PIECES, 65]


def test_another_end_token_needs_variant(tmp_path):
    config = {"eos_token": "</s>", "bos_token": "</s>", "unk_token": "</s>"}
    model = write_model(tmp_path / "model", [end(), token("</s>", 0)], tokenizer_config=config)
    with pytest.raises(GPT2Error, match="do not support the end-of-text token </s>; use --variant"):
        convert(model, tmp_path / "new", "openai")
    for to in ("gguf", "huggingface"):
        assert messages(lambda to=to: convert(model, tmp_path / to, to)) == []
        vocabulary = load_vocabulary(open_model_dir(tmp_path / to))
        assert vocabulary.end_token == "</s>" and vocabulary.encode("</s>") == [N_PIECES]


CONDITIONS = [end(), token("<mask>", 0, lstrip=True), token("cat", 1, single_word=True), token("<cls>", 2, rstrip=True)]


def test_conditions_that_a_format_cannot_hold(tmp_path):
    model = write_model(tmp_path / "model", CONDITIONS)
    expected = load_vocabulary(model).added.tokens
    said = messages(lambda: convert(model, tmp_path / "gguf", "gguf"))
    assert said == [
        "the added tokens <mask>, cat, <cls> lose their conditions lstrip, rstrip and single_word, which GGUF lacks"
    ]
    for to in ("openai", "huggingface"):
        messages(lambda to=to: convert(model, tmp_path / to, to))
        assert load_vocabulary(open_model_dir(tmp_path / to)).added.tokens == expected


def test_more_end_tokens_than_gguf_names(tmp_path):
    model = write_model(tmp_path / "model", PLAIN, generation_config={"eos_token_id": [*ENDINGS, N_PIECES]})
    said = messages(lambda: convert(model, tmp_path / "new", "gguf"))
    assert said == ["a GGUF file names 3 tokens that end a text, so [PAD] will not"]
    assert load_vocabulary(open_model_dir(tmp_path / "new")).ending_ids == {*ENDINGS[:2], N_PIECES}


def test_a_saved_model_says_which_tokens_it_splits(tmp_path, model):
    from gpt2.export import saved_model

    vocabulary = load_vocabulary(model)
    said = messages(lambda: saved_model.check(model.hparams, vocabulary, ExportOptions()))
    assert said == [
        "the added tokens <|endoftext|>, <|user|>, <|assistant|> and 3 more are ordinary text for a SavedModel, which"
        " splits them into pieces"
    ]


def test_openai_s_vocabulary_gains_no_warnings(tmp_path, tiny_dir):
    model = open_model_dir(tiny_dir)
    for to in ("openai", "huggingface", "gguf"):
        assert messages(lambda to=to: convert(model, tmp_path / to, to)) == []
    assert {path.name for path in (tmp_path / "openai").glob("*.json")} == {"hparams.json", "encoder.json"}


def test_unused_ids_do_not_become_added_tokens(tmp_path):
    folder = tmp_path / "model"
    model = write_model(folder, [end(), {**token("<sep>", 2)}], config={**huggingface_dirs.CONFIG, "vocab_size": 283})
    huggingface_dirs.write(folder, {"vocab_size": 283})
    tokens = decoder(end(), token("<sep>", 2))
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": tokens}))
    model = open_model_dir(folder)
    for to in ("openai", "huggingface", "gguf"):
        messages(lambda to=to: convert(model, tmp_path / to, to))
        vocabulary = load_vocabulary(open_model_dir(tmp_path / to))
        assert [token.content for token in vocabulary.added.tokens] == ["<|endoftext|>", "<sep>"]
        assert vocabulary.decode([281]) == "<unused 281>" and 281 not in vocabulary.encode("<unused 281>")
