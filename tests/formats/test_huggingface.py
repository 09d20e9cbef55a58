"""Hugging Face's directories: each variant and each kind of file against transformers, and what is rejected."""

import json
import shutil
from pathlib import Path

import huggingface_dirs
import numpy as np
import pytest
from huggingface_dirs import PROMPT_IDS, VARIANTS, convert, hparams_of, random_tensors, safetensors

from gpt2 import generate
from gpt2.engine import reference
from gpt2.engine.backend import Segment
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
    """Return the logits [V] after PROMPT_IDS, computed by one of the two backends."""
    backend = load_backend(open_model_dir(directory), native=native)
    pool = backend.new_pool()
    blocks = [pool.allocate() for _ in range(blocks_for(len(PROMPT_IDS)))]
    return backend.extend(pool, [Segment(blocks, 0, PROMPT_IDS)]).values[0]


def weights(directory):
    """Return all weights by their names."""
    return {name: weight.array() for name, weight in open_model_dir(directory).read().items()}


def reference_logits(directory):
    model = open_model_dir(directory)
    return reference.logits(nest(weights(directory).items()), model.hparams, PROMPT_IDS)[-1]


@pytest.fixture
def folder(tmp_path):
    return huggingface_dirs.write(tmp_path / "model")


def change(path, **values):
    """Change values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_of_each_variant_match_transformers(tmp_path, name):
    directory = huggingface_dirs.write(tmp_path, VARIANTS[name])
    for native in (True, False):
        np.testing.assert_allclose(logits(directory, native), EXPECTED[name], rtol=0, atol=1e-5)
    np.testing.assert_allclose(reference_logits(directory), EXPECTED[name], rtol=0, atol=1e-5)


def test_variants_differ():
    """Otherwise the test above would prove nothing about them."""
    without_effect = {"plain", "upcast", "dropout", "gelu_pytorch_tanh", "gelu_fast"}
    for name, expected in EXPECTED.items():
        if name != "saved" and expected.shape == EXPECTED["plain"].shape:
            assert (abs(expected - EXPECTED["plain"]).max() < 1e-5) == (name in without_effect), name


@pytest.mark.parametrize("prefix", ["transformer.", ""])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize(
    "file, legacy", [("model.safetensors", False), ("pytorch_model.bin", False), ("pytorch_model.bin", True)]
)
def test_each_kind_of_file_gives_the_same_weights(tmp_path, monkeypatch, file, legacy, shards, prefix):
    monkeypatch.setattr(stored_tensor, "PIECE_BYTES", 300)  # so that a tensor has several pieces
    changes = VARIANTS["all"]
    expected = weights(huggingface_dirs.write(tmp_path / "one", changes))
    directory = huggingface_dirs.write(
        tmp_path / "other", changes, file=file, legacy=legacy, shards=shards, prefix=prefix
    )
    loaded = weights(directory)
    assert loaded.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(loaded[name], array, err_msg=name)
        assert loaded[name].dtype == np.float32


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_other_types_of_numbers(tmp_path, dtype, file):
    directory = huggingface_dirs.write(tmp_path, file=file, dtype=dtype)
    tolerance = {"float64": 0, "float16": 1e-3, "bfloat16": 1e-2}[dtype]
    for name, array in weights(huggingface_dirs.write(tmp_path / "float32")).items():
        np.testing.assert_allclose(weights(directory)[name], array, rtol=tolerance, atol=1e-7)


@pytest.mark.parametrize(
    "saved, file",
    [
        ("model.safetensors", "model.safetensors"),
        ("sharded", "model.safetensors.index.json"),
        ("pytorch_model.bin", "pytorch_model.bin"),
        ("legacy.bin", "pytorch_model.bin"),
        ("bfloat16", "model.safetensors"),
    ],
)
def test_files_that_transformers_and_pytorch_wrote(tmp_path, saved, file):
    """The files in tests/golden/huggingface, each under the name that transformers gives it."""
    shutil.copytree(SAVED, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors", "*.bin", "sharded"))
    source, directory = SAVED / saved, tmp_path / "model"
    if source.is_dir():
        for path in source.glob("model*"):
            shutil.copy(path, directory)
    else:
        shutil.copy(source, directory / file)
    assert open_model_dir(directory).weights_path.name == file
    tolerance = 0.1 if saved == "bfloat16" else 1e-4
    np.testing.assert_allclose(logits(directory, native=True), EXPECTED["saved"], rtol=0, atol=tolerance)


def test_generation_needs_only_the_path_of_the_model(folder):
    model = generate.load(str(folder))
    assert model.hparams == hparams_of(json.loads((folder / "config.json").read_text()))
    assert next(generate.generate(model, [Request("the cat", length=6, seed=1)]))
    assert find_vocabulary(str(folder)).fingerprint == load_vocabulary(find_model(str(folder))).fingerprint


@pytest.mark.parametrize("tied", [True, False])
def test_padding_of_the_embedding_is_cut_off(tmp_path, tied):
    """Some models pad the embedding, for example to a multiple of 64 rows."""
    config = {"vocab_size": 320, "tie_word_embeddings": tied}
    directory = huggingface_dirs.write(tmp_path, config)
    n_vocab = load_vocabulary(open_model_dir(directory)).n_vocab
    assert n_vocab < 320
    loaded = weights(directory)
    arrays = random_tensors(json.loads((directory / "config.json").read_text()))
    np.testing.assert_array_equal(loaded["model/wte"], arrays["transformer.wte.weight"][:n_vocab])
    if not tied:
        np.testing.assert_array_equal(loaded["model/lm_head"], arrays["lm_head.weight"][:n_vocab])
    assert logits(directory, native=True).shape == (n_vocab,)


def test_tied_heads_masks_and_other_heads_are_ignored(tmp_path):
    directory = huggingface_dirs.write(tmp_path)
    arrays = random_tensors(json.loads((directory / "config.json").read_text()))
    expected = weights(directory)
    ignored = {
        "lm_head.weight": arrays["transformer.wte.weight"],
        "transformer.h.0.attn.bias": np.tri(16, dtype=bool)[None, None],
        "transformer.h.1.attn.masked_bias": np.array(-1e4, "<f4"),
        "v_head.summary.weight": np.zeros((1, 16), "<f4"),
        "multiple_choice_head.summary.bias": np.zeros(1, "<f4"),
    }
    for file in ("model.safetensors", "pytorch_model.bin"):
        (directory / "model.safetensors").unlink(missing_ok=True)
        huggingface_dirs.write_file(directory / file, arrays | ignored)
        loaded = weights(directory)
        assert loaded.keys() == expected.keys()
        assert all(np.array_equal(loaded[name], array) for name, array in expected.items())


def test_older_configs(folder):
    """Configs of 2019 have no model_type, and n_ctx in addition to n_positions."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {"n_ctx": 16}
    for name in ("model_type", "architectures"):
        del config[name]
    path.write_text(json.dumps(config))
    assert open_model_dir(folder).hparams.n_ctx == 16
    for name, other in (("n_embd", "hidden_size"), ("n_positions", "max_position_embeddings")):
        config[other] = config.pop(name)
    path.write_text(json.dumps({**config, "model_type": "gpt2"}))
    assert (open_model_dir(folder).hparams.n_embd, open_model_dir(folder).hparams.n_ctx) == (16, 16)


CONFIGS = [
    ({"model_type": "gpt_neo"}, "describes a model of the type gpt_neo; only gpt2 is supported"),
    ({"model_type": ["gpt2"]}, r"describes a model of the type \['gpt2'\]; only"),
    ({"activation_function": "relu"}, "activation_function must be one of gelu_new, .*, not relu"),
    ({"activation_function": None}, "activation_function must be one of gelu_new, .*, not None"),
    ({"scale_attn_weights": False}, "this model has scale_attn_weights False, which GPT-2 does not have"),
    ({"add_cross_attention": True}, "this model has add_cross_attention True, which GPT-2 does not have"),
    (
        {"quantization_config": {"bits": 4}},
        r"this model has quantization_config {'bits': 4}, which GPT-2 does not have",
    ),
    ({"auto_map": {"AutoModel": "x.y"}}, "this model has auto_map .*, which GPT-2 does not have"),
    ({"pruned_heads": {"0": [1]}}, "this model has pruned_heads"),
    ({"n_head": 3}, r"config.json: n_embd \(16\) must be a multiple of n_head \(3\)"),
    ({"n_embd": "16"}, "config.json: n_embd must be a whole number of at least 1, not '16'"),
    ({"layer_norm_epsilon": 0}, "config.json: layer_norm_epsilon must be a number between 0 and 1, not 0"),
    ({"tie_word_embeddings": None}, "config.json: tie_word_embeddings must be true or false, not None"),
    ({"vocab_size": 200}, "the vocabulary has 280 ids, but config.json has vocab_size 200; they belong to different"),
    ({"n_layer": 1}, "holds 2 layers, but its config.json has n_layer 1"),
    ({"n_layer": 9999}, "holds 2 layers, but its config.json has n_layer 9999"),
    ({"tie_word_embeddings": False}, "lacks 1 of 29 weights of .*; the first is lm_head.weight"),
    ({"n_positions": 17}, r"wpe.weight has the shape \[16, 16\], but should have \[17, 16\]"),
    ({"n_inner": 32}, r"h.0.mlp.c_fc.weight has the shape \[16, 64\], but should have \[16, 32\]"),
]


@pytest.mark.parametrize("values, message", CONFIGS)
def test_unsupported_and_contradictory_configs_are_rejected(folder, values, message):
    change(folder / "config.json", **values)
    with pytest.raises(GPT2Error, match=message) as raised:
        open_model_dir(folder).read()
    assert "\n" not in str(raised.value) and str(folder) in str(raised.value)


@pytest.mark.parametrize(
    "missing, message",
    [
        (["model.safetensors"], r"model lacks model.safetensors or pytorch_model.bin; fetch or copy it again"),
        (
            ["tokenizer.json"],
            r"model has no vocabulary: copy tokenizer.json, or vocab.json and merges.txt of its base model into it",
        ),
    ],
)
def test_missing_files(folder, missing, message):
    for name in missing:
        (folder / name).unlink()
    with pytest.raises(GPT2Error, match=message):
        open_model_dir(folder)


def test_unknown_duplicate_and_integer_weights_are_rejected(folder):
    arrays = random_tensors(json.loads((folder / "config.json").read_text()))
    for name in ("score.weight", "transformer.h.0.crossattention.c_attn.weight", "a\nb", "transformer.h.0.ln_3.bias"):
        huggingface_dirs.write_file(folder / "model.safetensors", {**arrays, name: np.zeros(3, "<f4")})
        shown = name.removeprefix("transformer.").replace("\n", r"\\n")
        with pytest.raises(GPT2Error, match=f"holds 1 weights that a GPT-2 .*; the first is '?{shown}") as raised:
            open_model_dir(folder).read()
        assert "\n" not in str(raised.value)
    twice = arrays | {"wte.weight": arrays["transformer.wte.weight"]}
    huggingface_dirs.write_file(folder / "model.safetensors", twice)
    with pytest.raises(DamagedFileError, match="a weight twice, with and without the prefix transformer"):
        open_model_dir(folder).read()
    integers = {name: array.astype("<i8") for name, array in arrays.items()}
    huggingface_dirs.write_file(folder / "model.safetensors", integers)
    with pytest.raises(GPT2Error, match="wpe.weight is int64, but weights must be one of float64, float32"):
        open_model_dir(folder).read()


def test_pytorch_files_that_hold_something_else_are_rejected(tmp_path):
    directory = huggingface_dirs.write(tmp_path, file="pytorch_model.bin")
    path = directory / "pytorch_model.bin"
    for value, message in (
        (["x"], "it does not hold a dictionary of named weights"),
        ({1: "x"}, "it does not hold a dictionary of named weights"),
        ({"step": 1}, "should hold only weights, but step is not a tensor"),
    ):
        huggingface_dirs.write_zip(path, value, {})
        with pytest.raises(GPT2Error, match=f"pytorch_model.bin .*{message}"):
            open_model_dir(directory).read()


def test_a_git_lfs_pointer_is_rejected(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(
        GPT2Error, match="is only a Git LFS pointer to the weights; fetch the weights with: git lfs pull"
    ):
        open_model_dir(folder).read()


INDEXES = [
    ({"weight_map": None}, "does not map weights to files"),
    ({"weight_map": {"wte.weight": 1}}, "does not map weights to files"),
    (
        {"weight_map": {"wte.weight": "../model-00001-of-00002.safetensors"}},
        "is not the name of a weights file in the same folder",
    ),
    ({"weight_map": {"wte.weight": "/etc/passwd"}}, "/etc/passwd is not the name of a weights file"),
    ({"weight_map": {"wte.weight": "x.bin"}}, "x.bin is not the name of a weights file"),
    ({"weight_map": {"wte.weight": "model.safetensors.index.json"}}, "is not the name of a weights file"),
    ({"weight_map": {"wte.weight": "other.safetensors"}}, "other.safetensors is missing; fetch or copy it"),
    ({"weight_map": {"x": "model-00001-of-00002.safetensors"}}, "x is not in model-00001-of-00002.safetensors"),
]


@pytest.mark.parametrize("values, message", INDEXES)
def test_wrong_indexes_are_rejected(tmp_path, values, message):
    directory = huggingface_dirs.write(tmp_path, shards=2)
    change(directory / "model.safetensors.index.json", **values)
    with pytest.raises(GPT2Error, match=message):
        open_model_dir(directory).read()


def test_a_weight_in_two_shards(tmp_path):
    directory = huggingface_dirs.write(tmp_path, shards=2)
    shutil.copy(directory / "model-00001-of-00002.safetensors", directory / "model-00002-of-00002.safetensors")
    with pytest.raises(DamagedFileError, match="is in two files"):
        open_model_dir(directory).read()


def with_header(header, data=b""):
    """Return a safetensors file with this header: JSON, or its bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


SAFETENSORS = [
    (b"", "does not start as safetensors files do"),
    (b"\xff" * 8, "does not start as safetensors files do"),
    ((1 << 62).to_bytes(8, "little") + b"{}", "does not start as safetensors files do"),
    (with_header(b"[1"), "its header is not valid JSON"),
    (with_header(b"\xff\xff"), "its header is not valid JSON"),
    (with_header(b"[" * 100_000), "its header is not valid JSON"),
    (with_header(b'{"a": 1, "a": 2}'), "a name occurs twice"),
    (with_header([]), "its header is not a JSON object"),
    (with_header({"a": 1}), "its header does not describe a;"),
    (with_header({"a": {"dtype": "F32"}}), "its header does not describe a;"),
    (with_header({"a": entry([2], 0, 8) | {"x": 1}}, b"12345678"), "its header does not describe a;"),
    (
        with_header({"a": entry([1], 0, 1, "F8_E4M3")}, b"1"),
        "a has the type F8_E4M3, which is not supported; convert it to F32",
    ),
    (with_header({"a": entry([-1], 0, 4)}, b"1234"), "a has an impossible shape"),
    (with_header({"a": entry([True], 0, 4)}, b"1234"), "a has an impossible shape"),
    (with_header({"a": entry([1] * 99, 0, 4)}, b"1234"), "a has an impossible shape"),
    (with_header({"a": entry([10**30], 0, 4)}, b"1234"), "a has an impossible shape"),
    (with_header({"a": entry([10**9], 0, 4 * 10**9)}, b"1234"), "bytes, but its header describes 40000000"),
    (with_header({"a": entry([2], 0, 4)}, b"1234"), "a has 4 bytes, but its shape needs 8"),
    (with_header({"a": entry([1], -4, 0)}, b"1234"), "a does not start where the header ends"),
    (with_header({"a": entry([1], 4, 8)}, b"12345678"), "a does not start where the header ends"),
    (with_header({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, b"1234"), "does not start where"),
    (with_header({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, b"1" * 12), "b does not start where a ends"),
    (with_header({"a": entry([1], 0, 4)}, b"12345"), "but its header describes"),
    (with_header({}, b"12345"), "but its header describes"),
]


@pytest.mark.parametrize("content, message", SAFETENSORS)
def test_damaged_safetensors_are_rejected(folder, content, message):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(DamagedFileError, match=message):
        open_model_dir(folder).read()


def test_every_truncated_safetensors_file_is_damaged(tmp_path):
    path = tmp_path / "x.safetensors"
    content = safetensors({"a": np.ones((2, 3), "<f4"), "b": convert(np.ones(3, "f4"), "bfloat16")}, metadata=False)
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(DamagedFileError):
            read_tensors(path)
    path.write_bytes(content)
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in read_tensors(path).items()} == {
        "a": ((2, 3), "float32"),
        "b": ((3,), "bfloat16"),
    }


def read_tensors(path):
    from gpt2.formats.huggingface import safetensors

    return safetensors.read(path)


def test_openais_layout_comes_first(folder, tiny_dir):
    """A folder may have the files of both layouts."""
    for path in tiny_dir.iterdir():
        shutil.copy(path, folder)
    assert open_model_dir(folder).hparams == open_model_dir(tiny_dir).hparams
    assert isinstance(open_model_dir(folder).hparams, HParams)
