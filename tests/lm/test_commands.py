"""transformer-lm's commands, from a corpus to generated text."""

import dataclasses
import itertools
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_lm

from gpt2 import generate
from gpt2.cli.declarations import flags_of
from gpt2.cli.help_text import help_text
from gpt2.cli.parsing import parse
from gpt2.data import documents
from gpt2.engine import reference
from gpt2.errors import GPT2Error
from gpt2.formats.model_dir import find_model, load_vocabulary
from lm import command, data, lambada, scores, training
from lm.options import TransformerLmOptions

pytest.importorskip("sentencepiece")
SMALL_SIZES = [
    "--n-ctx",
    "12",
    "--n-embed",
    "16",
    "--n_hidden",
    "8",
    "--n-head",
    "2",
    "--n-layer",
    "1",
    "--batch-size",
    "4",
]
COMMANDS = [command.sp_train, command.sp_encode, command.gpt_2, command.gpt_2_gen, command.gpt_2_lambada]


@pytest.fixture
def run(monkeypatch, capsys):
    """Return run(function, *arguments), which returns the (status, stdout, stderr) of a command."""

    def run(function, *arguments):
        monkeypatch.setattr(sys, "argv", [function.__name__.replace("_", "-"), *map(str, arguments)])
        status = function()
        return status, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora") / "de"
    for split, times in (("train", 12), ("valid", 3), ("test", 1)):
        (folder / split / "deep").mkdir(parents=True)
        (folder / split / "a.txt").write_text(tiny_lm.TEXT * times, encoding="utf-8")
        (folder / split / "deep/b.txt").write_text("Ohne Zeilenende", encoding="utf-8")
        (folder / split / "no.md").write_text("left out")
    return folder


def test_the_pipeline_from_corpus_to_text(run, corpus, tmp_path, monkeypatch):
    """transformer-lm's own test: sp-train, sp-encode, gpt-2, gpt-2 with other settings, its validation, gpt-2-gen."""
    monkeypatch.chdir(tmp_path)
    status, out, _ = run(command.sp_train, corpus, "sp-text.txt", "sp-model", "--vocab-size", "120")
    assert status == 0 and out == f"Reading corpora: ['{corpus}']\n"
    assert Path("sp-text.txt").read_text() == (tiny_lm.TEXT.replace("\n\n", "\n")) * 12 + "Ohne Zeilenende\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sp-model.model", "sp-model.vocab", "sp-text.txt"]
    status, out, _ = run(command.sp_train, corpus, "sp-text.txt", "sp-model", "--vocab_size=120")
    assert status == 0 and out == 'Using existing "sp-text.txt", remove and re-run if it is stale.\n'

    status, out, _ = run(command.sp_encode, corpus, "sp-model.model", "enc")
    saved = [f"Saving encoded split {split} to enc/{split}.npy" for split in ("train", "valid", "test")]
    assert status == 0 and out.splitlines() == [f"Reading corpora: ['{corpus}']", *saved]
    assert np.load("enc/train.npy").dtype == np.uint16
    assert np.load("enc/train.npy").tolist() == encode_as_transformer_lm(corpus / "train")

    common = ["run", "enc/", "sp-model.model", *SMALL_SIZES]
    status, out, err = run(
        command.gpt_2,
        *common,
        "--epochs",
        "2",
        "--g-accum-gradients",
        "2",
        "--log-every",
        "2",
        "--save-every",
        "5",
        "--validate-every",
        "10",
        "--clean",
    )
    assert status == 0, err
    tokens = len(np.load("enc/train.npy"))
    updates = 2 * (tokens // 96)
    assert f"Train dataset has {tokens:,} tokens\nValidation dataset has " in out
    assert json.loads(out[: out.index("\nLoading")])["hparams"]["n_hidden"] == 8
    directory = find_model("run")
    assert directory.weights_path.name == f"model-{updates}" and load_vocabulary(directory).n_vocab == 120
    assert directory.hparams.as_dict() == {
        "n_vocab": 120,
        "n_ctx": 12,
        "n_embd": 8,
        "n_head": 2,
        "n_layer": 1,
        "n_token_embd": 16,
    }

    status, out, err = run(
        command.gpt_2,
        *common,
        "--g-accum-gradients",
        "1",
        "--validate-every",
        "100",
        "--sample-sentences",
        "--epochs",
        "3",
    )
    assert status == 0, err
    seen_tokens = updates * 96
    assert f"Resuming from seen_tokens {seen_tokens:,}\n" in out and "sample_sentences is ignored" in err
    all_updates = updates + -(-(3 * (tokens // 48) * 48 - seen_tokens) // 48)
    assert find_model("run").weights_path.name == f"model-{all_updates}"
    status, out, err = run(command.gpt_2, *common, "--epochs", "3")
    assert status == 0 and "has already seen" in err and find_model("run").weights_path.name == f"model-{all_updates}"
    program, *arguments = shlex.split(err.partition("for more epochs, type: ")[2])
    typed = TransformerLmOptions(**parse(command.train, [*common, "--epochs", "6"]))
    assert program == "gpt-2" and TransformerLmOptions(**parse(command.train, arguments)) == typed

    status, out, err = run(command.gpt_2, *common, "--only-validate")
    losses = dict(line.split() for line in out.splitlines()[-2:])
    assert status == 0 and list(losses) == ["loss", "loss_8"]
    assert float(losses["loss"]) == pytest.approx(slow_loss("run", "enc/valid.npy"), abs=1e-3)

    status, out, err = run(command.gpt_2_gen, "run", "Das blaue", "--tokens-to-generate", "5", "--top-k=1")
    lines = out.split("\n", 2)
    assert status == 0 and lines[:2] == ["loading model from run", "generating text for prefix Das blaue"] and lines[2]

    options = TransformerLmOptions(*common[:3], n_ctx=12, n_embed=16, n_hidden=8, n_head=2, n_layer=1, max_tokens=10**6)
    encoded = training.EncodedCorpus(Path("enc"), load_vocabulary(directory))
    assert (
        training.training_settings(dataclasses.replace(options, epochs=50, max_tokens=10**4), encoded).stop_after
        > all_updates
    )
    assert (
        training.training_settings(dataclasses.replace(options, epochs=50, max_tokens=200), encoded).stop_after
        == all_updates
    )
    Path("original").mkdir()
    Path("original/params.json").write_text("{}")
    with pytest.raises(GPT2Error, match="original was trained by transformer-lm itself, .* train.py --model_name "):
        training.training_settings(dataclasses.replace(options, run_path="original"), encoded)


def encode_as_transformer_lm(folder):
    """Return the ids that transformer-lm's sp-encode writes for a folder, with its files sorted by name."""
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file="sp-model.model")
    ids = []
    for path in sorted(folder.glob("**/*.txt")):
        with path.open(encoding="utf-8") as file:
            for line in file:
                ids += [*model.EncodeAsIds(line), model.PieceToId("<endofline>")]
        ids.append(model.PieceToId("<endoftext>"))
    return ids


def slow_loss(run, path):
    weights, hparams, ids = tiny.read_model(Path(run)), find_model(run).hparams, np.load(path)
    losses = []
    for start in range(0, len(ids) - hparams.n_ctx, hparams.n_ctx):
        window = ids[start : start + hparams.n_ctx].tolist()
        logits = reference.logits(weights, hparams, window)[:-1]
        logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        losses.append(-logs[np.arange(hparams.n_ctx - 1), window[1:]].mean())
    return float(np.mean(losses))


@pytest.mark.parametrize("function", COMMANDS)
def test_help(run, function):
    with pytest.raises(SystemExit) if function in COMMANDS[:2] else memoryview(b""):
        status, out, _ = run(function, "--help")
        assert status == 0 and out.startswith("usage: ")


@pytest.mark.parametrize(
    "function, arguments, message",
    [
        (command.sp_train, ["a", "b"], "the following arguments are required: sp_text|sp_model_prefix"),
        (command.sp_train, ["a", "b", "c", "--bogus"], "--bogus.*; sp-train --help lists the flags"),
        (command.sp_train, ["nosuch", "b", "c"], "Corpus train split nosuch/train looks empty, no text files found"),
        (command.sp_train, ["nosuch", "b", "c", "--vocab-size", "x"], "must be a whole number, not 'x'"),
        (command.sp_encode, ["a", "nosuch.model", "out"], "'nosuch.model' is neither in"),
        (command.gpt_2, ["a", "b"], "sp_model_path"),
        (command.gpt_2, ["a", "b", "c", "--bogus", "1"], "there is no flag --bogus"),
        (
            command.gpt_2,
            ["a", "b", "c", "--n-ctx-min", "8"],
            "n_ctx_min, for windows of several lengths, is not supported",
        ),
        (command.gpt_2, ["a", "b", "c", "--epochs", "0"], "epochs must be a whole number of at least 1"),
        (command.gpt_2_gen, ["nosuch", "a"], "'nosuch' is neither in"),
        (command.gpt_2_gen, ["nosuch", "a", "--top-p", "2"], "top_p must be a number from 0 to 1"),
        (command.gpt_2_lambada, ["nosuch", "nosuch.jsonl"], "nosuch.jsonl cannot be read: No such file"),
    ],
)
def test_errors_are_one_line(run, function, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(function, *arguments)
    assert status in (1, 2) and re.search(message, err) and err.count("\n") == 1, err
    assert re.fullmatch(r"(Reading corpora:|loading model from) .*\n|", out), "the first line is transformer-lm's"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("function", COMMANDS[:2])
def test_a_missing_package(run, function, corpus, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    status, out, err = run(function, corpus, "a", "b")
    assert (status, out) == (1, "") and err.endswith(
        "needs the package sentencepiece; type: pip install sentencepiece\n"
    )
    assert not list(tmp_path.iterdir())


def test_a_missing_package_of_a_model(run, lm_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    status, _, err = run(command.gpt_2_gen, lm_dir, "Das")
    assert (
        status == 1
        and err
        == "error: a SentencePiece vocabulary needs the package sentencepiece; type: pip install sentencepiece\n"
    )


def test_a_text_with_too_few_pieces(run, corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(command.sp_train, corpus, "text", "sp", "--vocab-size", "100000")
    error_line = err.splitlines()[-1]
    assert (
        status == 1
        and error_line.startswith("error: a vocabulary of 100000 pieces could not be trained on text: ")
        and "Vocabulary size" in error_line
    )
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_clean_removes_only_runs(tmp_path, tiny_dir):
    shutil.copytree(tiny_dir, tmp_path / "precious")
    with pytest.raises(GPT2Error, match="precious is not a run, and clean would remove everything"):
        training.remove_run(tmp_path / "precious")
    assert len(list((tmp_path / "precious").iterdir())) == len(list(tiny_dir.iterdir()))
    training.remove_run(tmp_path / "nosuch")
    (tmp_path / "precious/.lm").touch()
    training.remove_run(tmp_path / "precious")
    assert not (tmp_path / "precious").exists()


def test_all_flags_are_described():
    for function in (command.train, command.generate, command.evaluate_lambada):
        assert all(flag.help for flag in flags_of(function).values())
        assert help_text(function)


def test_join_lines_completes_lines_that_parts_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "PART_CHARACTERS", 10)
    path = tmp_path / "a.txt"
    path.write_text("eins zwei drei vier fünf\n\n \nsechs\nsieben acht neun zehn elf zwölf")
    data.join_lines([path, path], tmp_path / "out")
    assert (tmp_path / "out").read_text() == "eins zwei drei vier fünf\nsechs\nsieben acht neun zehn elf zwölf\n" * 2


def test_lambada(run, lm_dir, tmp_path):
    """The model predicts three last words and not the other two; texts with fewer than two words are ignored."""
    model = generate.load(str(lm_dir))
    vocabulary = model.encoder
    texts = []
    for first, second in itertools.product(tiny_lm.TEXT.split(), repeat=2):
        ids = [vocabulary.end_of_text, *vocabulary.encode(f"{first} {second}")]
        ((token, _),) = scores.top_next_ids(model, ids, 1)
        word = vocabulary.token_text(token)
        if word.strip().isalpha() and vocabulary.encode(word) == [token]:
            texts.append(f"{first} {second}{word}")
        if len(texts) == 3:
            break
    texts += ["Das blaue Pferd", "Wenn der\nSturm \n", "eins", " "]
    path = tmp_path / "passages.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    result = lambada.evaluate(model, lambada.read_passages(path))
    assert (result.correct, result.words) == (3, 5) and result.perplexity > 1
    nats = [lambada.evaluate(model, [text]).nats for text in texts[:5]]
    assert result.nats == pytest.approx(sum(nats), abs=1e-3)
    status, out, _ = run(command.gpt_2_lambada, lm_dir, path)
    assert status == 0 and out.startswith("accuracy 0.6000 (3 of 5 last words)\nperplexity ")
