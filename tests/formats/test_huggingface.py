"""Hugging Face's directories: each variant, each kind of file, what transformers makes of them, and what is refused."""

import json
import shutil
from pathlib import Path

import huggingface_dirs
import numpy as np
import pytest
from huggingface_dirs import IDS, VARIANTS, arrays_of, hparams_of, safetensors, stored

from gpt2 import generate
from gpt2.engine import reference
from gpt2.engine.backend import Piece
from gpt2.engine.kv_cache import blocks_for
from gpt2.engine.load import load_backend
from gpt2.errors import DamagedFileError, GPT2Error
from gpt2.formats import stored_tensor
from gpt2.formats.model_dir import find_model, find_vocabulary, load_vocabulary, open_model_dir
from gpt2.formats.weights import nest
from gpt2.hparams import HParams
from gpt2.request import Request

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SAVED = GOLDEN / "huggingface"
EXPECTED = dict(np.load(GOLDEN / "huggingface.npz"))


def logits(directory, native):
    """Of the last of IDS [V], by one of the two backends."""
    backend = load_backend(open_model_dir(directory), native=native)
    blocks = backend.new_blocks()
    own = [blocks.take() for _ in range(blocks_for(len(IDS)))]
    return backend.extend(blocks, [Piece(own, 0, IDS)]).values[0]


def weights(directory):
    """All weights by their names."""
    return {name: weight.array() for name, weight in open_model_dir(directory).read().items()}


def by_reference(directory):
    found = open_model_dir(directory)
    return reference.logits(nest(weights(directory).items()), found.hparams, IDS)[-1]


@pytest.fixture
def folder(tmp_path):
    return huggingface_dirs.write(tmp_path / "model")


def change(path, **values):
    """Changes what a file of JSON says."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_of_each_variant_are_those_of_transformers(tmp_path, name):
    directory = huggingface_dirs.write(tmp_path, VARIANTS[name])
    for native in (True, False):
        np.testing.assert_allclose(logits(directory, native), EXPECTED[name], rtol=0, atol=1e-5)
    np.testing.assert_allclose(by_reference(directory), EXPECTED[name], rtol=0, atol=1e-5)


def test_variants_differ():
    """Else the test above would show nothing of them."""
    same = {"plain", "upcast", "dropout", "gelu_pytorch_tanh", "gelu_fast"}
    for name, expected in EXPECTED.items():
        if name != "saved" and expected.shape == EXPECTED["plain"].shape:
            assert (abs(expected - EXPECTED["plain"]).max() < 1e-5) == (name in same), name


@pytest.mark.parametrize("prefix", ["transformer.", ""])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize(
    "file, legacy", [("model.safetensors", False), ("pytorch_model.bin", False), ("pytorch_model.bin", True)]
)
def test_each_kind_of_file_holds_the_same(tmp_path, monkeypatch, file, legacy, shards, prefix):
    monkeypatch.setattr(stored_tensor, "PIECE_BYTES", 300)  # so that there are several
    changes = VARIANTS["all"]
    expected = weights(huggingface_dirs.write(tmp_path / "one", changes))
    directory = huggingface_dirs.write(
        tmp_path / "other", changes, file=file, legacy=legacy, shards=shards, prefix=prefix
    )
    found = weights(directory)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
        assert found[name].dtype == np.float32


@pytest.mark.parametrize("kind", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_other_types_of_numbers(tmp_path, kind, file):
    directory = huggingface_dirs.write(tmp_path, file=file, kind=kind)
    expected = {"float64": 0, "float16": 1e-3, "bfloat16": 1e-2}[kind]
    for name, array in weights(huggingface_dirs.write(tmp_path / "float32")).items():
        np.testing.assert_allclose(weights(directory)[name], array, rtol=expected, atol=1e-7)


@pytest.mark.parametrize(
    "changed, file",
    [
        ("model.safetensors", "model.safetensors"),
        ("sharded", "model.safetensors.index.json"),
        ("pytorch_model.bin", "pytorch_model.bin"),
        ("legacy.bin", "pytorch_model.bin"),
        ("bfloat16", "model.safetensors"),
    ],
)
def test_what_transformers_and_pytorch_wrote(tmp_path, changed, file):
    """The files in tests/golden/huggingface, each put where it would be found."""
    shutil.copytree(SAVED, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors", "*.bin", "sharded"))
    source, directory = SAVED / changed, tmp_path / "model"
    if source.is_dir():
        for path in source.glob("model*"):
            shutil.copy(path, directory)
    else:
        shutil.copy(source, directory / file)
    assert open_model_dir(directory).weights_path.name == file
    tolerance = 0.1 if changed == "bfloat16" else 1e-4
    np.testing.assert_allclose(logits(directory, native=True), EXPECTED["saved"], rtol=0, atol=tolerance)


def test_the_library_is_given_the_model_by_its_path_alone(folder):
    model = generate.load(str(folder))
    assert model.hparams == hparams_of(json.loads((folder / "config.json").read_text()))
    assert next(generate.generate(model, [Request("the cat", length=6, seed=1)]))
    assert find_vocabulary(str(folder)).fingerprint == load_vocabulary(find_model(str(folder))).fingerprint


@pytest.mark.parametrize("tied", [True, False])
def test_rows_beyond_the_vocabulary_are_not_read(tmp_path, tied):
    """An embedding that is padded, to a multiple of 64 say."""
    config = {"vocab_size": 320, "tie_word_embeddings": tied}
    directory = huggingface_dirs.write(tmp_path, config)
    n_vocab = load_vocabulary(open_model_dir(directory)).n_vocab
    assert n_vocab < 320
    found = weights(directory)
    arrays = arrays_of(json.loads((directory / "config.json").read_text()))
    np.testing.assert_array_equal(found["model/wte"], arrays["transformer.wte.weight"][:n_vocab])
    if not tied:
        np.testing.assert_array_equal(found["model/lm_head"], arrays["lm_head.weight"][:n_vocab])
    assert logits(directory, native=True).shape == (n_vocab,)


def test_a_head_that_is_tied_is_not_looked_at_and_masks_neither(tmp_path):
    directory = huggingface_dirs.write(tmp_path)
    arrays = arrays_of(json.loads((directory / "config.json").read_text()))
    expected = weights(directory)
    besides = {
        "lm_head.weight": arrays["transformer.wte.weight"],
        "transformer.h.0.attn.bias": np.tri(16, dtype=bool)[None, None],
        "transformer.h.1.attn.masked_bias": np.array(-1e4, "<f4"),
        "v_head.summary.weight": np.zeros((1, 16), "<f4"),
        "multiple_choice_head.summary.bias": np.zeros(1, "<f4"),
    }
    for file in ("model.safetensors", "pytorch_model.bin"):
        (directory / "model.safetensors").unlink(missing_ok=True)
        huggingface_dirs.write_file(directory / file, arrays | besides)
        found = weights(directory)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], array) for name, array in expected.items())


def test_older_configs(folder):
    """Of 2019: without a type, with n_ctx beside n_positions."""
    path = folder / "config.json"
    said = json.loads(path.read_text()) | {"n_ctx": 16}
    for name in ("model_type", "architectures"):
        del said[name]
    path.write_text(json.dumps(said))
    assert open_model_dir(folder).hparams.n_ctx == 16
    for name, other in (("n_embd", "hidden_size"), ("n_positions", "max_position_embeddings")):
        said[other] = said.pop(name)
    path.write_text(json.dumps({**said, "model_type": "gpt2"}))
    assert (open_model_dir(folder).hparams.n_embd, open_model_dir(folder).hparams.n_ctx) == (16, 16)


CONFIGS = [
    ({"model_type": "gpt_neo"}, "is of a model of the type gpt_neo; only gpt2 is read"),
    ({"model_type": ["gpt2"]}, r"is of a model of the type \['gpt2'\]; only"),
    ({"activation_function": "relu"}, "activation_function must be one of gelu_new, .*, not relu"),
    ({"activation_function": None}, "activation_function must be one of gelu_new, .*, not None"),
    ({"scale_attn_weights": False}, "this model has scale_attn_weights False, which GPT-2 has not"),
    ({"add_cross_attention": True}, "this model has add_cross_attention True, which GPT-2 has not"),
    ({"quantization_config": {"bits": 4}}, r"this model has quantization_config {'bits': 4}, which GPT-2 has not"),
    ({"auto_map": {"AutoModel": "x.y"}}, "this model has auto_map .*, which GPT-2 has not"),
    ({"pruned_heads": {"0": [1]}}, "this model has pruned_heads"),
    ({"n_head": 3}, r"config.json: n_embd \(16\) must be a multiple of n_head \(3\)"),
    ({"n_embd": "16"}, "config.json: n_embd must be a whole number of at least 1, not '16'"),
    ({"layer_norm_epsilon": 0}, "config.json: layer_norm_epsilon must be a number between 0 and 1, not 0"),
    ({"tie_word_embeddings": None}, "config.json: tie_word_embeddings must be true or false, not None"),
    ({"vocab_size": 200}, "the vocabulary has 280 ids, but config.json says vocab_size 200; they belong to different"),
    ({"n_layer": 1}, "holds 2 layers, but its config.json says n_layer 1"),
    ({"n_layer": 9999}, "holds 2 layers, but its config.json says n_layer 9999"),
    ({"tie_word_embeddings": False}, "lacks 1 of 29 weights of .* first lm_head.weight"),
    ({"n_positions": 17}, r"wpe.weight has the shape \[16, 16\], but should have \[17, 16\]"),
    ({"n_inner": 32}, r"h.0.mlp.c_fc.weight has the shape \[16, 64\], but should have \[16, 32\]"),
]


@pytest.mark.parametrize("values, said", CONFIGS)
def test_what_gpt2_has_not_or_the_weights_do_not_fit(folder, values, said):
    change(folder / "config.json", **values)
    with pytest.raises(GPT2Error, match=said) as raised:
        open_model_dir(folder).read()
    assert "\n" not in str(raised.value) and str(folder) in str(raised.value)


@pytest.mark.parametrize(
    "missing, said",
    [
        (["model.safetensors"], r"model lacks model.safetensors or pytorch_model.bin; fetch or copy it again"),
        (
            ["tokenizer.json"],
            r"model has no vocabulary: copy tokenizer.json, or vocab.json and merges.txt of the model",
        ),
    ],
)
def test_missing_files(folder, missing, said):
    for name in missing:
        (folder / name).unlink()
    with pytest.raises(GPT2Error, match=said):
        open_model_dir(folder)


def test_weights_of_other_heads_and_unknown_ones(folder):
    arrays = arrays_of(json.loads((folder / "config.json").read_text()))
    for name in ("score.weight", "transformer.h.0.crossattention.c_attn.weight", "a\nb", "transformer.h.0.ln_3.bias"):
        huggingface_dirs.write_file(folder / "model.safetensors", {**arrays, name: np.zeros(3, "<f4")})
        said = name.removeprefix("transformer.").replace("\n", r"\\n")
        with pytest.raises(GPT2Error, match=f"holds 1 weights that a GPT-2 .* first '?{said}") as raised:
            open_model_dir(folder).read()
        assert "\n" not in str(raised.value)
    twice = arrays | {"wte.weight": arrays["transformer.wte.weight"]}
    huggingface_dirs.write_file(folder / "model.safetensors", twice)
    with pytest.raises(DamagedFileError, match="a weight twice, with and without transformer"):
        open_model_dir(folder).read()
    integers = {name: array.astype("<i8") for name, array in arrays.items()}
    huggingface_dirs.write_file(folder / "model.safetensors", integers)
    with pytest.raises(GPT2Error, match="wpe.weight is int64, but weights are one of float64, float32"):
        open_model_dir(folder).read()


def test_files_of_pytorch_that_hold_something_else(tmp_path):
    directory = huggingface_dirs.write(tmp_path, file="pytorch_model.bin")
    path = directory / "pytorch_model.bin"
    for value, said in (
        (["x"], "it holds no weights with names"),
        ({1: "x"}, "it holds no weights with names"),
        ({"step": 1}, "should hold weights alone, but step is none"),
    ):
        huggingface_dirs.write_zip(path, value, {})
        with pytest.raises(GPT2Error, match=f"pytorch_model.bin .*{said}"):
            open_model_dir(directory).read()


def test_a_pointer_of_git_is_no_file_of_weights(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(GPT2Error, match="is only a pointer of Git LFS to the weights; fetch them with: git lfs pull"):
        open_model_dir(folder).read()


INDEXES = [
    ({"weight_map": None}, "does not say in which files the weights are"),
    ({"weight_map": {"wte.weight": 1}}, "does not say in which files the weights are"),
    (
        {"weight_map": {"wte.weight": "../model-00001-of-00002.safetensors"}},
        "is no name of a file of weights beside it",
    ),
    ({"weight_map": {"wte.weight": "/etc/passwd"}}, "/etc/passwd is no name of a file of weights"),
    ({"weight_map": {"wte.weight": "x.bin"}}, "x.bin is no name of a file of weights"),
    ({"weight_map": {"wte.weight": "model.safetensors.index.json"}}, "is no name of a file of weights"),
    ({"weight_map": {"wte.weight": "other.safetensors"}}, "other.safetensors is missing; fetch or copy it"),
    ({"weight_map": {"x": "model-00001-of-00002.safetensors"}}, "x is not in model-00001-of-00002.safetensors"),
]


@pytest.mark.parametrize("values, said", INDEXES)
def test_indexes_that_lead_elsewhere(tmp_path, values, said):
    directory = huggingface_dirs.write(tmp_path, shards=2)
    change(directory / "model.safetensors.index.json", **values)
    with pytest.raises(GPT2Error, match=said):
        open_model_dir(directory).read()


def test_a_weight_in_two_shards(tmp_path):
    directory = huggingface_dirs.write(tmp_path, shards=2)
    shutil.copy(directory / "model-00001-of-00002.safetensors", directory / "model-00002-of-00002.safetensors")
    with pytest.raises(DamagedFileError, match="is in two files"):
        open_model_dir(directory).read()


def header(said, data=b""):
    text = said if isinstance(said, bytes) else json.dumps(said).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(shape, start, end, kind="F32"):
    return {"dtype": kind, "shape": shape, "data_offsets": [start, end]}


SAFETENSORS = [
    (b"", "does not begin as safetensors files do"),
    (b"\xff" * 8, "does not begin as safetensors files do"),
    ((1 << 62).to_bytes(8, "little") + b"{}", "does not begin as safetensors files do"),
    (header(b"[1"), "its header is not JSON"),
    (header(b"\xff\xff"), "its header is not JSON"),
    (header(b"[" * 100_000), "its header is not JSON"),
    (header(b'{"a": 1, "a": 2}'), "a name is there twice"),
    (header([]), "does not name tensors"),
    (header({"a": 1}), "does not say what a is"),
    (header({"a": {"dtype": "F32"}}), "does not say what a is"),
    (header({"a": entry([2], 0, 8) | {"x": 1}}, b"12345678"), "does not say what a is"),
    (
        header({"a": entry([1], 0, 1, "F8_E4M3")}, b"1"),
        "a is of the type F8_E4M3, which is not read; convert it to F32",
    ),
    (header({"a": entry([-1], 0, 4)}, b"1234"), "a has a shape that cannot be"),
    (header({"a": entry([True], 0, 4)}, b"1234"), "a has a shape that cannot be"),
    (header({"a": entry([1] * 99, 0, 4)}, b"1234"), "a has a shape that cannot be"),
    (header({"a": entry([10**30], 0, 4)}, b"1234"), "a has a shape that cannot be"),
    (header({"a": entry([10**9], 0, 4 * 10**9)}, b"1234"), "bytes, but its header speaks of 40000000"),
    (header({"a": entry([2], 0, 4)}, b"1234"), "a has 4 bytes, but its shape needs 8"),
    (header({"a": entry([1], -4, 0)}, b"1234"), "a does not begin where the header ends"),
    (header({"a": entry([1], 4, 8)}, b"12345678"), "a does not begin where the header ends"),
    (header({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, b"1234"), "does not begin where"),
    (header({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, b"1" * 12), "b does not begin where a ends"),
    (header({"a": entry([1], 0, 4)}, b"12345"), "but its header speaks of"),
    (header({}, b"12345"), "but its header speaks of"),
]


@pytest.mark.parametrize("content, said", SAFETENSORS)
def test_safetensors_that_cannot_be(folder, content, said):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(DamagedFileError, match=said):
        open_model_dir(folder).read()


def test_every_shorter_file_of_safetensors_is_damaged(tmp_path):
    path = tmp_path / "x.safetensors"
    content = safetensors({"a": np.ones((2, 3), "<f4"), "b": stored(np.ones(3, "f4"), "bfloat16")}, metadata=False)
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(DamagedFileError):
            from_file(path)
    path.write_bytes(content)
    assert {name: (found.shape, found.dtype) for name, found in from_file(path).items()} == {
        "a": ((2, 3), "float32"),
        "b": ((3,), "bfloat16"),
    }


def from_file(path):
    from gpt2.formats.huggingface import safetensors

    return safetensors.read(path)


def test_openais_layout_comes_first(folder, tiny_dir):
    """A folder that has the files of both."""
    for path in tiny_dir.iterdir():
        shutil.copy(path, folder)
    assert open_model_dir(folder).hparams == open_model_dir(tiny_dir).hparams
    assert isinstance(open_model_dir(folder).hparams, HParams)
