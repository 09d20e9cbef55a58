"""The column and the header of .csv data sets: flags, drop-ins, and resumed runs."""

import json
from pathlib import Path

import pytest

from gpt2.data import dataset
from gpt2.errors import UsageError
from gpt2.training import run as training_run
from gpt2.training.settings import run_settings
from gpt2.training.settings.settings import TrainingSettings

ROWS = "id,body\n" + "".join(f"{number},the cat sat on the mat\n" for number in range(60))


@pytest.fixture
def stored_run(working_dir):
    """Return a function that makes the folder of a run with these settings, as far as its settings are concerned."""
    Path("rows.csv").write_text(ROWS)

    def make(**settings):
        run_settings.write_settings(TrainingSettings("rows.csv", **settings), None, 1)
        Path("checkpoint/run1/checkpoint").touch()

    return make


def resumed(**given):
    return run_settings.combine_settings(given)


@pytest.mark.parametrize("settings", [{"column": "body"}, {"no_header": True, "column": "column2"}])
def test_a_resumed_run_keeps_the_choice(stored_run, settings):
    stored_run(**settings)
    assert resumed().csv_format == TrainingSettings("rows.csv", **settings).csv_format
    assert resumed(dataset="rows.csv", batch_size=2).csv_format == resumed().csv_format


def test_a_given_choice_replaces_the_stored_one(stored_run):
    stored_run(column="body", no_header=True)
    assert resumed(csv_header=True).csv_format == TrainingSettings("a", column="body").csv_format
    assert resumed(csv_first_column=True).column is None
    stored_run(csv_first_column=True)
    assert resumed(column="body").csv_format == TrainingSettings("a", column="body").csv_format


@pytest.mark.parametrize("csv_header", [False, True])
def test_a_run_of_an_older_version_keeps_its_first_column(stored_run, csv_header):
    stored_run(csv_header=csv_header)
    path = Path("checkpoint/run1/settings.json")
    content = json.loads(path.read_text())
    for name in ("column", "no_header", "csv_first_column"):
        del content["settings"][name]
    path.write_text(json.dumps(content))
    assert resumed().csv_format == (csv_header, None, "", True)
    assert resumed(dataset="rows.csv").csv_format == (csv_header, None, "", True)
    assert resumed(column="body").csv_format == (True, "body", "", False)
    assert run_settings.describe_changes(resumed(seed=1), 1) == ""


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"column": "a", "csv_first_column": True}, "give csv_first_column or column, not both"),
        ({"no_header": True, "csv_header": True}, "give csv_header or no_header, not both"),
        ({"column": "a"}, "column has no effect: there is no .csv or .tsv in text.txt"),
        ({"no_header": True}, "no_header has no effect: there is no .csv or .tsv in text.txt"),
    ],
)
def test_flags_that_contradict_each_other(working_dir, flags, message):
    with pytest.raises(UsageError, match=message):
        run_settings.combine_settings({"dataset": "text.txt", **flags})
    if "not both" in message:
        with pytest.raises(UsageError, match=message):
            TrainingSettings("text.txt", **flags)


@pytest.mark.parametrize(
    "flags, message",
    [
        (
            {"dataset": "rows.csv"},
            "rows.csv has 2 columns, and none is named 'text'; choose one with --column: id, body",
        ),
        (
            {"dataset": "rows.csv", "column": "text"},
            "rows.csv has no column 'text'; choose one with --column: id, body",
        ),
        ({"val_dataset": "rows.csv", "val_every": 1}, "rows.csv has 2 columns, and none is named 'text'"),
        ({"val_dataset": "a.jsonl", "val_every": 1}, "a.jsonl is JSON, not plain text"),
        ({"dataset": "mixed"}, "mixed/b.bin is binary data, not plain text"),
        ({"dataset": "mixed", "from_scratch": True}, "mixed/b.bin is binary data, not plain text"),
        ({"dataset": "open.csv"}, "open.csv cannot be read: line 1: a quotation mark is not closed"),
    ],
)
def test_bad_data_is_reported_before_any_work(run, monkeypatch, flags, message):
    """No data are loaded, TensorFlow does not start, and no folder is written."""
    Path("rows.csv").write_text(ROWS)
    Path("open.csv").write_text('"text\na\n')
    Path("a.jsonl").write_text('{"text": "a"}\n')
    Path("mixed").mkdir()
    Path("mixed/a.txt").write_text("text")
    Path("mixed/b.bin").write_bytes(bytes(range(256)) * 9)
    for module, name in ((dataset, "load"), (training_run, "_start_tensorflow"), (training_run, "find_starting_point")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("work has started"))
    status, out, err = run(**flags)
    assert status in (1, 2) and out == ""
    assert err.startswith(f"error: {message}") and err.count("\n") == 1
    assert not Path("checkpoint/run1/settings.json").exists()


def test_the_chosen_column_is_learned(run, tiny_dir, monkeypatch):
    Path("rows.csv").write_text(ROWS)
    loaded = []
    load = dataset.load

    def record(*arguments):
        loaded.append(load(*arguments))
        raise UsageError("enough")

    monkeypatch.setattr(dataset, "load", record)
    run(dataset="rows.csv", column="body")
    Path("rows.txt").write_text("the cat sat on the mat")
    run(dataset="rows.txt")
    assert loaded[0].tolist() == [*loaded[1].tolist()[:-1]] * 60 + [loaded[1][-1]]
