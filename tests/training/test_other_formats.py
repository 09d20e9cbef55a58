"""Fine-tuning of models in Hugging Face's layout, through the command and through gpt-2-simple's functions."""

import json
from pathlib import Path

import huggingface_dirs
import numpy as np
import pytest
from runs import losses, weights

import gpt_2_simple
from gpt2 import generate
from gpt2.formats.model_dir import load_vocabulary, open_model_dir
from gpt2.request import Request

RUN = Path("checkpoint/run1")


@pytest.fixture
def directory(working_dir):
    """Write a model that uses every optional feature, with padded rows and its own end-of-text token."""
    changes = huggingface_dirs.VARIANTS["all"] | {"vocab_size": 320, "eos_token_id": 280}
    folder = huggingface_dirs.write(working_dir / "model", changes)
    (folder / "added_tokens.json").write_text(json.dumps({"</s>": 280}))
    return folder


@pytest.mark.parametrize("file, kind", [("model.safetensors", "bfloat16"), ("pytorch_model.bin", "float32")])
def test_run_starts_from_the_models_weights_and_is_a_model_directory(run, working_dir, file, kind):
    directory = huggingface_dirs.write(working_dir / "model", huggingface_dirs.VARIANTS["all"], file=file, dtype=kind)
    status, _, errors = run(model_name=directory, stop_after=1, learning_rate=1e-9)
    assert status == 0, errors
    for name, weight in open_model_dir(directory).read().items():
        np.testing.assert_allclose(weights()[name].reshape(weight.shape), weight.array(), rtol=0, atol=1e-7)
    assert open_model_dir(RUN).hparams == open_model_dir(directory).hparams
    assert {path.name for path in RUN.iterdir()} >= {"hparams.json", "encoder.json", "vocab.bpe", "checkpoint"}


def test_run_folder_keeps_the_variants_settings_and_vocabulary(run, directory):
    """The run can be resumed without the model that it started from."""
    assert run(model_name=directory, stop_after=2)[0] == 0
    hparams = json.loads((RUN / "hparams.json").read_text())
    assert hparams == {
        "n_vocab": 281,
        "n_ctx": 16,
        "n_embd": 16,
        "n_head": 4,
        "n_layer": 2,
        "n_inner": 40,
        "layer_norm_epsilon": 1e-3,
        "activation_function": "gelu",
        "tie_word_embeddings": False,
        "scale_attn_by_inverse_layer_idx": True,
    }
    vocabulary = load_vocabulary(open_model_dir(RUN))
    assert (vocabulary.end_of_text, vocabulary.token_text(280)) == (280, "</s>")
    assert run(model_name=directory, stop_after=4)[0] == 0
    assert losses()[4] < losses()[1]
    assert next(generate.generate(generate.load(str(RUN)), [Request("the", length=8, seed=1)]))


def test_through_gpt_2_simple(directory, capsys):
    sess = gpt_2_simple.start_tf_sess()
    gpt_2_simple.load_gpt2(sess, model_name=str(directory))
    (text,) = gpt_2_simple.generate(sess, prefix="the cat", length=5, seed=1, return_as_list=True)
    assert text.startswith("the cat")
    gpt_2_simple.finetune(sess, "text.txt", steps=1, model_name=str(directory), sample_every=0, accumulate_gradients=1)
    assert open_model_dir(RUN).hparams == open_model_dir(directory).hparams
    assert gpt_2_simple.generate(sess, length=5, seed=1, return_as_list=True)
    capsys.readouterr()
