"""Checkpoints in OpenAI's layout, exchanged with TensorFlow 1 in both directions."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tiny

from gpt2.errors import GPT2Error
from gpt2.formats.openai import checkpoint
from gpt2.formats.openai.checkpoint_files import current_checkpoint
from gpt2.formats.weights import nest
from gpt2.hparams import HParams
from gpt2.training.checkpoints import tensorflow_checkpoint

DATA = "model.ckpt.data-00000-of-00001"


@pytest.fixture
def copy(tmp_path, tiny_dir):
    return shutil.copytree(tiny_dir, tmp_path / "copy")


def test_round_trip(tmp_path, tiny_dir, copy):
    weights = tiny.read_model(tiny_dir)
    tensorflow_checkpoint.save(copy, weights, "model-7")
    reread = dict(tensorflow_checkpoint.to_file_shapes(tiny.read_model(copy)))
    for name, tensor in tensorflow_checkpoint.to_file_shapes(weights):
        np.testing.assert_array_equal(reread[name], tensor)
    state = (copy / "checkpoint").read_text()
    assert state == 'model_checkpoint_path: "model-7"\nall_model_checkpoint_paths: "model-7"\n'
    assert not list(copy.glob(".saving-*"))


def test_names_and_shapes_match_the_original(tiny_model):
    hparams = tiny_model.hparams
    shapes = {
        name: tuple(tensor.shape) for name, tensor in tensorflow_checkpoint.to_file_shapes(tiny_model.backend.weights)
    }
    assert shapes == checkpoint.variable_shapes(hparams)
    assert shapes["model/h1/attn/c_attn/w"] == (1, 32, 96)
    assert shapes["model/h0/mlp/c_proj/w"] == (1, 128, 32)
    assert shapes["model/ln_f/g"] == (32,)


def test_the_saver_of_tensorflow_1_reads_our_checkpoints(tiny_dir, tiny_model):
    """Uses a graph and a session with OpenAI's variable names, as their scripts do."""
    v1 = tf.compat.v1
    expected = dict(tensorflow_checkpoint.to_file_shapes(tiny_model.backend.weights))
    with v1.Graph().as_default(), v1.Session() as session:
        shapes = checkpoint.variable_shapes(tiny_model.hparams)
        variables = {name: v1.get_variable(name, shape) for name, shape in shapes.items()}
        v1.train.Saver().restore(session, tf.train.latest_checkpoint(str(tiny_dir)))
        for name, value in session.run(variables).items():
            np.testing.assert_array_equal(value, expected[name])


def test_checkpoints_of_the_saver_of_tensorflow_1_can_be_read(copy, tiny_model):
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        for name, shape in checkpoint.variable_shapes(tiny_model.hparams).items():
            v1.get_variable(name, shape, initializer=v1.constant_initializer(len(name)))
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(copy / "model"), global_step=12)
    weights = dict(tensorflow_checkpoint.to_file_shapes(tiny.read_model(copy)))
    assert current_checkpoint(copy).name == "model-12"
    assert all(np.all(tensor == len(name)) for name, tensor in weights.items())


def test_flipped_bits_are_detected(copy):
    data = bytearray((copy / DATA).read_bytes())
    data[len(data) // 2] ^= 0xFF
    (copy / DATA).write_bytes(data)
    with pytest.raises(GPT2Error, match="is damaged: .*; delete it and fetch it again"):
        tiny.read_model(copy)


def test_a_damaged_index_is_detected(copy):
    index = bytearray((copy / "model.ckpt.index").read_bytes())
    index[: len(index) // 2] = b"\xff" * (len(index) // 2)
    (copy / "model.ckpt.index").write_bytes(index)
    with pytest.raises(GPT2Error, match="model.ckpt.index is damaged: the checksum of the block at 0 does not match"):
        tiny.read_model(copy)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"n_layer": 1}, "holds 2 layers, but its hparams.json has n_layer 1"),
        ({"n_ctx": 16}, r"model/wpe has the shape \[32, 32\], but HParams.* needs \[16, 32\]"),
    ],
)
def test_hparams_of_another_model_are_detected(copy, change, message):
    hparams = json.loads((copy / "hparams.json").read_text()) | change
    (copy / "hparams.json").write_text(json.dumps(hparams))
    with pytest.raises(GPT2Error, match=message):
        tiny.read_model(copy)


def test_a_missing_variable_is_named(tmp_path, tiny_model):
    weights = {name: value for name, value in tiny_model.backend.weights.items() if name != "ln_f"}
    tensorflow_checkpoint.save(tmp_path, weights)
    with pytest.raises(GPT2Error, match="lacks 2 of 28 variables of .*; the first is model/ln_f/g"):
        tiny.read(tmp_path / "model.ckpt", tiny_model.hparams)


def test_other_number_types_are_rejected(tmp_path):
    hparams = HParams(n_vocab=3, n_ctx=2, n_embd=4, n_head=2, n_layer=1)
    values = {name: tf.zeros(shape, tf.float16) for name, shape in hparams.weight_shapes().items()}
    tensorflow_checkpoint.save(tmp_path, nest(values.items()))
    with pytest.raises(GPT2Error, match="model/wpe is float16, but OpenAI's layout holds float32"):
        tiny.read(tmp_path / "model.ckpt", hparams)


def test_a_failed_save_leaves_the_previous_checkpoint_in_use(copy, tiny_model, monkeypatch):
    before = dict(tensorflow_checkpoint.to_file_shapes(tiny.read_model(copy)))

    def disk_full(*args, **kwargs):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.raw_ops, "SaveV2", disk_full)
    with pytest.raises(GPT2Error, match="could not be written to .*: No space left on device"):
        tensorflow_checkpoint.save(copy, tiny_model.backend.weights, "model-9")
    assert not list(copy.glob("*model-9*")) and not list(copy.glob(".saving-*"))
    assert all(
        np.all(tensor == before[name]) for name, tensor in tensorflow_checkpoint.to_file_shapes(tiny.read_model(copy))
    )


def test_a_folder_that_cannot_be_created_is_named(tmp_path, tiny_model):
    (tmp_path / "file").write_text("")
    with pytest.raises(GPT2Error, match="the checkpoint could not be written to .*file"):
        tensorflow_checkpoint.save(tmp_path / "file" / "run", tiny_model.backend.weights)
