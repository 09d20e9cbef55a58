"""The command `gpt_2_simple`: what it makes of a command line, and what it does."""

import re
import shutil
from pathlib import Path

import pytest

from gpt2.errors import UsageError
from gpt_2_simple import command
from gpt_2_simple.command import cmd, parse

TEXT = "the cat sat on the mat and the dog sat on the log\n" * 40


@pytest.fixture
def place(tmp_path, monkeypatch, tiny_dir):
    monkeypatch.chdir(tmp_path)
    Path("shakespeare.txt").write_text(TEXT, encoding="utf-8")
    shutil.copytree(tiny_dir, Path("models/124M"))
    return tmp_path


@pytest.mark.parametrize(
    "line",
    [
        "finetune x.txt --steps 5",
        "--steps 5 finetune x.txt",
        "finetune --steps 5 x.txt",  # these three never worked in the old parser
        "--mode finetune --dataset x.txt --steps 5",
        "--dataset x.txt finetune --steps=5",
        "finetune --dataset x.txt --steps 5",
        "--mode finetune --steps 5 x.txt",
    ],
)
def test_words_and_flags_in_any_order(line):
    dataset, given = parse(line.split())
    assert (dataset, given["steps"]) == ("x.txt", 5)


def test_abbreviations_of_the_old_flags_and_what_scripts_type():
    line = "generate --nsample 3 --pre x --tem 1 --sample_d= --include False --fold out --seed None"
    given = parse(line.split())[1]
    assert (given["nsamples"], given["prefix"], given["temperature"], given["folder"]) == (3, "x", 1.0, "out")
    assert given["sample_delim"] == "" and given["include_prefix"] is False and "seed" not in given
    assert parse(["generate", "--sample_delim", ""])[1]["sample_delim"] == ""
    assert parse(["finetune", "x.csv", "--learn", "0.1"])[1]["learning_rate"] == 0.1  # ours have some too
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
    "line, said",
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
def test_mistakes_are_one_line(place, capsys, line, said):
    shutil.copytree("models/124M", "checkpoint/run1")
    assert cmd(argv=line.split()) in (1, 2)
    out, err = capsys.readouterr()
    last = err.splitlines()[-1]
    assert "loss" not in out and said in last
    assert last.startswith("error: ") and "Traceback" not in err
    assert not Path("gen").exists()


def test_help(capsys):
    with pytest.raises(SystemExit) as end:
        command._parser().parse_args(["--help"])
    assert not end.value.code
    out = capsys.readouterr().out
    assert all(f"--{name}" in out for name, *_ in command.FLAGS)


def test_finetune_and_generate(place, capsys):
    assert cmd(argv=["finetune", "shakespeare.txt", "--steps", "20", "--seed", "1", "--learning_rate", "0.01"]) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"^\[\d+ \| [\d.]+\] loss=", out, re.MULTILINE)) == 2  # every tenth
    assert "Saving checkpoint/run1/model-20" in out
    Path("gen").mkdir()
    Path("gen/mine.txt").write_text("not to be lost")
    wanted = (
        "--temperature 1.0 --nsamples 20 --batch_size 20 --length 5 --prefix <|startoftext|> --include_prefix False"
    )
    wanted += " --truncate <|endoftext|> --nfiles 5 --seed 1"
    assert cmd(argv=["generate", *wanted.split()]) == 0
    assert Path("gen/mine.txt").read_text() == "not to be lost"
    files = sorted(Path("gen").glob("gpt2_gentext_*.txt"))
    contents = [file.read_text(encoding="utf-8") for file in files]
    assert len(files) == 5 and len(set(contents)) == 5  # all within a second or two
    for content in contents:
        assert content.count("=" * 20 + "\n") == 20
        assert "<|startoftext|>" not in content and "<|endoftext|>" not in content
    assert cmd(argv=["generate", "--model_name", "124M", "--folder", "pretrained", "--length", "5"]) == 0
    assert len(list(Path("pretrained").iterdir())) == 1


def test_a_model_that_is_not_there_is_downloaded(place, monkeypatch, tiny_dir):
    asked = []

    def download(model_dir, model_name):
        asked.append((model_dir, model_name))
        shutil.copytree(tiny_dir, Path(model_dir, model_name))

    monkeypatch.setattr(command, "download_gpt2", download)
    assert cmd(argv=["finetune", "shakespeare.txt", "--steps", "1", "--model_name", "355M"]) == 0
    assert asked == [("models", "355M")]
