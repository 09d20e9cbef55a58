"""The command `gpt_2_simple`: how it parses command lines, and what it does."""

import re
import shutil
from pathlib import Path

import pytest

from gpt2.errors import UsageError
from gpt_2_simple import command
from gpt_2_simple.command import cmd, parse

TEXT = "the cat sat on the mat and the dog sat on the log\n" * 40


@pytest.fixture
def workdir(tmp_path, monkeypatch, tiny_dir):
    monkeypatch.chdir(tmp_path)
    Path("shakespeare.txt").write_text(TEXT, encoding="utf-8")
    shutil.copytree(tiny_dir, Path("models/124M"))
    return tmp_path


@pytest.mark.parametrize(
    "line",
    [
        "finetune x.txt --steps 5",
        "--steps 5 finetune x.txt",
        "finetune --steps 5 x.txt",  # the old parser rejected this line and the next two
        "--mode finetune --dataset x.txt --steps 5",
        "--dataset x.txt finetune --steps=5",
        "finetune --dataset x.txt --steps 5",
        "--mode finetune --steps 5 x.txt",
    ],
)
def test_positionals_and_flags_in_any_order(line):
    dataset, values = parse(line.split())
    assert (dataset, values["steps"]) == ("x.txt", 5)


def test_abbreviated_flags_and_spellings_that_scripts_use():
    line = "generate --nsample 3 --pre x --tem 1 --sample_d= --include False --fold out --seed None"
    values = parse(line.split())[1]
    assert (values["nsamples"], values["prefix"], values["temperature"], values["folder"]) == (3, "x", 1.0, "out")
    assert values["sample_delim"] == "" and values["include_prefix"] is False and "seed" not in values
    assert parse(["generate", "--sample_delim", ""])[1]["sample_delim"] == ""
    assert parse(["finetune", "x.csv", "--learn", "0.1"])[1]["learning_rate"] == 0.1  # an added flag
    with pytest.raises(UsageError, match="unrecognized arguments: --n 3"):
        parse(["generate", "--n", "3"])


def test_the_old_defaults():
    old = {"run_name": "run1", "checkpoint_dir": "checkpoint", "model_dir": "models", "multi_gpu": True}
    finetuning = {"steps": -1, "restore_from": "latest", "sample_every": 1000000, "save_every": 100, "print_every": 10}
    finetuning |= {"optimizer": "adam", "overwrite": False, "model_name": None, "batch_size": 1}
    assert parse(["finetune", "x"]) == ("x", {**old, **finetuning})
    generating = {"nfiles": 1, "nsamples": 1, "folder": "gen", "length": 1023, "temperature": 0.7, "top_k": 0}
    generating |= {"top_p": 0.0, "batch_size": 1, "prefix": None, "truncate": None, "include_prefix": True}
    generating |= {"sample_delim": "=" * 20 + "\n", "model_name": None}
    assert parse(["generate"]) == (None, {**old, **generating})
    assert parse(["generate", "--length", "--temperature"])[1] == {**old, **generating}  # a flag without a value


@pytest.mark.parametrize(
    "line, message",
    [
        ("", "Mode must be 'finetune' or 'generate', not None"),
        ("train x", "Mode must be 'finetune' or 'generate', not 'train'"),
        ("finetune", "You need to provide a dataset."),
        ("generate x", "unexpected argument 'x'"),
        ("generate --steps 5", "--steps is for finetune, not for generate"),
        ("generate --include_prefix perhaps", "must be true or false, not 'perhaps'"),
        ("generate --length long", "must be a whole number, not 'long'"),
        ("generate --lenght 5", "unrecognized arguments: --lenght 5; gpt_2_simple --help lists the flags"),
        ("generate --top_p 2", "top_p must be a number from 0 to 1"),
        ("generate --run_name none", "there is no run checkpoint/none"),
        ("finetune nothing.txt --steps 1", "neither a file nor a folder"),
    ],
)
def test_errors_are_one_line(workdir, capsys, line, message):
    shutil.copytree("models/124M", "checkpoint/run1")
    assert cmd(argv=line.split()) in (1, 2)
    out, err = capsys.readouterr()
    error_line = err.splitlines()[-1]
    assert "loss" not in out and message in error_line
    assert error_line.startswith("error: ") and "Traceback" not in err
    assert not Path("gen").exists()


def test_help(capsys):
    with pytest.raises(SystemExit) as exit_info:
        command._parser().parse_args(["--help"])
    assert not exit_info.value.code
    out = capsys.readouterr().out
    assert all(f"--{name}" in out for name, *_ in command.FLAGS)


def test_finetune_and_generate(workdir, capsys):
    assert cmd(argv=["finetune", "shakespeare.txt", "--steps", "20", "--seed", "1", "--learning_rate", "0.01"]) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"^\[\d+ \| [\d.]+\] loss=", out, re.MULTILINE)) == 2  # every tenth update
    assert "Saving checkpoint/run1/model-20" in out
    Path("gen").mkdir()
    Path("gen/mine.txt").write_text("keep this")
    flags = "--temperature 1.0 --nsamples 20 --batch_size 20 --length 5 --prefix <|startoftext|> --include_prefix False"
    flags += " --truncate <|endoftext|> --nfiles 5 --seed 1"
    assert cmd(argv=["generate", *flags.split()]) == 0
    assert Path("gen/mine.txt").read_text() == "keep this"
    files = sorted(Path("gen").glob("gpt2_gentext_*.txt"))
    contents = [file.read_text(encoding="utf-8") for file in files]
    assert len(files) == 5 and len(set(contents)) == 5  # although they are written within a second or two
    for content in contents:
        assert content.count("=" * 20 + "\n") == 20
        assert "<|startoftext|>" not in content and "<|endoftext|>" not in content
    assert cmd(argv=["generate", "--model_name", "124M", "--folder", "pretrained", "--length", "5"]) == 0
    assert len(list(Path("pretrained").iterdir())) == 1


def test_a_missing_model_is_downloaded(workdir, monkeypatch, tiny_dir):
    downloads = []

    def download(model_dir, model_name):
        downloads.append((model_dir, model_name))
        shutil.copytree(tiny_dir, Path(model_dir, model_name))

    monkeypatch.setattr(command, "download_gpt2", download)
    assert cmd(argv=["finetune", "shakespeare.txt", "--steps", "1", "--model_name", "355M"]) == 0
    assert downloads == [("models", "355M")]
