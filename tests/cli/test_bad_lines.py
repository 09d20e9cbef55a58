"""Command lines with all kinds of mistakes: each gets one error line at once and leaves no files behind."""

import gzip
import importlib.util
import inspect
import io
import random
import shutil
import signal
import sys
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import pytest
import tiny

import generate_unconditional_samples
import interactive_conditional_samples
from gpt2 import generate
from gpt2.cli import command, sample_stream
from gpt2.cli.declarations import flags_of
from gpt2.errors import GPT2Error
from gpt2.formats import transfer
from gpt2.training import run
from gpt_2_simple import command as simple
from lm import command as lm

ROOT = Path(__file__).parents[2]
TIME_LIMIT = 60  # seconds; most lines take a thousandth of it
WORK_STARTED = "this line would start to work"


def start_work(*_, **__):
    raise GPT2Error(WORK_STARTED)


def loaded(name):
    spec = importlib.util.spec_from_file_location(Path(name).stem, ROOT / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, Path(name).stem if name != "encode.py" else "encode_text")


def gpt_2_simple(**_):
    """Stand for the command, which parses its line with argparse."""


gpt_2_simple.__signature__ = inspect.signature(simple.CommandFlags, eval_str=True)
COMMANDS = {
    "gpt_2_simple": gpt_2_simple,
    "unconditional": generate_unconditional_samples.sample_model,
    "interactive": interactive_conditional_samples.interact_model,
    "train": loaded("train.py"),
    "encode": loaded("encode.py"),
    "train_tokenizer": loaded("scripts/train_tokenizer.py"),
    "download": loaded("download_model.py"),
    "gpt_2": lm.train,
    "gpt_2_gen": lm.generate,
    "gpt_2_lambada": lm.evaluate_lambada,
    "convert": loaded("scripts/convert.py"),
}
FIRST_ARGUMENTS = {
    "train": [["text.txt", "--model_name=tiny"], ["table.csv", "--model_name=tiny"]],
    "encode": [["text.txt", "out.npy"], ["table.csv", "out.npy"], ["mixed", "out.npy"]],
    "train_tokenizer": [["text.txt", "vocabulary"], ["table.csv", "vocabulary"], ["hidden.txt", "vocabulary"]],
    "convert": [["tiny", "new", "gguf"], ["tiny", "new.gguf", "gguf", "q8_0"], ["tiny", "new", "huggingface"]],
    "gpt_2_simple": [["generate"], ["finetune", "text.txt", "--model_name=tiny"]],
    "gpt_2": [["run", "ids", "tiny"], ["models/tiny", "ids", "tiny", "--clean"]],
    "gpt_2_gen": [["tiny", "the cat"]],
    "gpt_2_lambada": [["tiny", "text.txt"]],
}
NUMBERS = ["", "0", "-1", "1", "2", "1.5", "1e9", "1e-300", "1000000000", "9" * 30, "9" * 5000, "nan", "inf", "-inf"]
NUMBERS += ["None", "True", "false", "0x10", "1_0", "١", " 3 ", "1,2", "[]", "{}"]
TEXTS = [
    "",
    " ",
    "None",
    "[]",
    "['a']",
    "['a', 5]",
    "[",
    "('",
    "a\nb",
    "\x1b[2J",
    "é日本",
    "\udcff",
    "a" * 5000,
    "-",
    "--",
    "-x",
]
PATHS = [".", "nosuch", "nosuch/deeper", "text.txt", "text.txt/x", "folder", "empty", "loop", "loop/x", "dead"]
PATHS += ["table.csv", "open.csv", "book.pdf", "rows.jsonl", "hidden.txt", "mixed"]
PATHS += ["~nosuchuser/x", "$NOSUCH/x", "tiny", "*", "[", "**/*.txt"]
DEVICES = ["/dev/null", "/dev/zero", "/dev/full", "/proc/self/mem", "/proc/self/fd"]
READ_ONLY = (
    "in_text",
    "dataset",
    "dataset_path",
    "sp_model_path",
    "model_path",
    "lambada_path",
    "val_dataset",
    "prompt_file",
    "model_name",
    "vocabulary",
    "restore_from",
)  # flags that are only read
NAMES = ["float32", "int8", "float64", "adam", "latest", "fresh", "utf-8", "utf-16", "base64", "idna", "tiny", "124M"]
MISSPELLED = ["flaot32", "int", "admw", "lates", "fres", "utf8x", "tinny", "125M", "tables", "gguff", "flase", "True "]
NAMES += ["text", "body", "column2"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory with a model, text and some traps."""
    place = tmp_path_factory.mktemp("place")
    tiny.write_model(place / "models" / "tiny")
    (place / "text.txt").write_text("the cat sat on the mat\n" * 40)
    (place / "folder").mkdir()
    (place / "folder" / "a.txt").write_text("the dog\n" * 40)
    (place / "empty").mkdir()
    (place / "table.csv").write_text("id,body\n" + "1,the cat sat\n" * 40)
    (place / "open.csv").write_text('id,text\n1,"the cat\n')
    (place / "book.pdf").write_text("the cat\n")
    (place / "rows.jsonl").write_text('{"text": "the cat"}\n')
    (place / "hidden.txt").write_bytes(gzip.compress(b"the cat"))
    (place / "mixed").mkdir()
    (place / "mixed" / "a.txt").write_text("the dog\n" * 40)
    (place / "mixed" / "b.bin").write_bytes(bytes(range(256)) * 4)
    (place / "ids").mkdir()
    for split in ("train", "valid"):
        np.save(place / "ids" / f"{split}.npy", np.zeros(500, np.uint16))
    (place / "loop").symlink_to("loop")
    (place / "dead").symlink_to("nosuch")
    return place


@pytest.fixture
def workplace(place, monkeypatch):
    """The working directory; an error replaces the parts of the commands that take long."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(sample_stream.SampleStream, "load", start_work)
    monkeypatch.setattr(run, "_start_tensorflow", start_work)
    monkeypatch.setattr(generate, "load_weights", start_work)
    monkeypatch.setattr(transfer, "fetch", start_work)
    monkeypatch.setattr(simple, "start_tf_sess", start_work)
    return place


def misspell(rng, name):
    """Return a name with one mistake of the kinds that people make."""
    at = rng.randrange(len(name) - 1) if len(name) > 1 else 0
    return rng.choice(
        [
            name[:at] + name[at + 1 :],
            name[:at] + name[at] * 2 + name[at + 1 :],
            name[:at] + name[at : at + 2][::-1] + name[at + 2 :],
            name.replace("_", ""),
            name.upper(),
            name + "s",
        ]
    )


def random_value(rng, name, flag):
    if rng.random() < 0.7:  # a value of the right type
        if flag.parse in (int, float):
            return rng.choice(
                ["0", "1", "2", "3", "-1", "300", "1000000000", "9" * 30] + ["nan", "1e-300"] * (flag.parse is float)
            )
        if flag.parse is str:
            return rng.choice(PATHS + NAMES + (DEVICES if name in READ_ONLY else []))
    return rng.choice(
        rng.choice([NUMBERS, TEXTS, PATHS, NAMES, MISSPELLED, DEVICES if name in READ_ONLY else ["1", "2", "3"]])
    )


def random_line(rng, name):
    """Return a random command line, which is wrong in most cases."""
    function = COMMANDS[name]
    flags = flags_of(function)
    parameters = list(flags)
    line = []
    if rng.random() < 0.7:
        line += rng.choice(FIRST_ARGUMENTS.get(name, [["tiny"]]))
    for _ in range(rng.randrange(4)):
        flag = rng.choice(parameters)
        value = random_value(rng, flag, flags[flag])
        line += rng.choice(
            [[f"--{flag}={value}"], [f"--{flag}", value], [f"--{flag.replace('_', '-')}", value], [f"--{flag}"]]
        )
    if rng.random() < 0.2:
        flag = misspell(rng, rng.choice(parameters))
        line += rng.choice([[f"--{flag}", "1"], [f"--{flag}=1"], [f"-{flag}=1"], [flag]])
    if rng.random() < 0.2:
        line.insert(
            rng.randrange(len(line) + 1), rng.choice([*TEXTS, *NUMBERS, "--bogus", "--bogus=1", "-s", "--seed"])
        )
    return line


def list_files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def run_and_check(name, line, monkeypatch, capsys, place):
    """Run a line, check the answer, and return its error line."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    before = list_files(place)
    signal.alarm(TIME_LIMIT)  # ends a process that hangs
    function = COMMANDS[name]
    status = simple.cmd(argv=line) if function is gpt_2_simple else command.main(function, line)
    signal.alarm(0)
    out, err = capsys.readouterr()
    shown = f"{name} {line!r} gave {status}: {err[-300:]!r}"
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status in (0, 1, 2), shown
    assert len(errors) == (status != 0), shown
    assert "Traceback" not in err and command.DEBUG_VARIABLE not in err, shown
    assert not status or err.splitlines()[-1] == errors[0], shown
    assert not any(len(error) > 12_000 for error in errors), shown
    new = [path for path in list_files(place) if path not in before]
    assert not (status and new) or WORK_STARTED in err, f"{shown} and left {new}"
    assert out == "" or status < 2, shown
    for path in new:
        remove(place / path)
    return errors[0] if errors else ""


def try_lines(count, seed, workplace, monkeypatch, capsys):
    rng = random.Random(seed)
    errors_seen = set()
    for _ in range(count):
        name = rng.choice(list(COMMANDS))
        errors_seen.add(run_and_check(name, random_line(rng, name), monkeypatch, capsys, workplace)[:30])
    return errors_seen


@pytest.mark.parametrize("name", ["gpt_2", "gpt_2_gen", "gpt_2_lambada"])
def test_bad_lines_of_transformer_lm(workplace, monkeypatch, capsys, name):
    rng = random.Random(3)
    errors_seen = {run_and_check(name, random_line(rng, name), monkeypatch, capsys, workplace)[:30] for _ in range(200)}
    assert len(errors_seen) > 10


def test_bad_lines(workplace, monkeypatch, capsys):
    errors_seen = try_lines(300, 1, workplace, monkeypatch, capsys)
    assert len(errors_seen) > 60  # different errors


@pytest.mark.parametrize("name", COMMANDS)
def test_each_misspelled_flag_gets_a_suggestion(workplace, monkeypatch, capsys, name):
    rng = random.Random(name)
    flags = [*flags_of(COMMANDS[name])]
    line = FIRST_ARGUMENTS.get(name, [["tiny"]])[0]
    for flag in flags:
        typed = misspell(rng, flag)
        if len(flag) < 5 or typed in flags or any(other.startswith(typed) for other in flags):
            continue
        for dashes in ("--", "-") if flag[0] != "h" else ("--",):
            error = run_and_check(name, [*line, f"{dashes}{typed}=1"], monkeypatch, capsys, workplace)
            suggested = error.rpartition("did you mean --")[2].removesuffix("?")
            closest = max(SequenceMatcher(None, other, typed.lower()).ratio() for other in flags)
            assert suggested in flags and (
                suggested == flag or SequenceMatcher(None, suggested, typed.lower()).ratio() == closest
            ), error


@pytest.mark.slow
def test_thousands_of_bad_lines(workplace, monkeypatch, capsys):
    for seed in range(2, 12):
        try_lines(1000, seed, workplace, monkeypatch, capsys)
