"""Every cell of the README's table of formats and commands: a tiny model of each format in each command."""

import importlib.util
from pathlib import Path

import huggingface_dirs
import numpy as np
import pytest
import tiny
import tiny_lm

import generate_unconditional_samples
import gpt_2_simple
import interactive_conditional_samples
from gpt2.cli import command, serving
from gpt2.export.convert import convert
from gpt2.formats.model_dir import open_model_dir

ROOT = Path(__file__).resolve().parents[2]
FORMATS = ("openai", "huggingface", "transformer_lm", "gguf")
TEXT = "the cat sat on the mat\n" * 40


def load_function(path, name):
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The paths of one model per format, by the format's name."""
    folder = tmp_path_factory.mktemp("formats")
    openai_dir = tiny.write_model(folder / "openai")
    convert(open_model_dir(openai_dir), folder / "model.gguf", "gguf")
    vocabulary = tiny_lm.write_vocabulary(folder / "vocabulary")
    return {
        "openai": openai_dir,
        "huggingface": huggingface_dirs.write(folder / "huggingface", huggingface_dirs.VARIANTS["all"]),
        "transformer_lm": tiny_lm.write_model(folder / "transformer_lm", vocabulary),
        "gguf": folder / "model.gguf",
    }


@pytest.fixture(params=FORMATS)
def model(request, models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)
    return str(models[request.param])


def run(capsys, function, *line, **more):
    status = command.main(function, [*map(str, line)], **more)
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return captured.out


def test_both_sampling_commands(model, capsys):
    function = generate_unconditional_samples.sample_model
    out = run(capsys, function, "--model_name", model, "--nsamples", 2, "--length", 5)
    assert out.count(" SAMPLE ") == 2
    function = interactive_conditional_samples.interact_model
    lines = ["--model_name", model, "--prompt", "the cat", "--length", "5", "--temperature", "0"]
    assert run(capsys, function, *lines) == run(capsys, function, *lines)
    assert run(capsys, function, *lines, "--precision", "int8")


def test_scores_and_perplexity(model, capsys):
    score, evaluate = (
        load_function("scripts/score.py", "score_text"),
        load_function("scripts/evaluate.py", "evaluate_model"),
    )
    assert "rank" in run(capsys, score, "--model_name", model, "--text", "the cat sat")
    assert run(capsys, score, "--model_name", model, "--text", "the cat", "--next", 3).count("\n") >= 3
    assert "perplexity per token" in run(capsys, evaluate, "--model_name", model, "--in_text", "text.txt")


def test_encode_and_train(model, capsys):
    encode, train = load_function("encode.py", "encode_text"), load_function("train.py", "train")
    run(capsys, encode, "text.txt", "ids.npy", "--model_name", model)
    flags = ["--dataset", "ids.npy", "--model_name", model, "--steps", 1, "--sample_every", 0, "--learning_rate", 1e-9]
    run(capsys, train, *flags)
    before, after = (open_model_dir(Path(path)).read() for path in (model, "checkpoint/run1"))
    for name, weight in after.items():
        other = before[name].array()
        expected = other.T if before[name].layout is not weight.layout and weight.layout else other
        np.testing.assert_allclose(weight.array(), expected, rtol=0, atol=1e-6, err_msg=name)
    function = generate_unconditional_samples.sample_model
    assert run(capsys, function, "--model_name", "checkpoint/run1", "--nsamples", 1, "--length", 3)


def test_gpt_2_simple(model, capsys):
    sess = gpt_2_simple.start_tf_sess()
    path = Path(model)
    gpt_2_simple.load_gpt2(sess, model_name=path.name, model_dir=str(path.parent))
    assert gpt_2_simple.generate(sess, length=5, prefix="the cat", return_as_list=True)


def test_serve(model):
    served = serving.load(serving.ServedModelsConfig([model], "models", "float32", None, 2, 2))
    assert served[0].card.n_vocab == served[0].model.encoder.n_vocab


@pytest.mark.parametrize("to", ["openai", "huggingface", "gguf"])
def test_convert(model, capsys, to):
    function = load_function("scripts/convert.py", "convert")
    status = command.main(function, [model, "there", "--to", to, "--variant"])
    captured = capsys.readouterr()
    if status:  # features that a format does not support are rejected by name
        assert status == 1 and not Path("there").exists()
        assert any(why in captured.err for why in ("byte-level BPE", "scale_attn_by_inverse_layer_idx", "gelu")), (
            captured.err
        )
    else:
        assert open_model_dir(Path("there")).hparams.n_layer
