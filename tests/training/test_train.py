"""train.py: new, resumed and interrupted runs, and rejected input."""

import contextlib
import dataclasses
import errno
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tiny
from runs import COMMAND, QUICK, assert_same_weights, interrupt_after, losses, weights
from tiny import with_tensorflow

from gpt2 import files, generate
from gpt2.cli import command as cli
from gpt2.cli.declarations import flags_of
from gpt2.formats.model_dir import open_model_dir
from gpt2.formats.openai import checkpoint
from gpt2.formats.weights import flatten
from gpt2.training import estimate
from gpt2.training.checkpoints import run_checkpoint, run_folder, tensorflow_checkpoint
from gpt2.training.settings.settings import TrainingSettings
from train import train


def test_run_writes_a_model_directory_and_the_old_tools_lines(run):
    status, out, _ = run(stop_after=4, save_every=2, sample_every=4, sample_num=2, sample_length=5)
    assert status == 0
    lines = out.splitlines()
    for expected in ("Loading dataset...", "Training...", "Generating samples...", "Saving checkpoint/run1/model-4"):
        assert expected in lines
    assert len([line for line in lines if re.fullmatch(r"\[\d \| \d+\.\d\d\] loss=\d\.\d\d avg=\d\.\d\d", line)]) == 4
    samples = Path("samples/run1/samples-4").read_text(encoding="utf-8")
    assert re.fullmatch(r"======== SAMPLE 1 ========\n.+\n\n======== SAMPLE 2 ========\n.+\n", samples, re.DOTALL)
    assert out.count("======== SAMPLE 2 ========") == 1 and "======== SAMPLE 1 ========" not in out
    folder = Path("checkpoint/run1")
    assert (folder / "counter").read_text() == "4\n"
    assert {path.name for path in folder.glob("model-*.index")} == {"model-2.index", "model-4.index"}
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    model = generate.load("checkpoint/run1")
    assert model.hparams.n_ctx == 32
    assert losses()[4] < losses()[1]


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"optimizer": "adafactor", "dropout": 0.1, "noise": 0.1},
        {"optimizer": "adamw", "lr_schedule": "cosine", "warmup_steps": 2, "accumulate_gradients": 2, "clip_norm": 1},
    ],
)
def test_resumed_run_equals_an_uninterrupted_one(run, flags):
    assert run(run_name="whole", stop_after=6, **flags)[0] == 0
    # The schedule depends on the last step, so the run is interrupted instead of given another end.
    for end in (2, 4, 6):
        status, _, err = interrupt_after(end, lambda: run(run_name="parts", stop_after=6, **flags))
        assert status == cli.EXIT_INTERRUPTED, err
    assert losses("parts") == pytest.approx(losses("whole"), abs=1e-6)
    assert_same_weights(weights("parts"), weights("whole"))


@pytest.mark.parametrize("number, expected_status", [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_end(run, number, expected_status):
    status, out, err = interrupt_after(3, lambda: run(steps=100), number)
    assert status == expected_status and "Traceback" not in err
    assert out.endswith("interrupted\nSaving checkpoint/run1/model-3\n")
    assert open_model_dir(Path("checkpoint/run1")).weights_path.name == "model-3"


def test_steps_counts_more_updates_and_stop_after_all(run):
    run(steps=2)
    run(steps=2)
    assert list(losses()) == [1, 2, 3, 4]
    run(stop_after=5)
    assert list(losses()) == [1, 2, 3, 4, 5]
    status, _, err = run(stop_after=5)
    assert status == 0 and "has made 5 updates already" in err


def test_seed_is_stored_with_the_run(run):
    run(stop_after=2, seed=5)
    status = cli.main(
        train, ["text.txt", "--stop_after=4", "--sample_every=0", "--batch_size=2", "--learning_rate=0.01"]
    )
    assert status == 0
    run(stop_after=4, seed=5, run_name="whole")
    assert losses() == pytest.approx(losses("whole"), abs=1e-6)


def test_fresh_run_starts_over_and_loses_nothing(run):
    run(stop_after=3)
    before = weights()
    status, _, err = run(stop_after=2, restore_from="fresh")
    assert status == 0 and "is now" in err
    assert list(losses()) == [1, 2]
    old_run = next(path for path in Path("checkpoint").iterdir() if path.name.startswith("run1-until-"))
    assert_same_weights(weights(old_run.name), before)


def test_starting_from_another_checkpoint(run):
    run(stop_after=3, save_every=1)
    for source in ("checkpoint/run1", "checkpoint/run1/model-3", "checkpoint/run1/model-3.index"):
        assert run(run_name=f"from-{Path(source).name}", restore_from=source, steps=1)[0] == 0
    assert run(run_name="second", restore_from="checkpoint/run1/model-2", steps=1, learning_rate=1e-9)[0] == 0
    step_2 = tiny.read(Path("checkpoint/run1/model-2"), open_model_dir(Path("checkpoint/run1")).hparams)
    assert_same_weights(weights("second"), dict(flatten(step_2)))
    status, _, err = run(restore_from="nowhere")
    assert status == 1 and "there is no checkpoint at nowhere" in err


def test_run_of_the_old_train_py_is_resumed(run, tiny_dir):
    """Its folder has only weights, counter and state file; the other files come from the base model."""
    loaded = with_tensorflow(tiny_dir)
    folder = Path("checkpoint/run1")
    tensorflow_checkpoint.save(folder, loaded.backend.weights, "model-7", texts={"counter": "7\n"})
    status, _, err = run(steps=1)
    assert status == 0 and "the optimizer adam starts without a state" in err
    assert list(losses()) == [8]
    assert open_model_dir(folder).weights_path.name == "model-8"


def test_from_scratch_with_its_own_vocabulary(run):
    sizes = {"n_vocab": 280, "n_ctx": 16, "n_embd": 16, "n_head": 2, "n_layer": 1}
    flags = {"from_scratch": "True", "val_every": 20, "val_split": 0.2, **sizes}
    status, out, _ = run(stop_after=40, **flags)
    assert status == 0 and "bits per byte" in out
    assert losses()[40] < 0.7 * losses()[1]
    assert generate.load("checkpoint/run1").hparams.n_embd == 16
    assert run(stop_after=41, **flags)[0] == 0
    status, _, err = run(stop_after=42, **{**flags, "n_embd": 32})
    assert status == 2 and "n_embd 16" in err and err.count("\n") == 1


def test_from_scratch_again_after_a_kill_before_the_first_checkpoint(run, monkeypatch):
    flags = {"from_scratch": "True", "n_vocab": 280, "n_ctx": 16, "n_embd": 16, "n_head": 2, "n_layer": 1}
    with monkeypatch.context() as patch:
        patch.setattr(run_checkpoint, "save", full_disk)
        assert run(stop_after=1, **flags)[0] == 1
    assert Path("checkpoint/run1/hparams.json").is_file() and not Path("checkpoint/run1/checkpoint").exists()
    status, _, err = run(stop_after=1, **flags)
    assert status == 0, err


def test_only_the_transformer_layers(run, tiny_dir):
    run(stop_after=2, only_train_transformer_layers="True")
    before = dict(flatten(tiny.read_model(tiny_dir)))
    for name, value in weights().items():
        assert bool(tf.reduce_all(value == before[name])) == ("/h" not in name), name


def test_early_stopping_keeps_the_best(run):
    Path("other.txt").write_text("zebra quartz vex!? " * 30)
    status, out, _ = run(stop_after=500, val_dataset="other.txt", val_every=1, patience=3, learning_rate=0.03)
    assert status == 0 and "no better validation loss in 3 validations" in out
    progress = run_folder.read_progress(open_model_dir(Path("checkpoint/run1")).weights_path)
    assert progress.step == progress.best_step + 3 < 500
    assert open_model_dir(Path("checkpoint/run1/best")).weights_path.name == f"model-{progress.best_step}"


def test_initial_model_competes_for_the_best(run):
    status, out, err = run(stop_after=9, val_every=1, patience=2, learning_rate=1000, optimizer="sgd")
    assert status == 0 and re.search(r"the best, \d+\.\d+ after 0 updates, is the initial model\n", out)
    assert not (Path("checkpoint/run1/best") / "checkpoint").exists()
    assert re.search(r"\nthe first update takes longer.*; Ctrl-C saves and ends after the current update\n", err)


def test_validation_text_is_not_trained_on(run):
    _, out, _ = run(stop_after=1, val_every=1, val_split=0.25)
    _, whole, _ = run(stop_after=1, run_name="whole")
    tokens, all_tokens = (int(re.search(r"dataset has (\d+) tokens", text)[1]) for text in (out, whole))
    assert tokens == all_tokens - int(all_tokens * 0.25)


def test_keep(run):
    run(stop_after=6, save_every=1, keep=2)
    names = {path.name for path in Path("checkpoint/run1").iterdir()}
    assert {name for name in names if name.startswith("model-")} == {
        f"model-{n}.{end}" for n in (5, 6) for end in ("index", "data-00000-of-00001")
    }
    assert {name for name in names if name.startswith("training-")} == {
        f"training-6.{end}" for end in ("index", "data-00000-of-00001", "json")
    }


def test_event_file_has_tensorboards_format(run):
    run(stop_after=2, sample_every=2, sample_length=3, val_every=2)
    [path] = Path("checkpoint/run1").glob("events.out.tfevents.*")
    events = [tf.compat.v1.Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
    tags = {(event.step, value.tag) for event in events for value in event.summary.value}
    assert {(1, "loss"), (2, "loss"), (2, "learning_rate"), (2, "val_loss"), (2, "sample")} <= tags
    assert events[0].file_version == "brain.Event:2"


def test_the_flags_and_defaults_are_nshepperds():
    original = """combine=50000 encoding=utf-8 batch_size=1 accumulate_gradients=1 memory_saving_gradients=False
        only_train_transformer_layers=False optimizer=adam noise=0.0 top_k=40 top_p=0.0 restore_from=latest
        run_name=run1 sample_every=100 sample_num=1 save_every=1000 val_dataset=None val_batch_size=2
        val_batch_count=40 val_every=0
        stop_after=None"""
    defaults = {field.name: field.default for field in dataclasses.fields(TrainingSettings)}
    assert {name: str(defaults[name]) for name in (pair.split("=")[0] for pair in original.split())} == dict(
        pair.split("=") for pair in original.split()
    )
    assert set(defaults) <= set(flags_of(TrainingSettings))


def test_help_names_every_flag(capsys):
    assert cli.main(train, ["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  --{field.name}" in out for field in dataclasses.fields(TrainingSettings))


def test_the_learning_rate():
    settings = TrainingSettings("x", learning_rate=1.0, warmup_steps=4, lr_schedule="linear", stop_after=14)
    assert [settings.learning_rate_at(step, 14) for step in (1, 4, 5, 10, 14)] == [0.25, 1, 1, 0.5, pytest.approx(0.1)]
    assert TrainingSettings("x").learning_rate_at(1, None) == 0.00002  # as in nshepperd's train.py
    cosine = TrainingSettings("x", learning_rate=1.0, lr_schedule="cosine", stop_after=10)
    assert [cosine.learning_rate_at(step, 10) for step in (1, 6)] == [1, pytest.approx(0.5)]


@pytest.mark.parametrize(
    "flags, expected_status, message",
    [
        ({"optimizer": "adm"}, 2, "optimizer must be adam, adamw, sgd or adafactor, not 'adm'"),
        ({"precision": "int8"}, 2, "precision must be float32 or bfloat16"),
        ({"steps": 1, "stop_after": 1}, 2, "not both"),
        ({"lr_schedule": "cosine"}, 2, "needs an end"),
        ({"patience": 2}, 2, "give val_every as well"),
        ({"batch_size": 0}, 2, "batch_size must be"),
        ({"noise": 1.5}, 2, "noise must be"),
        ({"learning_rate": 0}, 2, "learning_rate must be above 0"),
        ({"run_name": "a/b"}, 2, "run_name must be the name of a folder"),
        ({"encoding": "utf-9"}, 2, "utf-9"),
        ({"dataset": "missing.txt"}, 1, "missing.txt"),
        ({"dataset": "empty.txt"}, 1, "empty.txt holds no text"),
        ({"dataset": "short.txt"}, 1, "but one window needs 33"),
        ({"val_every": 1, "val_split": 0.01}, 1, "val_split holds out"),
        ({"from_scratch": "True", "n_embd": 10, "n_head": 3}, 1, "n_embd (10) must be a multiple of n_head (3)"),
        ({"model_name": "125M"}, 1, "download"),
    ],
)
def test_bad_input_gives_one_line_and_leaves_nothing(run, flags, expected_status, message):
    Path("empty.txt").write_text("")
    Path("short.txt").write_text("the cat")
    status, _, err = run(**flags)
    assert (status, err.count("\n")) == (expected_status, 1), err
    assert message in err
    assert not Path("checkpoint").exists()


def test_ids_of_another_vocabulary_are_rejected(run, vocabulary):
    from encode import encode_text

    assert cli.main(encode_text, ["text.txt", "data.npy", f"--model_name={vocabulary}"]) == 0
    status, _, err = run(dataset="data.npy")
    assert status == 1 and "vocabulary" in err


def test_checkpoint_of_another_shape(run):
    run(stop_after=1)
    hparams = Path("checkpoint/run1/hparams.json")
    hparams.write_text(hparams.read_text().replace('"n_ctx": 32', '"n_ctx": 16'))
    status, _, err = run(stop_after=2)
    assert status == 1 and "model/wpe has the shape [32, 32]" in err and err.count("\n") == 1


def test_nan_loss_keeps_the_last_checkpoint(run):
    run(stop_after=2)
    before = weights()
    status, _, err = run(stop_after=50, learning_rate=1e30)
    assert status == 1 and re.search(r"error: .*(nan|inf|not finite).*the last checkpoint is unchanged", err)
    assert_same_weights(weights(), before)
    assert run(stop_after=3)[0] == 0


def test_token_file_truncated_during_a_run_keeps_the_last_checkpoint(run, tiny_dir, monkeypatch):
    from encode import encode_text

    assert cli.main(encode_text, ["text.txt", "data.npy", f"--model_name={tiny_dir}"]) == 0
    save = run_checkpoint.save
    monkeypatch.setattr(run_checkpoint, "save", lambda *given: (save(*given), os.truncate("data.npy", 128)))
    status, _, err = run(dataset="data.npy", stop_after=50, save_every=2)
    assert status == 1 and err.count("error: data.npy was cut off while it was in use; encode its text again") == 1
    assert open_model_dir(Path("checkpoint/run1")).weights_path.name == "model-2"


MOVE_INTO_PLACE = files.move_into_place


def full_for_weights(part, path):
    full_disk() if path.suffix == ".index" else MOVE_INTO_PLACE(part, path)


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_at_the_end_keeps_the_previous_checkpoint(run, monkeypatch):
    run(stop_after=2)
    before = weights()
    with monkeypatch.context() as patch:
        patch.setattr(files, "move_into_place", full_for_weights)
        status, _, err = run(stop_after=4)
    assert status == 1 and "could not be written" in err and "No space left" in err and err.count("error:") == 1
    assert_same_weights(weights(), before)
    assert not list(Path("checkpoint/run1").glob(".saving-*"))
    assert run(stop_after=4)[0] == 0


def test_full_disk_during_a_run_does_not_end_it(run, monkeypatch):
    calls = []

    def full_once(part, path):
        if path.suffix == ".index" and not calls:
            calls.append(path)
            full_disk()
        MOVE_INTO_PLACE(part, path)

    monkeypatch.setattr(files, "move_into_place", full_once)
    status, out, _ = run(stop_after=4, save_every=2)
    assert status == 0 and "the run continues" in out
    assert open_model_dir(Path("checkpoint/run1")).weights_path.name == "model-4"


@contextlib.contextmanager
def never_cleaned(**arguments):
    yield tempfile.mkdtemp(**arguments)


@pytest.mark.parametrize("n_files", range(7))
def test_crash_at_any_moment_of_a_save_leaves_a_checkpoint(run, monkeypatch, n_files):
    """A save moves seven files into place, the state file last; it crashes after `n_files` of them."""
    run(stop_after=2)
    whole, replace, moved = weights(), os.replace, []

    def crash(source, target):
        if len(moved) == n_files:
            raise SystemError("the machine is gone")
        if ".saving-" in str(source):
            moved.append(target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        patch.setattr(files.tempfile, "TemporaryDirectory", never_cleaned)
        run(stop_after=4)
    assert len(moved) == n_files
    assert_same_weights(weights(), whole)
    assert run(stop_after=4)[0] == 0
    assert list(losses()) == [1, 2, 3, 4]
    assert not list(Path("checkpoint/run1").glob(".saving-*"))


def run_and_kill(step, flags):
    """Run the command as a process and kill it once it has made `step` updates."""
    progress = Path("checkpoint/parts/progress.jsonl")
    command = [sys.executable, str(COMMAND), *flags]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None:
            if progress.is_file() and progress.read_text().count("\n") >= step:
                time.sleep(random.uniform(0, 0.05))
                process.kill()
            time.sleep(0.002)
        assert process.returncode in (0, -signal.SIGKILL), process.stderr.read().decode()


@pytest.mark.parametrize("kills, updates", [(1, 20), pytest.param(20, 60, marks=pytest.mark.slow)])
def test_killed_at_random_steps(run, tiny_dir, kills, updates):
    """The run saves after every update, so that some kills hit a save."""
    assert run(run_name="whole", stop_after=updates)[0] == 0
    flags = [f"--{name}={value}" for name, value in QUICK.items()]
    flags += ["text.txt", f"--model_name={tiny_dir}", "--run_name=parts", f"--stop_after={updates}", "--save_every=1"]
    done = 0
    for kill in range(kills):
        last = min(updates - 1, done + 1 + 2 * (updates - done) // (kills - kill))
        run_and_kill(random.randint(done + 1, last), flags)
        if Path("checkpoint/parts/checkpoint").is_file():
            directory = open_model_dir(Path("checkpoint/parts"))
            tiny.read(directory.weights_path, directory.hparams)
            done = run_folder.read_progress(directory.weights_path).step
    assert run(run_name="parts", stop_after=updates)[0] == 0
    assert losses("parts")[updates] == pytest.approx(losses("whole")[updates], abs=1e-4)
    assert_same_weights(weights("parts"), weights("whole"), 1e-4)


def test_old_tools_saver_reads_a_run(run):
    run(stop_after=3)
    prefix = tf.train.latest_checkpoint("checkpoint/run1")
    assert prefix == "checkpoint/run1/model-3"
    hparams = open_model_dir(Path("checkpoint/run1")).hparams
    expected = dict(tensorflow_checkpoint.to_file_shapes(tiny.read(Path(prefix), hparams)))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        shapes = checkpoint.variable_shapes(hparams)
        variables = {name: tf.compat.v1.get_variable(name, shape) for name, shape in shapes.items()}
        tf.compat.v1.train.Saver(var_list=list(variables.values())).restore(session, prefix)
        for name, value in session.run(variables).items():
            np.testing.assert_array_equal(value, expected[name])


def test_scarce_memory_and_disk_space_are_reported_before_the_start(run, monkeypatch):
    monkeypatch.setattr(estimate.devices, "available_memory", lambda: 1e8)
    assert "warning: training will need about" in run(stop_after=1)[2]
    usage = estimate.shutil.disk_usage(".")
    monkeypatch.setattr(estimate.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    status, _, err = run(stop_after=1, run_name="other")
    assert status == 1 and "two checkpoints need" in err
    assert not Path("checkpoint/other").exists()


def test_optimizer_state_of_other_variables_is_rejected(run):
    run(stop_after=1)
    status, _, err = run(stop_after=2, only_train_transformer_layers="True")
    assert status == 1 and "holds the optimizer state of other variables" in err
    assert "adam" not in err and err.count("\n") == 1
    status, _, err = run(stop_after=2, optimizer="sgd")  # it has no state
    assert status == 0 and losses().keys() == {1, 2}
