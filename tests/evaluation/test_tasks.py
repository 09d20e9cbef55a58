"""Tasks, run on small files in the format of their data sets, agree with a direct computation."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2.errors import GPT2Error, UsageError
from gpt2.evaluation import cbt, detokenize, hellaswag, lambada, paper, report, tasks
from gpt2.evaluation.scores import protocol_of
from gpt2.evaluation.task import TaskResult, TaskSettings
from gpt2.formats.model_dir import RELEASED_MODELS
from gpt2.text_batch import Model

CLOSE = {"rtol": 1e-4}


def run(model: Model, name: str, path: Path, **settings: Any) -> tuple[TaskResult, dict[str, float]]:
    """Run a task; return its result and its metrics by name."""
    result = tasks.run_task(model, tasks.TASKS[name], path, TaskSettings(**settings))
    return result, {metric.name: metric.value for metric in result.metrics}


def write_json_lines(path: Path, objects: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in objects), encoding="utf-8")
    return path


PASSAGES = [
    "the cat sat on “the mat”  the log",
    " the dog sat on the cat ",
    "x y",
    "the cat sat on the mat and the dog " * 4,
]


def test_lambada_by_both_protocols(scorers, reference, tmp_path):
    path = write_json_lines(tmp_path / "lambada_test.jsonl", [{"text": text} for text in PASSAGES])
    encode = scorers[0].encoder.encode
    tokens = [encode("\n" + text.replace("“", '"').replace("”", '"').strip())[-33:] for text in PASSAGES]
    last = [reference.next_logprobs(ids[:-1]) for ids in tokens]
    words = []
    for text in PASSAGES:
        context, _, word = text.rpartition(" ")
        ids, ending = encode(context + " " + word)[-33:], encode(" " + word)
        words.append((ids[: -len(ending)], ending))
    for model in scorers:
        result, numbers = run(model, "lambada", path)
        token_logprobs = [logprobs[ids[-1]] for logprobs, ids in zip(last, tokens)]
        hits = [logprobs.argmax() == ids[-1] for logprobs, ids in zip(last, tokens)]
        np.testing.assert_allclose(numbers["perplexity"], np.exp(-np.mean(token_logprobs)), **CLOSE)
        assert numbers["accuracy, %"] == 100 * np.mean(hits) and result.counts == {"passages": 4}
        _, numbers = run(model, "lambada-word", path)
        sums = [reference.continuation_logprob(context, ending) for context, ending in words]
        np.testing.assert_allclose(numbers["perplexity"], np.exp(-np.mean(sums)), **CLOSE)


def test_a_hit_is_what_the_model_would_generate(scorer, reference, tmp_path):
    """The most likely last token is a hit, and so is a last word of most likely tokens; others are not."""
    encoder = scorer.encoder
    likeliest = encoder.decode([int(reference.next_logprobs(encoder.encode("\nthe cat sat on")).argmax())])
    assert likeliest.strip() == likeliest
    assert encoder.encode("\nthe cat sat on" + likeliest)[:-1] == encoder.encode("\nthe cat sat on")
    path = write_json_lines(tmp_path / "one.jsonl", [{"text": "the cat sat on" + likeliest}])
    assert run(scorer, "lambada", path)[1]["accuracy, %"] == 100
    path = write_json_lines(
        tmp_path / "two.jsonl", [{"text": "the cat sat onQ"}, {"text": "the cat sat on" + likeliest}]
    )
    assert run(scorer, "lambada", path)[1]["accuracy, %"] == 50
    assert run(scorer, "lambada", path, limit=1)[1]["accuracy, %"] == 0


CANDIDATES = ["cat", "dog", "mat", "log", "catalogue", "sat", "on", "and", "Q", "the"]


def cbt_file(answers: Iterable[str]) -> bytes:
    """Return questions in the format of CBTest/data/cbtest_CN_test_2500ex.txt."""
    lines = []
    for answer in answers:
        lines += [f"{line} the cat {line} ." for line in range(1, 21)]
        lines += [f"21 `` the XXXXX did n't sit , '' said the dog .\t{answer}\t\t{'|'.join(CANDIDATES)}", ""]
    return "\n".join(lines).encode() + b"\n"


def write_tar(path: Path, member: str, data: bytes) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (("CBTest/README.txt", b"x"), (member, data)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def long_scorers(tmp_path, reference):
    """The tiny model with a window large enough for a whole question."""
    import tiny
    from reference_scorer import ReferenceScorer

    from gpt2 import generate
    from gpt2.engine.load import all_backends
    from gpt2.formats.model_dir import load_vocabulary, open_model_dir

    directory = open_model_dir(tiny.write_model(tmp_path / "long", n_ctx=256))
    weights = tiny.read_model(directory.path)
    vocabulary = load_vocabulary(directory)
    models = [generate.Model(vocabulary, backend) for backend in all_backends(weights, directory.hparams)]
    return models, ReferenceScorer(weights, directory.hparams)


@pytest.mark.parametrize("window", ["long", "short"])
def test_the_childrens_book_test(scorers, reference, long_scorers, tmp_path, window):
    models, expected_scorer = long_scorers if window == "long" else (scorers, reference)
    n_ctx = models[0].hparams.n_ctx
    before = " ".join(f"the cat {line}." for line in range(1, 21)) + ' "the '
    rows = [models[0].encoder.encode(f"{before}{word} didn't sit,\" said the dog.") for word in CANDIDATES]
    common = next(i for i in range(999) if len({row[i] for row in rows}) > 1)
    cut = max(0, max(map(len, rows)) - n_ctx - 1)
    answer_start = max(common, cut + 1)
    sums = [expected_scorer.continuation_logprob(row[cut:answer_start], row[answer_start:]) for row in rows]
    best = CANDIDATES[int(np.argmax(sums))]
    other = CANDIDATES[int(np.argmin(sums))]
    member = tasks.TASKS["cbt-cn"].member
    path = write_tar(tmp_path / "CBTest.tgz", member, cbt_file([best, other, best]))
    for model in models:
        assert run(model, "cbt-cn", path, limit=1)[1] == {"accuracy, %": 100}
        assert run(model, "cbt-cn", path, limit=2)[1] == {"accuracy, %": 50}
    (tmp_path / "plain.txt").write_bytes(cbt_file([best, other]))
    assert run(models[0], "cbt-ne", tmp_path / "plain.txt")[1] == {"accuracy, %": 50}


def test_hellaswag_by_sum_and_by_mean(scorers, reference, tmp_path):
    """The first label is the most likely ending by sum, the second by mean, the third is the least likely by sum."""
    encode = scorers[0].encoder.encode
    context, endings = "the cat sat", ["on", "and the dog sat on the log", "Q q", "on the mat"]
    ids = [encode(" " + ending) for ending in endings]
    sums = [reference.continuation_logprob(encode(context), ending) for ending in ids]
    means = [total / len(ending) for total, ending in zip(sums, ids)]
    example = {"ind": 4, "activity_label": "x", "ctx_a": context, "ctx_b": "", "ctx": context, "endings": endings}
    labels = [int(np.argmax(sums)), int(np.argmax(means)), int(np.argmin(sums))]
    path = write_json_lines(tmp_path / "hellaswag_val.jsonl", [{**example, "label": label} for label in labels])
    expected = {
        "accuracy, %": 100 * np.mean([label == np.argmax(sums) for label in labels]),
        "normalized accuracy, %": 100 * np.mean([label == np.argmax(means) for label in labels]),
    }
    for model in scorers:
        assert run(model, "hellaswag", path)[1] == expected


WIKI = ' \n = The cat = \n \n The M @-@ 82 sat on 1 @,@ 500 mats , " the " dog \'s log ( and a mat ) . \n'
PLAIN = '\n= The cat =\n\nThe M-82 sat on 1,500 mats, "the" dog\'s log (and a mat).\n'


def test_wikitext_is_detokenized_but_its_published_words_are_counted(scorers, reference, tmp_path):
    member = tasks.TASKS["wikitext2"].member
    path = tmp_path / "wikitext-2-raw-v1.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("wikitext-2-raw/wiki.train.raw", "not this")
        archive.writestr(member, WIKI)
    for model in scorers:
        protocol = protocol_of(32, model.encoder)
        ids = model.encoder.encode(PLAIN)
        nats = -sum(reference.logprobs(ids, protocol))
        result, numbers = run(model, "wikitext2", path)
        np.testing.assert_allclose(numbers["perplexity per token"], np.exp(nats / len(ids)), **CLOSE)
        np.testing.assert_allclose(numbers["perplexity per word"], np.exp(nats / len(WIKI.split())), **CLOSE)
        words = len(WIKI.split()) + WIKI.count("\n")
        np.testing.assert_allclose(numbers["perplexity per word or line end"], np.exp(nats / words), **CLOSE)
        assert result.counts["words"] == len(WIKI.split()) and str(protocol) in result.protocol
        assert run(model, "wikitext103", path)[1] == numbers
        raw = run(model, "wikitext-as-it-is", path)[0]
        assert raw.counts["tokens"] == len(model.encoder.encode(WIKI))


@pytest.mark.parametrize("name", ["enwik8", "text8"])
def test_enwik8_and_text8_score_the_last_twentieth(scorer, reference, tmp_path, name):
    """The scored part starts with a whole character."""
    data = ("the cat ☃ " * 100).encode()
    end = data[len(data) - len(data) // 20 :]
    while end[0] & 0xC0 == 0x80:
        end = end[1:]
    path = tmp_path / f"{name}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, data)
    nats = -sum(reference.logprobs(scorer.encoder.encode(end.decode()), protocol_of(32, scorer.encoder)))
    _, numbers = run(scorer, name, path)
    np.testing.assert_allclose(numbers["bits per byte"], nats / np.log(2) / len(end), **CLOSE)
    np.testing.assert_allclose(numbers["bits per character"], nats / np.log(2) / len(end.decode()), **CLOSE)


def test_penn_treebank_is_detokenized(scorer, tmp_path):
    text = " the company 's <unk> did n't rise to $ N million \n the companies ' plans \n"
    path = tmp_path / "ptb.test.txt"
    path.write_text(text, encoding="utf-8")
    result, _ = run(scorer, "ptb", path)
    plain = "the company's <unk> didn't rise to $N million\nthe companies' plans\n"
    assert detokenize.detokenize(text, detokenize.PTB) == plain
    assert result.counts["tokens"] == len(scorer.encoder.encode(plain)) and result.counts["words"] == len(text.split())


@pytest.mark.parametrize("rules", ["WIKITEXT", "PTB", "CBT"])
@pytest.mark.parametrize("text", [WIKI, cbt_file(["cat"]).decode(), " a ( b ) ' c ' \" d \" ; e 's \n x @.@ y ? \n"])
def test_detokenizers_do_not_change_words(rules, text):
    def words(text):
        for mark, plain in (("-LRB-", "("), ("-RRB-", ")"), ("``", '"'), ("''", '"'), ("`", "'")):
            text = text.replace(mark, plain)
        return "".join(text.replace("@", "").split())

    assert words(detokenize.detokenize(text, getattr(detokenize, rules))) == words(text)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("lambada", b'{"text": "a b"}\n{"txt": 1}\n', "line 2 should be an object with text"),
        ("lambada", b"\xff\n", "line 1 is not JSON"),
        ("hellaswag", b'{"ctx": "a", "endings": ["b"], "label": 1}\n', "line 1: its label should be the index of one"),
        ("lambada", b'{"text": "a"}\n{"text": " "}\n', "it contains a passage without words"),
        ("hellaswag", b"[1]\n", "line 1 should be an object with ctx, endings, label"),
        ("cbt-cn", cbt_file(["cat"])[:-200], "its last question has 14 lines instead of 21"),
        ("cbt-cn", cbt_file(["zebra"]), "line 21 should be a sentence with XXXXX, its answer"),
        ("wikitext2", b"\xff\xfe", "it is not UTF-8 at byte 0"),
    ],
)
def test_damaged_data_is_rejected(scorer, tmp_path, name, content, message):
    path = tmp_path / "data"
    path.write_bytes(content)
    with pytest.raises(GPT2Error, match=message):
        run(scorer, name, path)


def test_empty_data_gives_nan(scorer, tmp_path):
    path = tmp_path / "empty"
    path.write_bytes(b"")
    for name in tasks.TASKS:
        assert all(np.isnan(value) for value in run(scorer, name, path)[1].values()), name


def test_selecting_tasks():
    assert [task.name for task in tasks.select_tasks("lambada, hellaswag")] == ["lambada", "hellaswag"]
    assert len(tasks.select_tasks("all")) == len(tasks.TASKS)
    with pytest.raises(UsageError, match="there is no task 'lambda'; the tasks are lambada, lambada-word, cbt-cn"):
        tasks.select_tasks("lambda")
    assert {cbt.QUESTIONS, hellaswag.QUESTIONS} == {2500, 10042} and len(lambada.TASKS) == 2


def test_reports_include_the_papers_values_for_released_sizes(scorer, tmp_path):
    assert paper.released_size(RELEASED_MODELS["124M"]) == "124M" and paper.released_size(scorer.hparams) is None
    assert (
        paper.published_value("355M", paper.WIKITEXT103) == 26.37
        and paper.published_value("124M", paper.LAMBADA_ACC) == 45.99
    )
    assert paper.published_value(None, paper.PTB) is paper.published_value("124M", "") is None
    path = write_json_lines(tmp_path / "data", [{"text": "the cat"}])
    result, numbers = run(scorer, "lambada", path)
    lines = list(report.as_table(result, "124M"))
    assert (
        lines[0] == "lambada" and "the paper, LAMBADA (PPL): 35.13" in lines[1] and lines[-1].endswith(result.protocol)
    )
    item = json.loads(report.as_json(result, "models/x", "124M"))
    assert item["numbers"] == numbers and item["paper"]["accuracy, %"] == 45.99 and item["counts"] == {"passages": 1}
    empty = result._replace(metrics=[result.metrics[0]._replace(value=float("nan"))])
    assert json.loads(report.as_json(empty, "x", None))["numbers"] == {"perplexity": None}
