"""The search path of models, and the messages for missing and damaged ones."""

import shutil

import pytest

from gpt2.errors import GPT2Error
from gpt2.formats import model_dir
from gpt2.formats.model_dir import find_model, list_aliases


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """Change to a directory with an empty `models`, and hide the models of the checkout."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model_dir, "CHECKOUT", tmp_path / "checkout")
    (tmp_path / "models").mkdir()
    return tmp_path


@pytest.mark.parametrize("name, names", [("117M", ["117M", "124M"]), ("355M", ["355M", "345M"]), ("x", ["x"])])
def test_aliases(name, names):
    assert list_aliases(name) == names


@pytest.mark.parametrize("folder", ["117M", "124M"])
@pytest.mark.parametrize("typed", ["117M", "124M"])
def test_either_name_finds_either_folder(workdir, tiny_dir, folder, typed):
    shutil.copytree(tiny_dir, workdir / "models" / folder)
    assert find_model(typed).path.name == folder


def test_an_interrupted_download_does_not_hide_the_other_name(workdir, tiny_dir):
    (workdir / "models/345M").mkdir()
    shutil.copytree(tiny_dir, workdir / "models/355M")
    assert find_model("345M").path.name == "355M"


def test_the_working_directory_comes_before_the_checkout(workdir, tiny_dir):
    shutil.copytree(tiny_dir, workdir / "checkout/models/124M")
    assert find_model().path == workdir / "checkout/models/124M"
    shutil.copytree(tiny_dir, workdir / "models/124M")
    assert find_model().path.resolve() == workdir / "models/124M"


def test_a_path_works_as_a_name(workdir, tiny_dir):
    assert find_model(str(tiny_dir)).path == tiny_dir
    assert find_model(tiny_dir.name, str(tiny_dir.parent)).path == tiny_dir


def test_variables_and_home_in_models_dir(workdir, tiny_dir, monkeypatch):
    monkeypatch.setenv("HOME", str(tiny_dir.parent))
    monkeypatch.setenv("WHERE", str(tiny_dir.parent))
    assert find_model("tiny", "~").path == find_model("tiny", "$WHERE").path == tiny_dir


def test_the_error_for_a_missing_model_is_the_command_to_type(workdir, tiny_dir):
    with pytest.raises(GPT2Error, match=r"model 345M is not in .*; download it: python3 download_model.py 345M$"):
        find_model("345M")
    shutil.copytree(tiny_dir, workdir / "models/tiny")
    with pytest.raises(GPT2Error, match=r"download_model.py 124M, or use an available model: --model_name tiny"):
        find_model("124M")
    with pytest.raises(GPT2Error, match=r"--models_dir other$"):
        find_model("124M", "other")


def test_the_error_for_an_unknown_name_lists_the_released_models(workdir):
    with pytest.raises(GPT2Error, match=r"'125M' is neither in .* nor the path .* 124M \(or 117M\), 355M \(or 345M\)"):
        find_model("125M")
    with pytest.raises(GPT2Error, match="'' is neither"):
        find_model("")


@pytest.fixture
def damaged(tmp_path, tiny_dir):
    return shutil.copytree(tiny_dir, tmp_path / "124M")


@pytest.mark.parametrize(
    "name",
    ["hparams.json", "encoder.json", "vocab.bpe", "checkpoint", "model.ckpt.index", "model.ckpt.data-00000-of-00001"],
)
def test_a_missing_file_is_named(damaged, name):
    (damaged / name).unlink()
    with pytest.raises(GPT2Error, match=rf"{name}.*; fetch it again: python3 download_model.py 124M"):
        find_model(str(damaged))


@pytest.mark.parametrize(
    "name, content, message",
    [
        (
            "checkpoint",
            b"<?xml version='1.0'?><Error>",
            "checkpoint is damaged: it should hold a line model_checkpoint",
        ),
        ("checkpoint", b"\xff\xfe", "checkpoint is damaged: it is not UTF-8 at byte 0"),
        ("model.ckpt.index", b"<html>", "model.ckpt.index is damaged"),
        ("model.ckpt.index", b"", "model.ckpt.index is damaged"),
        (
            "model.ckpt.data-00000-of-00001",
            b"x" * 1000,
            "is cut off or belongs to another model: it has 1000 bytes, but .* at least",
        ),
    ],
)
def test_a_damaged_file_is_named(damaged, name, content, message):
    (damaged / name).write_bytes(content)
    with pytest.raises(GPT2Error, match=message):
        find_model(str(damaged))


def test_the_error_for_a_run_folder_of_the_old_train_py_names_the_missing_files(damaged):
    for name in ("hparams.json", "encoder.json", "vocab.bpe"):
        (damaged / name).unlink()
    with pytest.raises(GPT2Error, match="holds only weights.*copy hparams.json, encoder.json, vocab.bpe"):
        find_model(str(damaged))


def test_a_missing_shard_is_detected(damaged):
    data = damaged / "model.ckpt.data-00000-of-00001"
    data.rename(damaged / "model.ckpt.data-00000-of-00002")
    with pytest.raises(GPT2Error, match="holds 1 of the 2 files model.ckpt.data"):
        find_model(str(damaged))


def test_a_checkpoint_file_with_a_path_of_another_machine(damaged):
    (damaged / "checkpoint").write_text('model_checkpoint_path: "/content/checkpoint/run1/model.ckpt"\n')
    assert find_model(str(damaged)).weights_path == damaged / "model.ckpt"
