"""Misspelled values and names: the one line of the error ends with the name that was probably meant."""

import pytest
import tiny

import download_model
import generate_unconditional_samples
from gpt2.cli import command
from gpt2.commands import convert, encode, evaluate, generate, score, serve, train
from gpt2.engine.native import build
from gpt2.errors import UsageError, suggest
from gpt2.formats.model_dir import find_model
from gpt_2_simple import command as simple
from gpt_2_simple import session
from lm import command as lm

UNCONDITIONAL = generate_unconditional_samples.sample_model


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with two models, a run and some text."""
    monkeypatch.chdir(tmp_path)
    tiny.write_model(tmp_path / "models" / "poems")
    (tmp_path / "checkpoint/run1").mkdir(parents=True)
    (tmp_path / "text.txt").write_text("the cat sat\n")
    (tmp_path / "rows.csv").write_text("number,title\n1,the cat\n")
    return tmp_path


@pytest.mark.parametrize(
    "function, line, meant",
    [
        (UNCONDITIONAL, ["--topk", "40"], "--top_k"),
        (UNCONDITIONAL, ["--temprature=0.7"], "--temperature"),
        (UNCONDITIONAL, ["--n-sample", "1"], "--nsamples"),
        (UNCONDITIONAL, ["poems", "-topk=40"], "--top_k"),
        (UNCONDITIONAL, ["--temp", "1"], "--temperature"),
        (UNCONDITIONAL, ["--TOP_K", "1"], "--top_k"),
        (UNCONDITIONAL, ["--precision", "flaot32"], "float32"),
        (UNCONDITIONAL, ["--precision", "bfloat-16"], "bfloat16"),
        (UNCONDITIONAL, ["--precision", "Int8"], "int8"),
        (UNCONDITIONAL, ["--no_cache=flase"], "false"),
        (UNCONDITIONAL, ["--model_name", "peoms"], "poems"),
        (UNCONDITIONAL, ["--model_name", "Poem"], "poems"),
        (UNCONDITIONAL, ["--model_name", "124"], "124M"),
        (UNCONDITIONAL, ["--model_name", "1585M"], "1558M"),
        (UNCONDITIONAL, ["--model_name", "models/pems"], "models/poems"),
        (UNCONDITIONAL, ["--model_name", "checkpoint/run2"], "checkpoint/run1"),
        (download_model.download_model, ["344M"], "345M"),
        (download_model.download_model, ["124m"], "124M"),
        (download_model.download_model, ["124M", "--model_dir", "x"], "--models_dir"),
        (train.train, ["text.txt", "--model_name=poems", "--optimizer=admw"], "adamw"),
        (train.train, ["text.txt", "--model_name=poems", "--lr_schedule=cosin"], "cosine"),
        (train.train, ["text.txt", "--model_name=poems", "--precision=float-32"], "float32"),
        (train.train, ["text.txt", "--model_name=poem"], "poems"),
        (train.train, ["text.txt", "--model_name=poems", "--restore_from=lastest"], "latest"),
        (encode.encode_text, ["text.txt", "x.npy", "--model_name=poems", "--encoding=utf9"], "utf-8"),
        (encode.encode_text, ["text.txt", "x.npy", "--model_name=poems", "--encodin=utf-8"], "--encoding"),
        (encode.encode_text, ["rows.csv", "x.npy", "--model_name=poems", "--column=tittle"], "title"),
        (generate.generate, ["rows.csv", "o.csv", "--model_name=poems", "--column=titel"], "title"),
        (generate.generate, ["text.txt", "o", "--model_name=poems", "--out_form=jsonlines"], "jsonl"),
        (evaluate.evaluate_model, ["lambda", "--model_name=poems"], "lambada"),
        (evaluate.evaluate_model, ["wikitext2,lambadaword", "--model_name=poems"], "lambada-word"),
        (score.score_text, ["--text", "x", "--model_name=poems", "--by=words"], "word"),
        (score.score_text, ["--text", "x", "--model_name=poems", "--form=tabel"], "table"),
        (convert.convert, ["poems", "new", "--to=hugingface"], "huggingface"),
        (convert.convert, ["poems", "new", "--to=gguf", "--dtype=folat16"], "float16"),
        (serve.serve, ["--model_name=poems", "--prot=80"], "--port"),
        (lm.train, ["run", "ids", "sp.model", "--g_acum_gradients=2"], "--g_accum_gradients"),
        (lm.generate, ["poem", "the cat"], "poems"),
        (lm.generate, ["poems", "the cat", "--tokens-to-generat=5"], "--tokens_to_generate"),
    ],
)
def test_a_misspelled_word(place, capsys, function, line, meant):
    assert command.main(function, line) in (1, 2)
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and errors[0].endswith(f"; did you mean {meant}?"), errors


@pytest.mark.parametrize(
    "run, line, meant",
    [
        (simple.cmd, ["finetun", "text.txt"], "finetune"),
        (simple.cmd, ["--mode", "genrate"], "generate"),
        (simple.cmd, ["generate", "--lenght", "5"], "--length"),
        (simple.cmd, ["generate", "--topk=5"], "--top_k"),
        (simple.cmd, ["generate", "--include_prefix=ture"], "true"),
        (simple.cmd, ["generate", "--precision=flaot32", "--model_name=poems"], "float32"),
        (simple.cmd, ["generate", "--model_name=pomes"], "poems"),
        (simple.cmd, ["generate", "--run_name=rnu1"], "checkpoint/run1"),
        (lm.sp_train, ["corpus", "text", "prefix", "--vocab-sise", "9"], "--vocab-size"),
        (lm.sp_train, ["corpus", "text", "prefix", "--caracter_coverage=1"], "--character-coverage"),
        (lm.sp_encode, ["corpus", "models/poms", "out"], "models/poems"),
    ],
)
def test_the_commands_with_argparse(place, monkeypatch, capsys, run, line, meant):
    monkeypatch.setattr("sys.argv", ["command", *line])
    (place / "corpus").mkdir()
    assert run() in (1, 2)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and error.endswith(f"; did you mean {meant}?"), error


@pytest.mark.parametrize("value, meant", [("off", "0"), ("flase", "0"), ("No", "0"), ("true", "1"), ("yse", "1")])
def test_an_environment_variable(monkeypatch, value, meant):
    monkeypatch.setenv("GPT2_NATIVE", value)
    with pytest.raises(UsageError, match=f"GPT2_NATIVE must be 0 .*, not '{value}'; did you mean {meant}\\?$"):
        build.find()


@pytest.mark.parametrize(
    "line",
    [
        ["--bogus", "1"],
        ["--precision", "x"],
        ["--precision", "double"],
        ["--model_name", "nosuch"],
        ["--model_name", "q"],
        ["--model_name", "\x1b[2J"],
        ["--no_cache=maybe"],
        ["--x" + "y" * 5000, "1"],
        ["poems", "1", "1", "1", "1", "1.0", "0", "1.0", "m", "s", "1", "1", "int8", "0", "0", "0", "0", "surplus"],
    ],
)
def test_nothing_is_suggested_if_nothing_is_similar(place, capsys, line):
    assert command.main(UNCONDITIONAL, line) in (1, 2)
    assert "did you mean" not in capsys.readouterr().err


def test_other_values_of_the_environment_variable(monkeypatch):
    monkeypatch.setenv("GPT2_NATIVE", "2")
    with pytest.raises(UsageError, match="or unset, not '2'$"):
        build.find()


def test_checkpoints_of_a_run(place):
    with pytest.raises(Exception, match=r"there is no checkpoint 'modl.ckpt' .*; did you mean model.ckpt\?$"):
        session.find_model_dir("modl.ckpt", "run1", "checkpoint", "poems", "models")


def test_suggest():
    assert suggest("topk", ["top_p", "top_k"]) == "; did you mean top_k?"
    assert suggest("top-K", ["top_p", "top_k"], "--") == "; did you mean --top_k?"
    assert suggest("tem", ["temperature", "template"]) == "", "an ambiguous beginning"
    for typed in ("", None, 5, ["top_k"], "a" * 10**6, "\udcff"):
        assert suggest(typed, ["top_k", "a" * 50]) == ""


def test_a_model_is_found_under_a_similar_name_that_exists(place):
    assert find_model("poems").path.name == "poems"
