"""Exported models, read back: equal bit for bit, or up to the rounding of their type."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import resource
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import tiny
from one_by_one import GREEDY, generate_ids
from variant_dirs import VARIANTS
from variant_dirs import write as write_variant

from gpt2 import encoder as bpe
from gpt2.cli import command
from gpt2.engine.load import load_backend
from gpt2.engine.token_sequence import TokenSequence
from gpt2.errors import GPT2Error, UsageError
from gpt2.export import compare
from gpt2.export.convert import convert
from gpt2.export.options import ExportOptions, cast_values
from gpt2.formats.model_dir import load_vocabulary, open_model_dir
from gpt2.formats.weights import Layout, flatten

ROOT = Path(__file__).parents[2]
SEQUENCES = [TokenSequence([1, 2, 3], GREEDY), TokenSequence([250], GREEDY), TokenSequence([9] * 31, GREEDY)]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return a model's weights by name, with matrices as [inputs, outputs]."""
    arrays = {}
    for name, weight in open_model_dir(path).read().items():
        is_transposed = weight.layout is Layout.OUT_IN and name.endswith("/w")
        arrays[name] = weight.array().T if is_transposed else weight.array()
    return arrays


@pytest.fixture(scope="module")
def source(tiny_dir):
    return open_model_dir(tiny_dir)


@pytest.fixture(scope="module")
def greedy(source):
    return generate_ids(load_backend(source, native=False), SEQUENCES, 40)


@pytest.mark.parametrize("to", ["openai", "gguf", "huggingface"])
@pytest.mark.parametrize("first", ["openai", "gguf", "huggingface"])
def test_round_trips(tmp_path, source, greedy, first, to):
    """Two conversions in a row preserve every bit, the ids and the vocabulary."""
    convert(source, tmp_path / "first", first)
    convert(open_model_dir(tmp_path / "first"), tmp_path / "second", to)
    exported = open_model_dir(tmp_path / "second")
    assert exported.hparams == source.hparams
    assert load_vocabulary(exported).fingerprint == load_vocabulary(source).fingerprint
    expected = read_arrays(source.path)
    for name, value in read_arrays(exported.path).items():
        np.testing.assert_array_equal(value, expected[name])
    assert generate_ids(load_backend(exported, native=False), SEQUENCES, 40) == greedy
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "Q8_0", "f16"])
def test_values_are_rounded_to_the_nearest(tmp_path, source, dtype):
    convert(source, tmp_path / "model.gguf", "gguf", ExportOptions(dtype))
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    expected = {"float16": "F16", "f16": "F16", "bfloat16": "BF16", "Q8_0": "Q8_0"}[dtype]
    assert types["blk.0.ffn_up.weight"] == types["token_embd.weight"] == expected
    unrounded = [name for name in types if "norm" in name or "position" in name or "bias" in name]
    assert {types[name] for name in unrounded} == {"F32"}
    original = read_arrays(source.path)
    tolerance = compare.rounding_tolerance({"Q8_0": "q8_0", "f16": "float16"}.get(dtype, dtype))
    for name, value in read_arrays(tmp_path / "model.gguf").items():
        is_matrix = name.endswith(("/w", "wte"))
        assert np.array_equal(value, original[name]) != is_matrix
        rows, expected_rows = (value.T, original[name].T) if name.endswith("/w") else (value, original[name])
        assert not is_matrix or (np.abs(rows - expected_rows) <= tolerance(name, expected_rows)).all()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("to", ["openai", "gguf", "huggingface"])
def test_variants_are_written_or_rejected_by_name(tmp_path, variant, to):
    model = write_variant(tmp_path / "source", **VARIANTS[variant])
    field = next(iter(VARIANTS[variant]))
    rejected = {"openai": VARIANTS, "gguf": ("gelu", "scaled", "narrow"), "huggingface": ("narrow",)}[to]
    if variant in rejected:
        with pytest.raises(GPT2Error, match=field):
            convert(model, tmp_path / "target", to)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]
    if variant not in rejected or to == "openai":
        convert(model, tmp_path / "target", to, ExportOptions(variant=True))
        exported = open_model_dir(tmp_path / "target")
        assert exported.hparams == model.hparams
        expected = read_arrays(model.path)
        for name, value in read_arrays(exported.path).items():
            np.testing.assert_array_equal(value, expected[name])


def test_rows_that_do_not_fit_q8_0_blocks_become_float16(tmp_path):
    model = write_variant(tmp_path / "source", n_embd=20, n_inner=64)
    convert(model, tmp_path / "model.gguf", "gguf", ExportOptions("q8_0"))
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert types["blk.0.ffn_up.weight"] == "F16" and types["blk.0.ffn_down.weight"] == "Q8_0"


@pytest.mark.parametrize(
    "to, options, message",
    [
        ("ggml", ExportOptions(), "to must be one of openai, huggingface, gguf, saved_model, not 'ggml'"),
        ("openai", ExportOptions("float16"), "dtype must be one of float32 for openai, not 'float16'"),
        ("huggingface", ExportOptions("q8_0"), "dtype must be one of float32, float16, bfloat16 for huggingface"),
        ("gguf", ExportOptions("q4_0"), "dtype must be one of float32, float16, bfloat16, q8_0 for gguf, not 'q4_0'"),
        ("saved_model", ExportOptions("float16"), "dtype must be one of float32 for saved_model"),
    ],
)
def test_unsupported_options(tmp_path, source, to, options, message):
    with pytest.raises(UsageError, match=message):
        convert(source, tmp_path / "target", to, options)
    assert not list(tmp_path.iterdir())


def test_existing_files_are_not_overwritten(tmp_path, source):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    for to in ("openai", "saved_model"):
        with pytest.raises(GPT2Error, match="full already exists; give another name or remove it"):
            convert(source, tmp_path / "full", to)
    with pytest.raises(
        GPT2Error, match=r"full is a folder; give the name of a file in this folder, such as .*model\.gguf"
    ):
        convert(source, tmp_path / "full", "gguf")
    with pytest.raises(GPT2Error, match="mine already exists"):
        convert(source, tmp_path / "full/mine", "gguf")
    with pytest.raises(GPT2Error, match="the folder .*mine cannot be created: "):
        convert(source, tmp_path / "full/mine/model", "openai")
    with pytest.raises(GPT2Error, match="cannot be written: File name too long"):
        convert(source, tmp_path / ("x" * 5000), "gguf")
    assert (tmp_path / "full/mine").read_text() == "x"
    (tmp_path / "empty").mkdir()
    convert(source, tmp_path / "empty", "openai")
    assert (tmp_path / "empty" / "hparams.json").is_file()


def test_damage_found_during_the_export_leaves_no_files(tmp_path, source):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in source.path.iterdir():
        (damaged / path.name).write_bytes(path.read_bytes())
    data = damaged / "model.ckpt.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[5000] ^= 1
    data.write_bytes(content)
    for to in ("openai", "gguf", "huggingface", "saved_model"):
        with pytest.raises(GPT2Error, match="the checksum of .* does not match"):
            convert(open_model_dir(damaged), tmp_path / "target", to)
        assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


@pytest.mark.parametrize("to", ["gguf", "huggingface", "openai", "saved_model"])
def test_full_disks(tmp_path, source, to):
    rng = random.Random(1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for _ in range(2 if to == "saved_model" else 12):
        with pytest.raises(GPT2Error, match="File too large") as raised:
            try:
                resource.setrlimit(resource.RLIMIT_FSIZE, (rng.randrange(140_000), limits[1]))
                convert(source, tmp_path / "new" / "target", to)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "\n" not in str(raised.value) and not list(tmp_path.iterdir())


def test_a_wrong_export_is_not_kept(tmp_path, source, monkeypatch):
    from gpt2.export import gguf as gguf_format

    monkeypatch.setattr(gguf_format, "_encode_values", lambda name, values, dtype: values + np.float32(1e-6))
    with pytest.raises(GPT2Error, match="the exported model differs from the original in model/"):
        convert(source, tmp_path / "model.gguf", "gguf")
    assert not list(tmp_path.iterdir())


def test_a_vocabulary_without_an_end_of_text_token(tmp_path, source):
    ids = dict(load_vocabulary(source).ids_of)
    del ids[bpe.END_OF_TEXT]
    vocabulary = bpe.Encoder(ids, load_vocabulary(source).merges())
    with pytest.raises(GPT2Error, match=r"the vocabulary has no <\|endoftext\|> token, which GGUF needs"):
        from gpt2.export import gguf as gguf_format

        gguf_format.check(source.hparams, vocabulary, ExportOptions())


def test_cast_values():
    values = np.float32([1, -1.5, 3.1415927, 1 + 2**-8, 1 + 3 * 2**-8, 0, 1e-40])
    bits = cast_values("x", values, "bfloat16").astype(np.uint32) << 16
    np.testing.assert_array_equal(bits.view(np.float32), np.float32([1, -1.5, 3.140625, 1, 1 + 2**-6, 0, 2**-133]))
    np.testing.assert_array_equal(cast_values("x", values, "float16"), values.astype(np.float16))
    with pytest.raises(GPT2Error, match="x holds 70000, but the largest float16 is 65504; choose another dtype"):
        cast_values("x", np.float32([70000]), "float16")


def test_shards(tmp_path, source):
    from gpt2.export import huggingface

    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    vocabulary = load_vocabulary(source)
    huggingface.write(source, vocabulary, tmp_path / "whole")
    huggingface.write(source, vocabulary, tmp_path / "parts", ExportOptions(shard_size=30_000))
    index = json.loads((tmp_path / "parts/model.safetensors.index.json").read_text())
    whole = read_safetensors(tmp_path / "whole/model.safetensors")
    assert set(index["weight_map"]) == set(whole)
    assert index["metadata"]["total_size"] == 4 * source.hparams.n_params
    parts = {}
    for file in sorted(set(index["weight_map"].values())):
        tensors = read_safetensors(tmp_path / "parts" / file)
        assert {index["weight_map"][name] for name in tensors} == {file}
        assert len(tensors) == 1 or sum(array.nbytes for array in tensors.values()) <= 30_000
        parts.update(tensors)
    assert file == "model-{0:05d}-of-{0:05d}.safetensors".format(len(set(index["weight_map"].values())))
    for name, value in whole.items():
        np.testing.assert_array_equal(parts[name], value)
    assert whole["transformer.h.1.attn.c_attn.weight"].shape == (32, 96)
    np.testing.assert_array_equal(
        whole["transformer.h.1.mlp.c_fc.weight"], tiny.read_model(source.path)["h1"]["mlp"]["c_fc"]["w"]
    )


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Return the float32 tensors of a file, parsed as the format describes."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    assert header.pop("__metadata__") == {"format": "pt"} and size % 8 == 0
    body = data[8 + size :]
    tensors = {}
    previous_end = 0
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        assert start == previous_end and entry["dtype"] == "F32"
        tensors[name] = np.frombuffer(body[start:end], "<f4").reshape(entry["shape"])
        previous_end = end
    assert previous_end == len(body)
    return tensors


def test_the_tokenizer_gives_the_same_ids(tmp_path, source):
    from tokenizers import Tokenizer

    from gpt2.export import huggingface

    vocabulary = load_vocabulary(source)
    huggingface.write(source, vocabulary, tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert vocabulary.encode("<|endoftext|>") == [27, 91, 68, 77, 67, 78, 69, 83, 68, 87, 83, 91, 29]
    for text in (tiny.TEXT, " it's 1  2\n\n x\t", "größer 東京 🙂", "a<|endoftext|>b"):
        assert tokenizer.encode(text).ids == vocabulary.encode(text, special=True)
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text
    assert (tmp_path / "merges.txt").read_bytes() == (source.path / "vocab.bpe").read_bytes()
    assert json.loads((tmp_path / "vocab.json").read_text()) == vocabulary.ids_of


@pytest.fixture(scope="module")
def convert_model():
    spec = importlib.util.spec_from_file_location("convert", ROOT / "scripts/convert.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.convert


def test_the_command(tmp_path, tiny_dir, convert_model, capsys):
    target = tmp_path / "model.gguf"
    argv = [str(tiny_dir), str(target), "--to", "gguf", "--dtype", "q8_0"]
    assert command.main(convert_model, argv) == 0
    out, err = capsys.readouterr()
    assert out == "" and "Converting: 100%" in err
    assert err.splitlines()[-1].startswith(f"{target}: ")
    assert err.endswith(f" weights, the same as in {tiny_dir}, rounded to q8_0\n")
    assert command.main(convert_model, argv) == 1
    assert capsys.readouterr().err == f"error: {target} already exists; give another name or remove it\n"
    for flags, status, message in (
        (["--to", "onnx"], 2, "to must be one of openai, huggingface, gguf, saved_model, not 'onnx'"),
        (["--to", "gguf", "--shard_size", "x"], 2, "shard_size must be a size such as 500MB, not 'x'"),
        (["--to", "gguf", "--dtype", "x"], 2, "dtype must be one of"),
    ):
        assert command.main(convert_model, [str(tiny_dir), str(tmp_path / "new"), *flags]) == status
        assert message in capsys.readouterr().err
    assert command.main(convert_model, [str(tmp_path / "none"), str(tmp_path / "new"), "--to", "gguf"]) == 1
    assert command.main(convert_model, ["--help"]) == 0
    assert "--shard_size" in capsys.readouterr().out


def test_the_command_without_the_gguf_package(tmp_path, tiny_dir):
    code = "import sys; sys.modules['gguf'] = None; sys.argv = sys.argv[1:]; import runpy; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    argv = [str(ROOT / "scripts/convert.py"), str(tiny_dir), str(tmp_path / "m.gguf"), "--to", "gguf"]
    result = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, env=os.environ)
    assert result.returncode == 1
    assert result.stderr == "error: the package gguf is missing; type: pip install -r requirements.txt\n"


def test_progress_counts_all_weights(source):
    reports = []
    for weight in compare.with_progress(source, lambda done, total: reports.append((done, total))).values():
        weight.array()
    total = 4 * source.hparams.n_params
    assert reports[-1] == (total, total) and len(dict(flatten(tiny.read_model(source.path)))) <= len(reports)
