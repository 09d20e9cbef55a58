"""Tasks on small files in each one's own format give what a direct computation gives."""

import io
import json
import tarfile
import zipfile

import numpy as np
import pytest

from gpt2.errors import GPT2Error, UsageError
from gpt2.evaluation import cbt, detokenize, hellaswag, lambada, paper, report, tasks
from gpt2.evaluation.scores import protocol_of
from gpt2.evaluation.task import TaskSettings
from gpt2.formats.model_dir import RELEASED_MODELS

CLOSE = {"rtol": 1e-4}


def run(model, name, path, **settings):
    found = tasks.run_task(model, tasks.TASKS[name], path, TaskSettings(**settings))
    return found, {number.name: number.value for number in found.metrics}


def write_lines(path, objects):
    path.write_text("".join(json.dumps(one) + "\n" for one in objects), encoding="utf-8")
    return path


PASSAGES = [
    "the cat sat on “the mat”  the log",
    " the dog sat on the cat ",
    "x y",
    "the cat sat on the mat and the dog " * 4,
]


def test_lambada_in_both_readings(scorers, reference, tmp_path):
    path = write_lines(tmp_path / "lambada_test.jsonl", [{"text": text} for text in PASSAGES])
    encode = scorers[0].encoder.encode
    tokens = [encode("\n" + text.replace("“", '"').replace("”", '"').strip())[-33:] for text in PASSAGES]
    last = [reference.next_logprobs(ids[:-1]) for ids in tokens]
    words = []
    for text in PASSAGES:
        context, _, word = text.rpartition(" ")
        ids, ending = encode(context + " " + word)[-33:], encode(" " + word)
        words.append((ids[: -len(ending)], ending))
    for model in scorers:
        found, numbers = run(model, "lambada", path)
        own = [logprobs[ids[-1]] for logprobs, ids in zip(last, tokens)]
        hits = [logprobs.argmax() == ids[-1] for logprobs, ids in zip(last, tokens)]
        np.testing.assert_allclose(numbers["perplexity"], np.exp(-np.mean(own)), **CLOSE)
        assert numbers["accuracy, %"] == 100 * np.mean(hits) and found.counts == {"passages": 4}
        _, numbers = run(model, "lambada-word", path)
        sums = [reference.continuation_logprob(context, ending) for context, ending in words]
        np.testing.assert_allclose(numbers["perplexity"], np.exp(-np.mean(sums)), **CLOSE)


def test_a_hit_is_what_the_model_would_have_written(scorer, reference, tmp_path):
    """The likeliest last token, and a last word of likeliest tokens, count; other ones do not."""
    encoder = scorer.encoder
    likeliest = encoder.decode([int(reference.next_logprobs(encoder.encode("\nthe cat sat on")).argmax())])
    assert likeliest.strip() == likeliest and encoder.encode("\nthe cat sat on" + likeliest)[:-1] == encoder.encode(
        "\nthe cat sat on"
    )
    path = write_lines(tmp_path / "one.jsonl", [{"text": "the cat sat on" + likeliest}])
    assert run(scorer, "lambada", path)[1]["accuracy, %"] == 100
    path = write_lines(tmp_path / "two.jsonl", [{"text": "the cat sat onQ"}, {"text": "the cat sat on" + likeliest}])
    assert run(scorer, "lambada", path)[1]["accuracy, %"] == 50
    assert run(scorer, "lambada", path, limit=1)[1]["accuracy, %"] == 0


CANDIDATES = ["cat", "dog", "mat", "log", "catalogue", "sat", "on", "and", "Q", "the"]


def cbt_file(rights):
    """Questions as in CBTest/data/cbtest_CN_test_2500ex.txt."""
    lines = []
    for right in rights:
        lines += [f"{line} the cat {line} ." for line in range(1, 21)]
        lines += [f"21 `` the XXXXX did n't sit , '' said the dog .\t{right}\t\t{'|'.join(CANDIDATES)}", ""]
    return "\n".join(lines).encode() + b"\n"


def packed(path, member, data):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (("CBTest/README.txt", b"x"), (member, data)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def long_scorers(tmp_path, reference):
    """The tiny model with a window that a whole question fits into."""
    import tiny
    from reference_scorer import ReferenceScorer

    from gpt2 import generate
    from gpt2.engine.load import all_backends
    from gpt2.formats.model_dir import load_vocabulary, open_model_dir

    directory = open_model_dir(tiny.write_model(tmp_path / "long", n_ctx=256))
    weights = tiny.read_model(directory.path)
    vocabulary = load_vocabulary(directory)
    found = [generate.Model(vocabulary, one) for one in all_backends(weights, directory.hparams)]
    return found, ReferenceScorer(weights, directory.hparams)


@pytest.mark.parametrize("window", ["long", "short"])
def test_the_childrens_book_test(scorers, reference, long_scorers, tmp_path, window):
    models, direct = long_scorers if window == "long" else (scorers, reference)
    n_ctx, encode = models[0].hparams.n_ctx, models[0].encoder.encode
    before = " ".join(f"the cat {line}." for line in range(1, 21)) + ' "the '
    rows = [encode(f"{before}{one} didn't sit,\" said the dog.") for one in CANDIDATES]
    common = next(i for i in range(999) if len({row[i] for row in rows}) > 1)
    cut = max(0, max(map(len, rows)) - n_ctx - 1)
    sums = [direct.continuation_logprob(row[cut : max(common, cut + 1)], row[max(common, cut + 1) :]) for row in rows]
    best = CANDIDATES[int(np.argmax(sums))]
    other = CANDIDATES[int(np.argmin(sums))]
    member = tasks.TASKS["cbt-cn"].member
    path = packed(tmp_path / "CBTest.tgz", member, cbt_file([best, other, best]))
    for model in models:
        assert run(model, "cbt-cn", path, limit=1)[1] == {"accuracy, %": 100}
        assert run(model, "cbt-cn", path, limit=2)[1] == {"accuracy, %": 50}
    (tmp_path / "plain.txt").write_bytes(cbt_file([best, other]))
    assert run(models[0], "cbt-ne", tmp_path / "plain.txt")[1] == {"accuracy, %": 50}


def test_hellaswag_by_sum_and_by_mean(scorers, reference, tmp_path):
    """The right one of the first is the likeliest by all of its tokens, that of the second by one on average."""
    encode = scorers[0].encoder.encode
    context, endings = "the cat sat", ["on", "and the dog sat on the log", "Q q", "on the mat"]
    ids = [encode(" " + ending) for ending in endings]
    sums = [reference.continuation_logprob(encode(context), one) for one in ids]
    means = [total / len(one) for total, one in zip(sums, ids)]
    example = {"ind": 4, "activity_label": "x", "ctx_a": context, "ctx_b": "", "ctx": context, "endings": endings}
    labels = [int(np.argmax(sums)), int(np.argmax(means)), int(np.argmin(sums))]
    path = write_lines(tmp_path / "hellaswag_val.jsonl", [{**example, "label": label} for label in labels])
    expected = {
        "accuracy, %": 100 * np.mean([label == np.argmax(sums) for label in labels]),
        "normalized accuracy, %": 100 * np.mean([label == np.argmax(means) for label in labels]),
    }
    for model in scorers:
        assert run(model, "hellaswag", path)[1] == expected


WIKI = ' \n = The cat = \n \n The M @-@ 82 sat on 1 @,@ 500 mats , " the " dog \'s log ( and a mat ) . \n'
PLAIN = '\n= The cat =\n\nThe M-82 sat on 1,500 mats, "the" dog\'s log (and a mat).\n'


def test_wikitext_is_detokenized_and_divided_by_its_own_words(scorers, reference, tmp_path):
    member = tasks.TASKS["wikitext2"].member
    path = tmp_path / "wikitext-2-raw-v1.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("wikitext-2-raw/wiki.train.raw", "not this")
        archive.writestr(member, WIKI)
    for model in scorers:
        protocol = protocol_of(32, model.encoder)
        ids = model.encoder.encode(PLAIN)
        nats = -sum(reference.logprobs(ids, protocol))
        found, numbers = run(model, "wikitext2", path)
        np.testing.assert_allclose(numbers["perplexity per token"], np.exp(nats / len(ids)), **CLOSE)
        np.testing.assert_allclose(numbers["perplexity per word"], np.exp(nats / len(WIKI.split())), **CLOSE)
        words = len(WIKI.split()) + WIKI.count("\n")
        np.testing.assert_allclose(numbers["perplexity per word or line end"], np.exp(nats / words), **CLOSE)
        assert found.counts["words"] == len(WIKI.split()) and str(protocol) in found.protocol
        assert run(model, "wikitext103", path)[1] == numbers
        raw = run(model, "wikitext-as-it-is", path)[0]
        assert raw.counts["tokens"] == len(model.encoder.encode(WIKI))


@pytest.mark.parametrize("name", ["enwik8", "text8"])
def test_of_enwik8_and_text8_the_last_twentieth_is_scored(scorer, reference, tmp_path, name):
    """From a whole character on."""
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


def test_penn_treebank_as_people_write(scorer, tmp_path):
    text = " the company 's <unk> did n't rise to $ N million \n the companies ' plans \n"
    path = tmp_path / "ptb.test.txt"
    path.write_text(text, encoding="utf-8")
    found, numbers = run(scorer, "ptb", path)
    plain = "the company's <unk> didn't rise to $N million\nthe companies' plans\n"
    assert detokenize.detokenize(text, detokenize.PTB) == plain
    assert found.counts["tokens"] == len(scorer.encoder.encode(plain)) and found.counts["words"] == len(text.split())


@pytest.mark.parametrize("rules", ["WIKITEXT", "PTB", "CBT"])
@pytest.mark.parametrize("text", [WIKI, cbt_file(["cat"]).decode(), " a ( b ) ' c ' \" d \" ; e 's \n x @.@ y ? \n"])
def test_detokenizers_change_no_word(rules, text):
    def words(of):
        for marks, plain in (("-LRB-", "("), ("-RRB-", ")"), ("``", '"'), ("''", '"'), ("`", "'")):
            of = of.replace(marks, plain)
        return "".join(of.replace("@", "").split())

    assert words(detokenize.detokenize(text, getattr(detokenize, rules))) == words(text)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("lambada", b'{"text": "a b"}\n{"txt": 1}\n', "line 2 should be an object with text"),
        ("lambada", b"\xff\n", "line 1 is not JSON"),
        ("hellaswag", b'{"ctx": "a", "endings": ["b"], "label": 1}\n', "line 1: its label should be the number of one"),
        ("lambada", b'{"text": "a"}\n{"text": " "}\n', "it has a passage without a word"),
        ("hellaswag", b"[1]\n", "line 1 should be an object with ctx, endings, label"),
        ("cbt-cn", cbt_file(["cat"])[:-200], "its last question has 14 lines instead of 21"),
        ("cbt-cn", cbt_file(["zebra"]), "line 21 should be a sentence with XXXXX, its answer"),
        ("wikitext2", b"\xff\xfe", "it is not UTF-8 at byte 0"),
    ],
)
def test_data_that_are_not_what_they_should_be(scorer, tmp_path, name, content, message):
    path = tmp_path / "data"
    path.write_bytes(content)
    with pytest.raises(GPT2Error, match=message):
        run(scorer, name, path)


def test_empty_data_have_no_numbers(scorer, tmp_path):
    path = tmp_path / "empty"
    path.write_bytes(b"")
    for name in tasks.TASKS:
        assert all(np.isnan(value) for value in run(scorer, name, path)[1].values()), name


def test_names_of_tasks():
    assert [task.name for task in tasks.select_tasks("lambada, hellaswag")] == ["lambada", "hellaswag"]
    assert len(tasks.select_tasks("all")) == len(tasks.TASKS)
    with pytest.raises(UsageError, match="there is no task 'lambda'; the tasks are lambada, lambada-word, cbt-cn"):
        tasks.select_tasks("lambda")
    assert {cbt.QUESTIONS, hellaswag.QUESTIONS} == {2500, 10042} and len(lambada.TASKS) == 2


def test_the_papers_numbers_stand_beside_those_of_released_sizes(scorer, tmp_path):
    assert paper.released_size(RELEASED_MODELS["124M"]) == "124M" and paper.released_size(scorer.hparams) is None
    assert (
        paper.published_value("355M", paper.WIKITEXT103) == 26.37
        and paper.published_value("124M", paper.LAMBADA_ACC) == 45.99
    )
    assert paper.published_value(None, paper.PTB) is paper.published_value("124M", "") is None
    path = write_lines(tmp_path / "data", [{"text": "the cat"}])
    found, numbers = run(scorer, "lambada", path)
    lines = list(report.as_table(found, "124M"))
    assert (
        lines[0] == "lambada" and "the paper, LAMBADA (PPL): 35.13" in lines[1] and lines[-1].endswith(found.protocol)
    )
    one = json.loads(report.as_json(found, "models/x", "124M"))
    assert one["numbers"] == numbers and one["paper"]["accuracy, %"] == 45.99 and one["counts"] == {"passages": 1}
    empty = found._replace(metrics=[found.metrics[0]._replace(value=float("nan"))])
    assert json.loads(report.as_json(empty, "x", None))["numbers"] == {"perplexity": None}
