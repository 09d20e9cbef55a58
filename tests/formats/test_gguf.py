"""GGUF: models of llama.cpp's converter can be read, and other files are rejected by name."""

import json
from pathlib import Path

import gguf
import gguf_layout
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from one_by_one import GREEDY, generate_ids
from variant_dirs import VARIANTS
from variant_dirs import write as write_variant

from gpt2 import generate
from gpt2.engine.load import load_backend
from gpt2.engine.token_sequence import TokenSequence
from gpt2.errors import GPT2Error
from gpt2.formats import model_dir
from gpt2.formats.gguf.names import tensor_name
from gpt2.formats.model_dir import find_model, load_vocabulary, open_model_dir
from gpt2.formats.weights import Layout, flatten

GOLDEN = json.loads(Path(__file__).parents[1].joinpath("golden/llama_cpp.json").read_text(encoding="utf-8"))
SUPPORTED_VARIANTS = ("untied", "epsilon", "inner")


@pytest.fixture(scope="module")
def source(tiny_dir):
    model = open_model_dir(tiny_dir)
    return dict(flatten(tiny.read_model(tiny_dir))), load_vocabulary(model), model.hparams


def read_arrays(path):
    """Return the weights of a model of any format, matrices as [I, O]."""
    weights = open_model_dir(path).read().items()
    is_transposed = {name: weight.layout is Layout.OUT_IN and name.endswith("/w") for name, weight in weights}
    return {name: weight.array().T if is_transposed[name] else weight.array() for name, weight in weights}


def test_the_converted_file_is_the_same_model(tmp_path, source, tiny_dir):
    weights, encoder, hparams = source
    path = gguf_layout.write(tmp_path / "model.gguf", *source)
    model = find_model(str(path))
    assert (model.path, model.hparams) == (path, hparams)
    assert load_vocabulary(model).fingerprint == encoder.fingerprint
    for name, value in read_arrays(path).items():
        np.testing.assert_array_equal(value, weights[name])
    sequences = [TokenSequence([1, 2, 3], GREEDY), TokenSequence([250], GREEDY)]
    expected = generate_ids(load_backend(open_model_dir(tiny_dir), native=False), sequences, 40)
    assert generate_ids(load_backend(model, native=False), sequences, 40) == expected
    texts = generate.generate(generate.load(str(path)), [generate.Request("the cat", 9, GREEDY)])
    assert list(texts) == list(
        generate.generate(generate.load(str(tiny_dir)), [generate.Request("the cat", 9, GREEDY)])
    )


@pytest.mark.parametrize("kind, max_error", [("F16", 2**-11), ("BF16", 2**-8), ("Q8_0", 1 / 200), ("Q4_0", 1 / 7)])
def test_narrow_types(tmp_path, source, kind, max_error):
    """The numbers of a weight differ by no more than this fraction of the largest."""
    path = gguf_layout.write(tmp_path / "model.gguf", *source, kind=kind)
    for name, value in read_arrays(path).items():
        expected = source[0][name]
        is_equal = np.array_equal(value, expected)
        assert is_equal == (not name.endswith(("/w", "wte"))), name
        assert np.abs(value - expected).max() <= max_error * np.abs(expected).max() + 1e-6, name


@pytest.mark.parametrize("kind", GOLDEN)
def test_llama_cpp_generates_the_same(tmp_path, kind):
    """Compares ids and greedy continuations with those of llama.cpp."""
    variant = write_variant(tmp_path / "source", n_ctx=128)
    weights, encoder = dict(flatten(tiny.read_model(variant.path))), load_vocabulary(variant)
    model = open_model_dir(gguf_layout.write(tmp_path / "model.gguf", weights, encoder, variant.hparams, kind=kind))
    expected = GOLDEN[kind]
    assert [load_vocabulary(model).encode(text["prompt"]) for text in expected] == [text["ids"] for text in expected]
    sequences = [TokenSequence(text["ids"], GREEDY) for text in expected]
    assert generate_ids(load_backend(model, native=False), sequences, 40) == [text["new"] for text in expected]


@pytest.mark.parametrize("name", SUPPORTED_VARIANTS)
def test_variants(tmp_path, name):
    model = write_variant(tmp_path / "source", **VARIANTS[name])
    weights = dict(flatten(tiny.read(model.weights_path, model.hparams)))
    path = gguf_layout.write(tmp_path / "model.gguf", weights, load_vocabulary(model), model.hparams)
    assert open_model_dir(path).hparams == model.hparams
    for weight, value in read_arrays(path).items():
        np.testing.assert_array_equal(value, weights[weight])


def test_padding_rows_are_not_read(tmp_path, source):
    path = gguf_layout.write(tmp_path / "model.gguf", *source, padding=7)
    assert open_model_dir(path).hparams == source[2]
    np.testing.assert_array_equal(read_arrays(path)["model/wte"], source[0]["model/wte"])


def test_an_identical_second_embedding_is_tied(tmp_path, source):
    path = gguf_layout.write(tmp_path / "model.gguf", *source, output=True)
    assert open_model_dir(path).hparams == source[2]
    assert "model/lm_head" not in read_arrays(path)


def test_a_model_is_found_by_file_and_by_folder(tmp_path, source, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model_dir, "CHECKOUT", tmp_path)
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    path = gguf_layout.write(folder / "a.gguf", *source)
    assert find_model("mine").path == find_model("models/mine").path.absolute().relative_to(tmp_path)
    assert find_model("mine").weights_path.resolve() == path
    path.with_name("b.gguf").write_bytes(path.read_bytes())
    with pytest.raises(GPT2Error, match=r"mine holds 2 GGUF files; give the path of one of them: .*a\.gguf, .*b\.gguf"):
        find_model("mine")
    path.rename(tmp_path / "without_suffix")
    assert find_model("without_suffix").hparams == source[2]


@pytest.mark.parametrize(
    "metadata, message",
    [
        ({"architecture": "llama"}, "general.architecture is llama, not gpt2"),
        ({"general__type": "adapter"}, "general.type is adapter, not model"),
        ({"split__count": 3}, "split.count is 3, not 1; join its parts with llama-gguf-split --merge"),
        ({"tokenizer__ggml__model": "llama"}, "tokenizer.ggml.model is llama, not gpt2"),
        ({"tokenizer__ggml__pre": "llama-bpe"}, "tokenizer.ggml.pre is llama-bpe, not gpt-2"),
        ({"gpt2__attention__head_count_kv": 1}, "gpt2.attention.head_count_kv is 1, not 4"),
        ({"gpt2__context_length": None}, "gpt2.context_length should be a number, but it is missing"),
        ({"gpt2__context_length": "many"}, "gpt2.context_length should be a number, but it is of another type"),
        ({"gpt2__context_length": 33}, r"position_embd.weight has the shape \[32, 32\], but .* needs \[33, 32\]"),
        ({"gpt2__attention__head_count": 5}, r"n_embd \(32\) must be a multiple of n_head \(5\)"),
        ({"gpt2__attention__layer_norm_epsilon": 2.0}, "layer_norm_epsilon must be a number between 0 and 1"),
        ({"gpt2__block_count": 3}, "it lacks 12 of 40 tensors of .*: blk.2.attn_norm.weight"),
        ({"gpt2__block_count": 1}, "holds 12 tensors that GPT-2 does not have: blk.1"),
        ({"gpt2__feed_forward_length": 64}, "blk.0.ffn_up.weight has the shape"),
        ({"tokenizer__ggml__tokens": None}, "should be lists of strings"),
        ({"tokenizer__ggml__token_type": "x"}, "should be a number for each of the"),
        ({"general__alignment": 48}, "its general.alignment is not a power of two"),
    ],
)
def test_other_models_are_rejected_by_name(tmp_path, source, metadata, message):
    path = gguf_layout.write(tmp_path / "model.gguf", *source, **metadata)
    with pytest.raises(GPT2Error, match=rf"model\.gguf.*{message}"):
        open_model_dir(path)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda tokens, merges: tokens.__setitem__(0, "another"), "its vocabulary lacks 1 of the 256 bytes"),
        (lambda tokens, merges: tokens.__setitem__(-2, tokens[-3]), "two of its tokens are the same"),
        (lambda tokens, merges: merges.pop(), "no merge produces the token 'Ġlog' and 0 others"),
        (lambda tokens, merges: merges.append("x"), "one of its merges does not consist of two pieces"),
        (lambda tokens, merges: merges.append("x y"), "it lacks the token 'xy', which a merge produces"),
    ],
)
def test_damaged_vocabularies_are_rejected(tmp_path, source, monkeypatch, change, message):
    lists = {}

    def changed_add_array(self, name, values):
        lists[name.rpartition(".")[2]] = values = list(values)
        if {"tokens", "merges"} <= set(lists):
            change(lists["tokens"], lists["merges"])
        original(self, name, values)

    original = gguf.GGUFWriter.add_array
    monkeypatch.setattr(gguf.GGUFWriter, "add_array", changed_add_array)
    model = open_model_dir(gguf_layout.write(tmp_path / "model.gguf", *source))
    with pytest.raises(GPT2Error, match=message):
        load_vocabulary(model)


def test_other_special_tokens(tmp_path, source, monkeypatch):
    """Their text is literal, whether or not its characters stand for bytes in ordinary tokens."""
    weights, encoder, hparams = source

    def describe_with_special_tokens(writer, *arguments):
        original(writer, *arguments)
        tokens, types = (writer.kv_data[0][f"tokenizer.ggml.{name}"].value for name in ("tokens", "token_type"))
        tokens += ["<é>", "\n"]
        types += [gguf.TokenType.USER_DEFINED, gguf.TokenType.CONTROL]

    original = gguf_layout.describe
    monkeypatch.setattr(gguf_layout, "describe", describe_with_special_tokens)
    weights = {**weights, "model/wte": np.concatenate([weights["model/wte"], np.ones((2, 32), np.float32)])}
    model = open_model_dir(gguf_layout.write(tmp_path / "model.gguf", weights, encoder, hparams))
    vocabulary = load_vocabulary(model)
    assert model.hparams.n_vocab == hparams.n_vocab + 2
    assert vocabulary.decode([hparams.n_vocab, hparams.n_vocab + 1]) == "<é>\n"
    assert vocabulary.encode("a<é>\n") == [64, hparams.n_vocab, hparams.n_vocab + 1]
    assert [token.special for token in vocabulary.added.tokens] == [True, False, True]


@pytest.mark.parametrize("key", ["add_bos_token", "add_eos_token"])
def test_ids_around_a_text_are_rejected_by_name(tmp_path, source, key):
    assert load_vocabulary(open_model_dir(gguf_layout.write(tmp_path / "a", *source, **{f"tokenizer__ggml__{key}": 0})))
    model = open_model_dir(gguf_layout.write(tmp_path / "b", *source, **{f"tokenizer__ggml__{key}": 1}))
    with pytest.raises(GPT2Error, match=rf"has tokenizer.ggml.{key}, which .* again with {key} false"):
        load_vocabulary(model)


@pytest.mark.parametrize(
    "ids, others",
    [
        ({"eos": 259}, set()),  # an ordinary piece, such as GPT-2's default id in another vocabulary
        ({"eot": 198}, {198}),
        ({"eot": 198, "eom": 258}, {198, 258}),
        ({"eom": 99999}, set()),
    ],
)
def test_the_ids_that_end_a_text(tmp_path, source, ids, others):
    metadata = {f"tokenizer__ggml__{name}_token_id": value for name, value in ids.items()}
    vocabulary = load_vocabulary(open_model_dir(gguf_layout.write(tmp_path / "model.gguf", *source, **metadata)))
    assert vocabulary.ending_ids == {source[1].end_of_text} | others


@given(st.text(max_size=40))
def test_ids_match_the_source(gguf_vocabulary, text):
    encoder, vocabulary = gguf_vocabulary
    assert vocabulary.encode(text) == encoder.encode(text, special=True)


@pytest.fixture(scope="module")
def gguf_vocabulary(tmp_path_factory, source):
    path = gguf_layout.write(tmp_path_factory.mktemp("models") / "model.gguf", *source)
    return source[1], load_vocabulary(open_model_dir(path))


def test_tensor_names_match_the_package():
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, 3)
    for name in ("model/wte", "model/wpe", "model/ln_f/b", "model/lm_head", "model/h2/ln_2/g", "model/h0/mlp/c_fc/w"):
        expected = names.get_name(gguf_layout.transformers_name(name), try_suffixes=(".weight", ".bias"))
        assert tensor_name(name) == expected


def test_files_that_are_not_models(tmp_path):
    (tmp_path / "text").write_text("GGUL")
    with pytest.raises(GPT2Error, match="text is a file but not a model"):
        open_model_dir(tmp_path / "text")
    (tmp_path / "empty.gguf").write_bytes(b"")
    with pytest.raises(GPT2Error, match=r"empty\.gguf is damaged: it is cut off; fetch"):
        open_model_dir(tmp_path / "empty.gguf")
