"""GGUF: the layout of llama.cpp's converter is read, and what is no GPT-2 is refused by name."""

import json
from pathlib import Path

import gguf
import gguf_layout
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from one_by_one import GREEDY, take
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
HELD = ("untied", "epsilon", "inner")


@pytest.fixture(scope="module")
def source(tiny_dir):
    found = open_model_dir(tiny_dir)
    return dict(flatten(tiny.read_model(tiny_dir))), load_vocabulary(found), found.hparams


def arrays(path):
    """Of a model in any layout, its weights with matrices [I, O]."""
    weights = open_model_dir(path).read().items()
    turned = {name: weight.layout is Layout.OUT_IN and name.endswith("/w") for name, weight in weights}
    return {name: weight.array().T if turned[name] else weight.array() for name, weight in weights}


def test_the_converter_s_file_is_the_model(tmp_path, source, tiny_dir):
    weights, encoder, hparams = source
    path = gguf_layout.write(tmp_path / "model.gguf", *source)
    found = find_model(str(path))
    assert (found.path, found.hparams) == (path, hparams)
    assert load_vocabulary(found).fingerprint == encoder.fingerprint
    for name, value in arrays(path).items():
        np.testing.assert_array_equal(value, weights[name])
    rows = [TokenSequence([1, 2, 3], GREEDY), TokenSequence([250], GREEDY)]
    ours = take(load_backend(open_model_dir(tiny_dir), native=False), rows, 40)
    assert take(load_backend(found, native=False), rows, 40) == ours
    said = generate.generate(generate.load(str(path)), [generate.Request("the cat", 9, GREEDY)])
    assert list(said) == list(generate.generate(generate.load(str(tiny_dir)), [generate.Request("the cat", 9, GREEDY)]))


@pytest.mark.parametrize("kind, off", [("F16", 2**-11), ("BF16", 2**-8), ("Q8_0", 1 / 200), ("Q4_0", 1 / 7)])
def test_narrow_types(tmp_path, source, kind, off):
    """Numbers of a row differ by no more than this share of the largest."""
    path = gguf_layout.write(tmp_path / "model.gguf", *source, kind=kind)
    for name, value in arrays(path).items():
        expected = source[0][name]
        same = np.array_equal(value, expected)
        assert same == (not name.endswith(("/w", "wte"))), name
        assert np.abs(value - expected).max() <= off * np.abs(expected).max() + 1e-6, name


@pytest.mark.parametrize("kind", GOLDEN)
def test_llama_cpp_writes_the_same(tmp_path, kind):
    """Ids and greedy continuations of llama.cpp."""
    model = write_variant(tmp_path / "source", n_ctx=128)
    weights, encoder = dict(flatten(tiny.read_model(model.path))), load_vocabulary(model)
    found = open_model_dir(gguf_layout.write(tmp_path / "model.gguf", weights, encoder, model.hparams, kind=kind))
    expected = GOLDEN[kind]
    assert [load_vocabulary(found).encode(text["prompt"]) for text in expected] == [text["ids"] for text in expected]
    rows = [TokenSequence(text["ids"], GREEDY) for text in expected]
    assert take(load_backend(found, native=False), rows, 40) == [text["new"] for text in expected]


@pytest.mark.parametrize("name", HELD)
def test_variants(tmp_path, name):
    model = write_variant(tmp_path / "source", **VARIANTS[name])
    weights = dict(flatten(tiny.read(model.weights_path, model.hparams)))
    path = gguf_layout.write(tmp_path / "model.gguf", weights, load_vocabulary(model), model.hparams)
    assert open_model_dir(path).hparams == model.hparams
    for weight, value in arrays(path).items():
        np.testing.assert_array_equal(value, weights[weight])


def test_rows_beyond_the_vocabulary_are_not_read(tmp_path, source):
    path = gguf_layout.write(tmp_path / "model.gguf", *source, padding=7)
    assert open_model_dir(path).hparams == source[2]
    np.testing.assert_array_equal(arrays(path)["model/wte"], source[0]["model/wte"])


def test_an_embedding_that_is_written_twice_is_tied(tmp_path, source):
    path = gguf_layout.write(tmp_path / "model.gguf", *source, output=True)
    assert open_model_dir(path).hparams == source[2]
    assert "model/lm_head" not in arrays(path)


def test_where_it_lies(tmp_path, source, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model_dir, "CHECKOUT", tmp_path)
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    path = gguf_layout.write(folder / "a.gguf", *source)
    assert find_model("mine").path == find_model("models/mine").path.absolute().relative_to(tmp_path)
    assert find_model("mine").weights_path.resolve() == path
    path.with_name("b.gguf").write_bytes(path.read_bytes())
    with pytest.raises(GPT2Error, match=r"mine holds 2 GGUF files; give the path of one: .*a\.gguf, .*b\.gguf"):
        find_model("mine")
    path.rename(tmp_path / "without_its_suffix")
    assert find_model("without_its_suffix").hparams == source[2]


@pytest.mark.parametrize(
    "keys, said",
    [
        ({"architecture": "llama"}, "general.architecture is llama, not gpt2"),
        ({"general__type": "adapter"}, "general.type is adapter, not model"),
        ({"split__count": 3}, "split.count is 3, not 1; join its parts with llama-gguf-split --merge"),
        ({"tokenizer__ggml__model": "llama"}, "tokenizer.ggml.model is llama, not gpt2"),
        ({"tokenizer__ggml__pre": "llama-bpe"}, "tokenizer.ggml.pre is llama-bpe, not gpt-2"),
        ({"gpt2__attention__head_count_kv": 1}, "gpt2.attention.head_count_kv is 1, not 4"),
        ({"gpt2__context_length": None}, "gpt2.context_length should be a number, but it is missing"),
        ({"gpt2__context_length": "many"}, "gpt2.context_length should be a number, but it is something else"),
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
def test_what_is_refused(tmp_path, source, keys, said):
    path = gguf_layout.write(tmp_path / "model.gguf", *source, **keys)
    with pytest.raises(GPT2Error, match=rf"model\.gguf.*{said}"):
        open_model_dir(path)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda tokens, merges: tokens.__setitem__(0, "another"), "its vocabulary lacks 1 of the 256 bytes"),
        (lambda tokens, merges: tokens.__setitem__(-2, tokens[-3]), "two of its tokens are the same"),
        (lambda tokens, merges: merges.pop(), "no merge produces the token 'Ġlog' and 0 others"),
        (lambda tokens, merges: merges.append("x"), "one of its merges does not consist of two pieces"),
        (lambda tokens, merges: merges.append("x y"), "it lacks the token 'xy', which a merge produces"),
    ],
)
def test_vocabularies_that_are_none(tmp_path, source, monkeypatch, change, said):
    lists = {}

    def kept(self, name, values):
        lists[name.rpartition(".")[2]] = values = list(values)
        if {"tokens", "merges"} <= set(lists):
            change(lists["tokens"], lists["merges"])
        original(self, name, values)

    original = gguf.GGUFWriter.add_array
    monkeypatch.setattr(gguf.GGUFWriter, "add_array", kept)
    found = open_model_dir(gguf_layout.write(tmp_path / "model.gguf", *source))
    with pytest.raises(GPT2Error, match=said):
        load_vocabulary(found)


def test_other_control_tokens(tmp_path, source, monkeypatch):
    """In characters that stand for bytes in pieces, and in others."""
    weights, encoder, hparams = source

    def described(writer, *arguments):
        original(writer, *arguments)
        tokens, kinds = (writer.kv_data[0][f"tokenizer.ggml.{name}"].value for name in ("tokens", "token_type"))
        tokens += ["<é>", "\n"]
        kinds += [gguf.TokenType.USER_DEFINED, gguf.TokenType.CONTROL]

    original = gguf_layout.describe
    monkeypatch.setattr(gguf_layout, "describe", described)
    weights = {**weights, "model/wte": np.concatenate([weights["model/wte"], np.ones((2, 32), np.float32)])}
    found = open_model_dir(gguf_layout.write(tmp_path / "model.gguf", weights, encoder, hparams))
    vocabulary = load_vocabulary(found)
    assert found.hparams.n_vocab == hparams.n_vocab + 2
    assert vocabulary.decode([hparams.n_vocab, hparams.n_vocab + 1]) == "<é>\n"
    assert vocabulary.encode("<é>\n") == encoder.encode("<é>\n")


@given(st.text(max_size=40))
def test_ids_are_those_of_the_source(gguf_vocabulary, text):
    encoder, vocabulary = gguf_vocabulary
    assert vocabulary.encode(text) == encoder.encode(text)


@pytest.fixture(scope="module")
def gguf_vocabulary(tmp_path_factory, source):
    path = gguf_layout.write(tmp_path_factory.mktemp("models") / "model.gguf", *source)
    return source[1], load_vocabulary(open_model_dir(path))


def test_names():
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, 3)
    for name in ("model/wte", "model/wpe", "model/ln_f/b", "model/lm_head", "model/h2/ln_2/g", "model/h0/mlp/c_fc/w"):
        theirs = names.get_name(gguf_layout.transformers_name(name), try_suffixes=(".weight", ".bias"))
        assert tensor_name(name) == theirs


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "text").write_text("GGUL")
    with pytest.raises(GPT2Error, match="text is a file but not a model"):
        open_model_dir(tmp_path / "text")
    (tmp_path / "empty.gguf").write_bytes(b"")
    with pytest.raises(GPT2Error, match=r"empty\.gguf is damaged: it is cut off; fetch"):
        open_model_dir(tmp_path / "empty.gguf")
