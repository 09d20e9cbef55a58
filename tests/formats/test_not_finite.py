"""Weights with NaN or infinity: every use of the model names the weight and the file in one line."""

import re
import shutil
from pathlib import Path

import gguf
import gguf_layout
import huggingface_dirs
import numpy as np
import pytest
import tiny
import tiny_lm
import variants
from hypothesis import given
from hypothesis import strategies as st

import interactive_conditional_samples as interactive
from gpt2.cli import command, diagnostics
from gpt2.engine import load
from gpt2.engine.backend import Segment
from gpt2.engine.native import backend as native_backend
from gpt2.engine.native import cache_folder, packed_store
from gpt2.engine.reference import random_weights
from gpt2.errors import GPT2Error, UsageError
from gpt2.export.convert import convert
from gpt2.export.options import ExportOptions
from gpt2.formats.model_dir import load_vocabulary, open_model_dir
from gpt2.formats.openai import checkpoint
from gpt2.formats.weights import flatten, nest, wrap_arrays
from gpt2.request import BFLOAT16, PRECISIONS
from gpt2.training.checkpoints import tensorflow_checkpoint
from scripts import convert as convert_command
from scripts import score

NAN, INFINITY, LARGEST = np.nan, np.inf, np.finfo(np.float32).max
ADVICE = "; use an earlier checkpoint, or fetch or convert the model again"
NAMES = [  # one weight of each kind: embeddings, norms, matrices, biases
    *("model/wte", "model/wpe", "model/ln_f/g", "model/h0/ln_1/b", "model/h1/ln_2/g"),
    *("model/h0/attn/c_attn/w", "model/h1/attn/c_proj/b", "model/h1/mlp/c_fc/w", "model/h0/mlp/c_proj/b"),
]


def spoil(arrays, name, value):
    """Put a value at the end of an array, where a matrix is not packed in whole registers."""
    arrays[name] = np.array(arrays[name])
    arrays[name].reshape(-1)[-1] = value


def write_openai(folder, name, value, tiny_dir):
    """Copy the tiny model with one changed number, and return its path and the weight's name in it."""
    shutil.copytree(tiny_dir, folder)
    arrays = dict(flatten(tiny.read_model(tiny_dir)))
    spoil(arrays, name, value)
    tensorflow_checkpoint.save(folder, nest(arrays.items()))
    return folder, name


def write_huggingface(folder, name, value, **options):
    file_name = huggingface_dirs.tensor_name(name)
    prefix = options.get("prefix", "transformer.")
    random_tensors = huggingface_dirs.random_tensors

    def spoiled_tensors(*args, **changes):
        arrays = random_tensors(*args, **changes)
        spoil(arrays, prefix + file_name, value)
        return arrays

    with pytest.MonkeyPatch.context() as patch, np.errstate(over="ignore"):
        patch.setattr(huggingface_dirs, "random_tensors", spoiled_tensors)
        return huggingface_dirs.write(folder, **options), prefix + file_name


def write_gguf(folder, name, value, tiny_dir):
    folder.mkdir()
    model = open_model_dir(tiny_dir)
    arrays = dict(flatten(tiny.read_model(tiny_dir)))
    spoil(arrays, name, value)
    path = gguf_layout.write(folder / "model.gguf", arrays, load_vocabulary(model), model.hparams)
    return path, gguf_layout_name(name)


def gguf_layout_name(name):
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, 2)
    return names.get_name(gguf_layout.transformers_name(name), try_suffixes=(".weight", ".bias"))


FORMATS = {
    "openai": write_openai,
    "gguf": write_gguf,
    "safetensors": lambda folder, name, value, _: write_huggingface(folder, name, value),
    "no prefix": lambda folder, name, value, _: write_huggingface(folder, name, value, prefix=""),
    "float16": lambda folder, name, value, _: write_huggingface(folder, name, value, dtype="float16"),
    "bfloat16": lambda folder, name, value, _: write_huggingface(folder, name, value, dtype="bfloat16"),
    "float64": lambda folder, name, value, _: write_huggingface(folder, name, value, dtype="float64"),
    "shards": lambda folder, name, value, _: write_huggingface(folder, name, value, shards=3),
    "torch": lambda folder, name, value, _: write_huggingface(folder, name, value, file="pytorch_model.bin"),
    "older torch": lambda folder, name, value, _: write_huggingface(
        folder, name, value, file="pytorch_model.bin", legacy=True
    ),
}


def check_message(message, path, file_name):
    """Check that an error is one line that names the weight and its file, which exists."""
    assert "\n" not in message and f" is damaged: {file_name} holds " in message and message.endswith(ADVICE)
    file = message.split(" is damaged: ")[0]
    assert file.startswith(str(path)) and Path(file).is_file()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_names_the_weight(native, tiny_dir, tmp_path, kind, name):
    for value, found in ((NAN, "NaN"), (-NAN, "NaN"), (INFINITY, "infinity"), (-INFINITY, "infinity")):
        path, file_name = FORMATS[kind](tmp_path / str(value), name, value, tiny_dir)
        with pytest.raises(GPT2Error, match=f"holds {found}") as error:
            load.load_backend(open_model_dir(path))
        check_message(str(error.value), path, file_name)
        shutil.rmtree(tmp_path / str(value))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_transformer_lm_names_the_weight(native, sp_model, tmp_path, name, legacy):
    path = tiny_lm.write_model(tmp_path / "model", sp_model)
    arrays = dict(flatten(random_weights(tiny_lm.HPARAMS, seed=1)))
    spoil(arrays, name, NAN)
    tiny_lm.write_weights(path / "model.pt", tiny_lm.to_state_dict(nest(arrays.items())), legacy)
    with pytest.raises(GPT2Error) as error:
        load.load_backend(open_model_dir(path))
    check_message(str(error.value), path, tiny_lm.directory.state_dict_key(name))


@pytest.mark.parametrize("value", [1e39, -1e300, 3.5e38])
def test_a_float64_that_float32_cannot_hold(native, tmp_path, value):
    path, file_name = FORMATS["float64"](tmp_path / "model", "model/h0/mlp/c_fc/w", value, None)
    with pytest.raises(GPT2Error, match=r"holds infinity, or a number too large for float32") as error:
        load.load_backend(open_model_dir(path))
    check_message(str(error.value), path, file_name)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q5_1", "F16"])
@pytest.mark.parametrize("scale", [0x7E00, 0x7C00, 0xFC00])  # NaN, infinity and -infinity in float16
def test_scales_of_quantized_blocks(native, tiny_dir, tmp_path, kind, scale):
    model = open_model_dir(tiny_dir)
    arrays = dict(flatten(tiny.read_model(tiny_dir)))
    path = gguf_layout.write(tmp_path / "model.gguf", arrays, load_vocabulary(model), model.hparams, kind=kind)
    (tensor,) = [tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == "blk.1.ffn_up.weight"]
    start = int(tensor.data_offset)
    content = bytearray(path.read_bytes())
    content[start : start + 2] = scale.to_bytes(2, "little")
    path.write_bytes(content)
    with pytest.raises(GPT2Error) as error:
        load.load_backend(open_model_dir(path))
    check_message(str(error.value), path, tensor.name)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("with_native", [True, False])
@pytest.mark.parametrize("name", ["model/wte", "model/h1/attn/c_attn/w", "model/ln_f/b"])
@pytest.mark.parametrize("kind", ["openai", "gguf"])
def test_every_backend_and_precision(native, tiny_dir, tmp_path, kind, name, with_native, precision):
    for value in (NAN, INFINITY):
        path, file_name = FORMATS[kind](tmp_path / str(value), name, value, tiny_dir)
        with pytest.raises(GPT2Error) as error:
            load.load_backend(open_model_dir(path), precision, native=with_native)
        check_message(str(error.value), path, file_name)


@given(data=st.data(), precision=st.sampled_from(PRECISIONS), as_nan=st.booleans())
def test_any_number_of_any_weight(native, data, precision, as_nan):
    """Weights of odd sizes, so that parts of registers, panels and words are packed as well."""
    hparams = data.draw(st.sampled_from(variants.VARIANTS))
    arrays = dict(flatten(random_weights(hparams, seed=1)))
    name = data.draw(st.sampled_from(sorted(arrays)))
    index = data.draw(st.integers(0, arrays[name].size - 1))
    arrays[name] = np.array(arrays[name])
    arrays[name].reshape(-1)[index] = NAN if as_nan else data.draw(st.sampled_from([INFINITY, -INFINITY]))
    weights = wrap_arrays(nest(arrays.items()), checkpoint.layout)
    with pytest.raises(GPT2Error, match=f"^{name} holds {'NaN' if as_nan else 'infinity'}"):
        native_backend.NativeBackend(native, weights, hparams, precision)


@pytest.mark.parametrize("value", [LARGEST, -LARGEST, 3.3962e38, 3.4e38])
@pytest.mark.parametrize("with_native", [True, False])
def test_numbers_that_only_bfloat16_cannot_hold(native, tiny_dir, tmp_path, value, with_native):
    path, name = write_openai(tmp_path / "model", "model/h0/attn/c_attn/w", value, tiny_dir)
    with pytest.raises(GPT2Error) as error:
        load.load_backend(open_model_dir(path), BFLOAT16, native=with_native)
    assert re.fullmatch(
        rf"{path}.*: {name} holds 3\.\d+e\+38, but the largest bfloat16 is 3\.38953e\+38; choose the precision float32"
        " or int8",
        str(error.value),
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_largest_numbers_that_fit_are_accepted(native, tiny_dir, tmp_path, precision):
    path, _ = write_openai(tmp_path / "model", "model/h0/attn/c_attn/w", 3.3895e38, tiny_dir)
    for with_native in (True, False):
        load.load_backend(open_model_dir(path), precision, native=with_native)


@pytest.mark.parametrize("with_native", [True, False])
@pytest.mark.parametrize("value", [LARGEST, 1e38, -1e36])
def test_finite_weights_that_are_too_large(native, tiny_dir, tmp_path, value, with_native):
    """The computation overflows, which is an error and not a text of the first id."""
    shutil.copytree(tiny_dir, tmp_path / "model")
    arrays = dict(flatten(tiny.read_model(tiny_dir)))
    arrays["model/wte"] = np.full_like(arrays["model/wte"], value)
    arrays["model/ln_f/b"] = np.full_like(arrays["model/ln_f/b"], 1e6)
    tensorflow_checkpoint.save(tmp_path / "model", nest(arrays.items()))
    backend = load.load_backend(open_model_dir(tmp_path / "model"), native=with_native)
    pool = backend.new_pool()
    with pytest.raises(GPT2Error, match=rf"the model's logits are NaN or infinite, .* too large{ADVICE}"):
        backend.extend(pool, [Segment([pool.allocate()], 0, [1, 2, 3])])


def test_stored_weights_of_the_older_format_are_packed_again(native, tiny_dir, tmp_path, monkeypatch):
    """Their version did not check the numbers."""
    monkeypatch.setenv(cache_folder.FOLDER_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(packed_store, "MIN_BYTES", 0)
    load.load_backend(open_model_dir(tiny_dir))
    (stored,) = (tmp_path / "cache").glob("*.packed")
    content = stored.read_bytes()
    stored.write_bytes(content.replace(packed_store.FORMAT, b"gpt2 packed 1\n", 1))
    for _ in range(2):
        load.load_backend(open_model_dir(tiny_dir))
        assert stored.read_bytes() == content
    path, name = write_openai(tmp_path / "model", "model/wte", NAN, tiny_dir)
    for _ in range(2):  # nothing of a rejected model is stored
        with pytest.raises(GPT2Error, match=f"{name} holds NaN"):
            load.load_backend(open_model_dir(path))
    assert list((tmp_path / "cache").glob("*.packed")) == [stored]


@pytest.mark.parametrize("name", ["model/wte", "model/h0/ln_1/g", "model/h1/mlp/c_proj/w"])
def test_commands_fail_with_one_line(native, tiny_dir, tmp_path, capsys, name):
    path, _ = write_openai(tmp_path / "model", name, NAN, tiny_dir)
    flags = ["--model_name", str(path)]
    for run, arguments in (
        (interactive.interact_model, ["--prompt", "the", "--length", "5"]),
        (score.score_text, ["--text", "the cat"]),
        (convert_command.convert, ["openai"]),
    ):
        if run is convert_command.convert:
            flags, arguments = [str(path), str(tmp_path / "new"), "--to"], ["gguf"]
        assert command.main(run, [*flags, *arguments]) == 1
        out, err = capsys.readouterr()
        (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
        assert out == "" and err.endswith(line + "\n")
        check_message(line.removeprefix("error: "), path, name)
    with pytest.raises(GPT2Error, match=f"{name} holds NaN"):
        diagnostics.largest_error(open_model_dir(path))


@pytest.mark.parametrize("to", ["openai", "huggingface", "gguf", "saved_model"])
def test_convert_blames_the_source(native, tiny_dir, tmp_path, to):
    for i, (name, value) in enumerate([("model/wte", NAN), ("model/h0/ln_1/b", INFINITY), ("model/wpe", -INFINITY)]):
        path, _ = write_openai(tmp_path / f"model{i}", name, value, tiny_dir)
        with pytest.raises(GPT2Error) as error:
            convert(open_model_dir(path), tmp_path / f"new{i}", to)
        check_message(str(error.value), path, name)
        assert not list(tmp_path.glob("*new*"))


@pytest.mark.parametrize(
    "to, dtype, value, largest",
    [
        ("huggingface", "float16", 65520, "65504"),
        ("huggingface", "bfloat16", 3.4e38, "3.38953e+38"),
        ("gguf", "float16", -1e5, "65504"),
        ("gguf", "bfloat16", -LARGEST, "3.38953e+38"),
        ("gguf", "q8_0", 8.4e6, "8.31901e+06"),
        ("gguf", "q8_0", -1e30, "8.31901e+06"),
    ],
)
def test_convert_names_numbers_that_the_new_type_cannot_hold(native, tiny_dir, tmp_path, to, dtype, value, largest):
    path, name = write_openai(tmp_path / "model", "model/h0/mlp/c_fc/w", value, tiny_dir)
    with pytest.raises(GPT2Error, match=re.escape(f"but the largest {dtype} is {largest}; choose another")) as error:
        convert(open_model_dir(path), tmp_path / "new", to, ExportOptions(dtype))
    assert not isinstance(error.value, UsageError) and str(error.value).startswith(f"{name} holds ")
    assert not list(tmp_path.glob("*new*"))
    convert(open_model_dir(path), tmp_path / "new", to)  # float32 holds all of them
