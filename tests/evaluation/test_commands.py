"""scripts/score.py and scripts/evaluate.py: their output, and their error messages of one line."""

import io
import json
import re
import sys

import numpy as np
import pytest

from gpt2.cli import command as cli
from gpt2.cli.help_text import help_text
from gpt2.evaluation import datasets, tasks
from gpt2.evaluation.scores import protocol_of
from scripts import evaluate, score

TEXT = "the cat sat on the mat\nand the dog"


@pytest.fixture
def scoring(tiny_dir, capsys):
    def run(*argv, command=score.score_text, status=0):
        assert cli.main(command, [*argv, "--model_name", str(tiny_dir)]) == status
        return capsys.readouterr()

    return run


@pytest.fixture
def evaluating(scoring):
    return lambda *argv, status=0: scoring(*argv, command=evaluate.evaluate_model, status=status)


def set_stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data)), "utf-8"))


def test_each_token_of_a_text(scoring, scorer, reference):
    out, err = scoring("--text", TEXT, "--form", "jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    ids = scorer.encoder.encode(TEXT)
    expected = reference.logprobs(ids, protocol_of(32, scorer.encoder, stride=16))
    assert [row["text"] for row in rows] == [scorer.encoder.token_text(token) for token in ids]
    np.testing.assert_allclose([row["logprob"] for row in rows], expected, atol=1e-4)
    np.testing.assert_allclose([row["bits"] for row in rows], -np.array(expected) / np.log(2), atol=1e-4)
    summary = re.search(rf"{len(ids)} tokens scored: log-probability (-\d+\.\d+), .* stride 16", err)
    np.testing.assert_allclose(float(summary[1]), sum(expected), atol=1e-3)


def test_files_the_command_line_and_stdin_give_the_same_scores(scoring, tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    by_text = scoring("--text", TEXT, "--by", "line", "--form", "csv")[0]
    by_file = scoring(str(tmp_path / "text.txt"), "--by", "line", "--form", "csv")[0]
    assert by_file.replace(str(tmp_path / "text.txt"), "text") == by_text and by_text.count("\n") == 4
    for argv in ([], ["-"]):
        set_stdin(monkeypatch, TEXT.encode())
        assert scoring(*argv, "--by", "line", "--form", "csv")[0].replace("stdin", "text") == by_text


def test_bytes_that_are_not_utf_8_are_counted(scoring, tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_bytes(b"the \xff cat")
    out, err = scoring(str(tmp_path / "text.txt"), "--by", "file", "--form", "jsonl")
    assert "1 bytes of" in err and "are not utf-8; read as U+FFFD" in err
    set_stdin(monkeypatch, b"the \xff cat")
    out, err = scoring("--by", "word", "--form", "jsonl")
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["the", " \ufffd", " cat"]
    assert "1 bytes of the standard input are not utf-8" in err


def test_empty_and_one_token_texts(scoring, evaluating, tmp_path, monkeypatch):
    for name, text in (("empty", ""), ("one", "x"), ("lines", "\n\n")):
        (tmp_path / name).write_text(text)
    assert scoring(str(tmp_path / "empty"), "--form", "jsonl")[0] == ""
    assert scoring("--text", "", "--form", "csv")[0].count("\n") == 1
    set_stdin(monkeypatch, b"")
    assert scoring("--form", "jsonl")[0] == ""
    out, _ = scoring(str(tmp_path), "--by", "file", "--form", "jsonl")
    assert [json.loads(line)["tokens"] for line in out.splitlines()] == [2, 1]
    out, _ = evaluating("--in_text", str(tmp_path / "empty"), "--json")
    assert set(json.loads(out)["numbers"].values()) == {None}
    assert "nan" in evaluating("--in_text", str(tmp_path / "one"), "--no_start")[0]


def test_a_page_and_a_table_are_written_to_files(scoring, tmp_path):
    out, err = scoring("--text", "<b>", "--out", str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert out == "" and page.startswith("<!DOCTYPE html>") and "<b>" not in page and "Scoring" in err
    scoring("--text", TEXT, "--out", str(tmp_path / "table.txt"))
    assert (tmp_path / "table.txt").read_text(encoding="utf-8").splitlines()[1] == "text:"


def test_the_next_tokens(scoring, scorer, reference, monkeypatch):
    prompt = "the cat sat"
    logprobs = reference.next_logprobs(scorer.encoder.encode(prompt))
    out, err = scoring("--text", prompt, "--next", "3", "--form", "jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    best = np.argsort(-logprobs)[:3]
    assert [row["token"] for row in rows] == [scorer.encoder.token_text(int(token)) for token in best]
    np.testing.assert_allclose([row["logprob"] for row in rows], logprobs[best], atol=1e-4)
    np.testing.assert_allclose([row["probability"] for row in rows], np.exp(logprobs[best]), atol=1e-5)
    assert f"these tokens have {np.exp(logprobs[best]).sum():.2%} of the probability" in err
    table = scoring("--text", prompt, "--next", "20")[0].splitlines()
    assert len(table) == 21 and table[0].split() == ["rank", "probability", "logprob", "token"]
    set_stdin(monkeypatch, b"")
    assert scoring("--next", "2", "--form", "csv")[0].count("\n") == 3  # the most likely first tokens of a text


def test_perplexity_of_files(evaluating, scorer, reference, tmp_path):
    texts = {"a.txt": "the cat sat on the mat\n" * 20, "b.txt": "the dog"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    protocol = protocol_of(32, scorer.encoder, 32, 8)
    ids = [scorer.encoder.encode(text) for text in texts.values()]
    nats = -sum(sum(reference.logprobs(text_ids, protocol)) for text_ids in ids)
    out, err = evaluating("--in_text", str(tmp_path), "--stride", "8", "--json")
    report = json.loads(out)
    np.testing.assert_allclose(report["numbers"]["perplexity per token"], np.exp(nats / sum(map(len, ids))), rtol=1e-4)
    np.testing.assert_allclose(report["numbers"]["perplexity per word"], np.exp(nats / 122), rtol=1e-4)
    assert report["counts"]["texts"] == 2 and report["counts"]["words"] == 122 and report["protocol"] == str(protocol)
    table, _ = evaluating("--in_text", str(tmp_path / "b.txt"))
    assert "perplexity per token" in table and "protocol: windows of 32 tokens, stride 32" in table


@pytest.mark.parametrize(
    "limit, expected",
    [
        (1, ["t"]),
        (9, ["the cat ä"]),
        (16, ["the cat ä 🦄 sat\n"]),
        (17, ["the cat ä 🦄 sat\n", "t"]),
        (23, ["the cat ä 🦄 sat\n", "the dog"]),
        (10**9, ["the cat ä 🦄 sat\n", "the dog", "row"]),
    ],
)
def test_limit_is_the_number_of_characters_of_all_texts(evaluating, scorer, tmp_path, monkeypatch, limit, expected):
    (tmp_path / "a.txt").write_text("the cat ä 🦄 sat\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("the dog", encoding="utf-8")
    (tmp_path / "c.csv").write_text("text\nrow\n", encoding="utf-8")
    report = json.loads(evaluating("--in_text", str(tmp_path), "--limit", str(limit), "--json")[0])
    assert report["counts"]["texts"] == len(expected)
    assert report["counts"]["bytes"] == sum(len(text.encode()) for text in expected)
    assert report["counts"]["tokens"] == sum(len(scorer.encoder.encode(text)) for text in expected)
    first = ("".join(expected))[:limit]
    set_stdin(monkeypatch, "".join(expected).encode())
    for source in (["--text", first + "more"], ["--in_text", "-"]):
        report = json.loads(evaluating(*source, "--limit", str(len(first)), "--json")[0])
        assert report["counts"]["bytes"] == len(first.encode())
        assert report["counts"]["tokens"] == len(scorer.encoder.encode(first))


def test_undecodable_bytes_before_the_limit_are_counted(evaluating, monkeypatch):
    set_stdin(monkeypatch, b"the \xff cat sat" + b" on" * 100)
    out, err = evaluating("--in_text", "-", "--limit", "9", "--json")
    assert json.loads(out)["counts"]["words"] == 3 and "1 bytes of the standard input are not utf-8" in err


def test_tasks_by_path_and_by_download(evaluating, tmp_path, monkeypatch):
    (tmp_path / "lambada_test.jsonl").write_text('{"text": "the cat sat"}\n')
    out, _ = evaluating("lambada,lambada-word", "--data", str(tmp_path / "lambada_test.jsonl"))
    assert [line for line in out.splitlines() if not line.startswith(" ")] == ["lambada", "lambada-word"]
    assert "protocol: the last token of each passage" in out and "protocol: the last word of each" in out
    downloads = []

    def download(data, folder, report, verifying):
        downloads.append((data.name, folder))
        return tmp_path / data.name

    monkeypatch.setattr(datasets, "download", download)
    assert json.loads(evaluating("--tasks", "lambada", "--data_dir", str(tmp_path), "--json")[0])["task"] == "lambada"
    assert downloads == [("lambada_test.jsonl", tmp_path)]


def test_the_help_lists_every_task_and_unit():
    text = help_text(evaluate.evaluate_model)
    assert all(name in text for name in tasks.TASKS)
    assert "each token, word, line or file" in help_text(score.score_text)


@pytest.mark.parametrize(
    "command, argv, message",
    [
        (score.score_text, ["--text", "x", "--in_text", "y"], "give in_text or text, not both"),
        (score.score_text, ["--text", "x", "--by", "page"], "by must be one of token, word, line, file"),
        (score.score_text, ["--text", "x", "--form", "xml"], "form must be one of table, csv, jsonl, html"),
        (score.score_text, ["--text", "x", "--next", "3", "--form", "html"], "the next tokens can be listed as table"),
        (score.score_text, ["--text", "x", "--window", "33"], "window must be at most the model's n_ctx, 32"),
        (score.score_text, ["--text", "x", "--stride", "40"], "stride must be at most the window"),
        (score.score_text, ["--text", "x", "--encoding", "x"], "encoding must be one that Python knows"),
        (score.score_text, ["--text", "x", "--precision", "int4"], "precision must be one of"),
        (evaluate.evaluate_model, [], "give either tasks or a text (in_text or text); the tasks are lambada"),
        (evaluate.evaluate_model, ["lambada", "--text", "x"], "give either tasks or a text"),
        (evaluate.evaluate_model, ["--text", "x", "--limit", "0"], "limit must be a whole number of at least 1"),
        (evaluate.evaluate_model, ["--text", "x", "--limit", "-1"], "limit must be a whole number of at least 1"),
        (evaluate.evaluate_model, ["lambada,x"], "there is no task 'x'"),
        (evaluate.evaluate_model, ["all", "--data", "x"], "data is for a single task"),
    ],
)
def test_bad_usage(scoring, command, argv, message):
    out, err = scoring(*argv, command=command, status=2)
    assert message in err and err.count("\n") == 1 and not out


def test_missing_files_and_models(scoring, evaluating, tmp_path):
    assert "is neither a file nor a folder" in scoring(str(tmp_path / "gone"), status=1)[1]
    err = evaluating("lambada", "--data", str(tmp_path / "gone"), status=1)[1]
    assert err.count("\n") == 1 and "gone does not exist" in err
    assert cli.main(score.score_text, ["--text", "x", "--model_name", "nobody"]) == 1
