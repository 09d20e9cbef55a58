"""The functions of gpt-2-simple: their signatures, and what they do."""

import inspect
import json
import shutil
import signal
import subprocess
import sys
import tarfile
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tiny
from file_server import serve

import gpt_2_simple as gpt2
from gpt2 import model
from gpt2.errors import GPT2Error, UsageError
from gpt2.formats import download, model_dir
from gpt2.formats.weights import flatten, nest
from gpt2.training.checkpoints import tensorflow_checkpoint
from gpt2.training.logs.training_log import TrainingLog
from gpt_2_simple import drive, generating

ROOT = Path(__file__).resolve().parents[2]
OLD_SIGNATURES = json.loads((ROOT / "tests/golden/gpt_2_simple.json").read_text(encoding="utf-8"))
TEXT = "the cat sat on the mat and the dog sat on the log\n" * 40
QUICK = {"steps": 2, "accumulate_gradients": 2, "sample_every": 0, "learning_rate": 0.01, "seed": 1}
GREEDY = {"temperature": 0, "length": 8, "return_as_list": True}


@pytest.fixture
def workdir(tmp_path, monkeypatch, tiny_dir):
    """A working directory with a text and two pretrained models: the tiny one, and one with its weights negated."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    for name in ("124M", "other"):
        shutil.copytree(tiny_dir, Path("models", name))
    tensorflow_checkpoint.save(Path("models/other"), nest(_negated(Path("models/other"))))
    return tmp_path


def _negated(directory):
    for name, value in flatten(tiny.read_model(directory)):
        yield name, -value


@pytest.fixture
def sess(workdir):
    return gpt2.start_tf_sess()


@pytest.fixture
def trained(sess):
    gpt2.finetune(sess, "text.txt", **QUICK)
    return sess


@pytest.mark.parametrize("name", OLD_SIGNATURES)
def test_signatures_start_with_the_old_parameters(name):
    parameters = list(inspect.signature(getattr(gpt2, name)).parameters.values())
    for parameter, (old_name, *old_default) in zip(parameters, OLD_SIGNATURES[name], strict=False):
        assert parameter.name == old_name and parameter.kind == parameter.POSITIONAL_OR_KEYWORD
        if old_default:
            assert parameter.default == old_default[0]
        else:
            assert parameter.default is parameter.empty
    added = parameters[len(OLD_SIGNATURES[name]) :]
    assert len(parameters) >= len(OLD_SIGNATURES[name])
    assert all(parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD) for parameter in added)


def test_the_examples_in_the_old_readme(workdir, capsys):
    sess = gpt2.start_tf_sess()
    gpt2.finetune(sess, "text.txt", model_name="124M", steps=2)
    gpt2.generate(sess, length=20)
    out = capsys.readouterr().out
    assert "Loading checkpoint models/124M/model.ckpt" in out and "Training...\n" in out and out.endswith("\n")
    assert "dataset has" in out and "[1 | " in out and "Saving checkpoint/run1/model-2\n" in out

    sess = gpt2.start_tf_sess()
    gpt2.load_gpt2(sess)
    assert capsys.readouterr().out == "Loading checkpoint checkpoint/run1/model-2\n"
    single_text = gpt2.generate(sess, return_as_list=True, length=20)[0]
    assert isinstance(single_text, str) and single_text and not capsys.readouterr().out


def test_both_ways_to_import_without_tensorflow(workdir):
    code = "from gpt_2_simple import gpt_2; import gpt_2_simple; assert gpt_2.finetune is gpt_2_simple.finetune"
    run = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; assert 'tensorflow' not in sys.modules"],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr


def test_greedy_text_equals_the_library_s(sess, tiny_model):
    gpt2.load_gpt2(sess, model_name="124M")
    ids = tiny_model.encoder.encode("the cat")
    for _ in range(8):
        logits, _, _ = model.model(tiny_model.backend.weights, tiny_model.hparams, np.array([ids], np.int32))
        ids.append(int(logits[0, -1].numpy().argmax()))
    assert gpt2.generate(sess, prefix="the cat", **GREEDY) == [tiny_model.encoder.decode(ids)]


def test_texts_are_printed_written_and_returned(sess, capsys):
    gpt2.load_gpt2(sess, model_name="124M")
    capsys.readouterr()
    options = {"seed": 3, "length": 5, "nsamples": 3, "batch_size": 2, "prefix": "the cat"}
    texts = gpt2.generate(sess, return_as_list=True, **options)
    assert len(set(texts)) == 3 and all(text.startswith("the cat") for text in texts)
    assert gpt2.generate(sess, **options) is None
    expected = "".join(f"{text}\n{'=' * 20}\n" for text in texts)
    assert capsys.readouterr().out == expected
    assert gpt2.generate(sess, destination_path="out.txt", return_as_list=True, **options) == texts
    assert Path("out.txt").read_text(encoding="utf-8") == expected and not capsys.readouterr().out
    assert gpt2.generate_to_file(sess, **options, sample_delim="--\n") is None
    assert Path("gpt_2_gen_texts.txt").read_text() == expected.replace("=" * 20, "--")
    gpt2.generate(sess, **{**options, "nsamples": 1})
    assert capsys.readouterr().out == texts[0] + "\n"  # a single text has no delimiter


def test_prefix_and_truncate(sess, monkeypatch):
    gpt2.load_gpt2(sess, model_name="124M")
    requests = []
    real_request = generating.Request

    def record_request(*arguments):
        requests.append(real_request(*arguments))
        return requests[-1]

    monkeypatch.setattr(generating, "Request", record_request)
    (text,) = gpt2.generate(sess, prefix="the cat", **GREEDY)
    new = text.removeprefix("the cat")
    assert gpt2.generate(sess, prefix="the cat", include_prefix=False, **GREEDY) == [new.lstrip("\n")]
    end = new[2:4]
    new_before_end = new[: new.index(end)]
    assert gpt2.generate(sess, prefix="the cat", truncate=end, **GREEDY) == ["the cat" + new_before_end]
    assert gpt2.generate(sess, prefix="the cat", truncate=end, include_prefix=False, **GREEDY) == [new_before_end]
    assert gpt2.generate(sess, prefix="the cat", truncate="e c", **GREEDY) == ["th"]
    across = "t" + new[:1]  # starts in the prefix and ends in the new text
    assert gpt2.generate(sess, prefix="the cat", truncate=across, **GREEDY) == ["the ca"]
    assert gpt2.generate(sess, prefix="", **GREEDY) == gpt2.generate(sess, **GREEDY)
    assert requests[2].stop == (end,), "generation stops where the text is truncated"


def test_length_counts_new_tokens_and_its_default_includes_the_prefix(sess, monkeypatch):
    lengths = []
    real_request = generating.Request
    monkeypatch.setattr(generating, "Request", lambda *args: lengths.append(args[1]) or real_request(args[0], 1))
    gpt2.load_gpt2(sess, model_name="124M")
    n_prefix = len(sess.model.encoder.encode("the cat"))
    for length, prefix, expected in [(1023, None, 1023), (1023, "the cat", 1023 - n_prefix), (50, "the cat", 50)]:
        gpt2.generate(sess, length=length, prefix=prefix, return_as_list=True)
        assert lengths.pop() == expected
    monkeypatch.undo()
    longer = gpt2.generate(sess, length=80, prefix="the cat", temperature=0, return_as_list=True)[0]
    assert len(longer) > len(gpt2.generate(sess, prefix="the cat", **GREEDY)[0]), "the window of 32 slides"


def test_top_p_replaces_top_k_and_one_seed_gives_one_text_at_any_batch_size(sess):
    gpt2.load_gpt2(sess, model_name="124M")
    options = {"seed": 5, "length": 10, "return_as_list": True, "nsamples": 4}
    assert gpt2.generate(sess, top_k=1, top_p=0.9, **options) == gpt2.generate(sess, top_p=0.9, **options)
    assert gpt2.generate(sess, **options) == gpt2.generate(sess, batch_size=3, **options)
    assert gpt2.generate(sess, length=10, return_as_list=True) != gpt2.generate(sess, length=10, return_as_list=True)


def test_models_and_sessions_side_by_side(workdir):
    one, other = gpt2.start_tf_sess(), gpt2.start_tf_sess()
    gpt2.load_gpt2(one, model_name="124M")
    gpt2.load_gpt2(other, model_name="other")
    first, second = (gpt2.generate(sess, **GREEDY) for sess in (one, other))
    assert first != second
    gpt2.load_gpt2(one, model_name="other")
    assert gpt2.generate(one, **GREEDY) == second
    one.close()
    with pytest.raises(GPT2Error, match="there is no run checkpoint/run1"):
        gpt2.generate(one, **GREEDY)
    assert gpt2.generate(one, model_name="124M", **GREEDY) == first  # loads the model


def test_finetune_load_another_and_finetune_again(trained, capsys):
    before = gpt2.generate(trained, **GREEDY)
    gpt2.load_gpt2(trained, model_name="other")
    assert gpt2.generate(trained, **GREEDY) != before
    gpt2.finetune(trained, "text.txt", run_name="run2", **QUICK)
    assert gpt2.generate(trained, run_name="run2", **GREEDY) == before  # trained like run1
    gpt2.finetune(trained, "text.txt", **{**QUICK, "steps": 1}, overwrite=True, max_checkpoints=3)
    assert "Loading checkpoint checkpoint/run1/model-2" in capsys.readouterr().out
    assert Path("checkpoint/run1/counter").read_text() == "3\n"
    assert [path.name for path in Path("checkpoint/run1").glob("model-*.index")] == ["model-3.index"]
    gpt2.finetune(trained, "text.txt", **{**QUICK, "steps": 1}, max_checkpoints=3)
    gpt2.load_gpt2(trained, checkpoint="model-3")
    with pytest.raises(GPT2Error, match="no checkpoint 'model-9'.*its checkpoints are model-3, model-4"):
        gpt2.load_gpt2(trained, checkpoint="model-9")


def test_arguments_replace_the_settings_of_an_existing_run(trained, capsys):
    gpt2.finetune(trained, "text.txt", steps=1, sample_every=0, use_memory_saving_gradients=1)
    records = [json.loads(line) for line in Path("checkpoint/run1/progress.jsonl").read_text().splitlines()]
    assert records[-1]["learning_rate"] == 0.0001 != records[0]["learning_rate"]
    assert "with accumulate_gradients 5 instead of the run's 2" in capsys.readouterr().err


def test_a_run_keeps_its_model_whatever_model_name_is_given(trained, capsys):
    gpt2.finetune(trained, "text.txt", run_name="run2", model_name="other", **QUICK)
    gpt2.finetune(trained, "text.txt", run_name="run2", **QUICK)  # model_name has its default, 124M
    assert "resumes with the model that it started from, other, not with 124M" in capsys.readouterr().err
    assert json.loads(Path("checkpoint/run2/settings.json").read_text())["settings"]["model_name"] == "other"
    tiny.write_model(Path("models/wider"), n_embd=64)
    for _ in range(2):
        with pytest.raises(UsageError, match="the run in checkpoint/run2 .*wider: leave model_name out to resume"):
            gpt2.finetune(trained, "text.txt", run_name="run2", model_name="wider", **QUICK)
        with pytest.raises(GPT2Error, match="oter"):
            gpt2.finetune(trained, "text.txt", run_name="run2", model_name="oter", **QUICK)
        Path("checkpoint/run2/settings.json").unlink(missing_ok=True)  # the old package did not write this file
    gpt2.finetune(trained, "text.txt", run_name="run2", model_name="other", **QUICK)
    assert Path("checkpoint/run2/counter").read_text() == "6\n"


def test_all_checkpoints_are_kept(trained, recwarn):
    gpt2.finetune(trained, "text.txt", **{**QUICK, "steps": 8}, save_every=1, max_checkpoints=0)
    assert len(list(Path("checkpoint/run1").glob("model-*.index"))) == 9
    assert not [warning for warning in recwarn if "GB" in str(warning.message)]


def test_idioms_of_existing_programs(trained):
    expected = gpt2.generate(trained, **GREEDY)
    tf.compat.v1.reset_default_graph()
    assert gpt2.generate(trained, **GREEDY) == expected
    fresh = gpt2.reset_session(trained)
    gpt2.load_gpt2(fresh)
    with fresh.as_default() as again:
        assert gpt2.generate(again, **GREEDY) == expected
    assert tf.executing_eagerly() and float(tf.square(3.0)) == 9
    with tf.Graph().as_default():
        assert not tf.executing_eagerly()
        assert gpt2.generate(fresh, **GREEDY) == expected
        gpt2.load_gpt2(fresh)
        gpt2.finetune(fresh, "text.txt", **{**QUICK, "steps": 1})
    fresh.close()


def test_tensorflow_is_reexported():
    assert gpt2.tf is tf
    with pytest.raises(AttributeError, match="module 'gpt_2_simple' has no attribute 'tg'"):
        gpt2.tg  # noqa: B018


def test_a_program_that_disables_eager_execution(workdir):
    code = """
import tensorflow as tf
tf.compat.v1.disable_eager_execution()
import gpt_2_simple as gpt2
sess = gpt2.start_tf_sess()
gpt2.finetune(sess, "text.txt", steps=1, sample_every=1, sample_length=3)
gpt2.load_gpt2(sess)
print(gpt2.generate(sess, length=3, return_as_list=True))
assert not tf.executing_eagerly()
"""
    run = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_overlapping_calls_restore_the_mode_of_new_threads():
    code = """
import threading
import tensorflow as tf
from gpt_2_simple.session import run_eagerly
tf.compat.v1.disable_eager_execution()
tf.config.list_logical_devices()  # starts TensorFlow, so that each thread has a mode of its own
first_started, second_started, second_may_end = threading.Event(), threading.Event(), threading.Event()
modes = []
call = run_eagerly(lambda started, until: (started.set(), until.wait(), modes.append(tf.executing_eagerly())))

def start_during_the_first_call_and_end_after_it():
    modes.append(tf.executing_eagerly())
    first_started.wait()
    call(second_started, second_may_end)

second = threading.Thread(target=start_during_the_first_call_and_end_after_it)
second.start()
while not modes:
    pass
first = threading.Thread(target=call, args=(first_started, second_started))
first.start()
first.join()
second_may_end.set()
second.join()
after = threading.Thread(target=lambda: modes.append(tf.executing_eagerly()))
after.start()
after.join()
assert modes == [False, True, True, False], modes
"""
    environ = {"PYTHONPATH": str(ROOT / "src")}
    run = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr


def test_memory_saving_works_with_accumulation(trained):
    gpt2.finetune(trained, "text.txt", run_name="saving", use_memory_saving_gradients=True, **QUICK)
    plain, saving = (Path("checkpoint", run, "progress.jsonl").read_text() for run in ("run1", "saving"))
    losses = [[json.loads(line)["loss"] for line in text.splitlines()] for text in (plain, saving)]
    np.testing.assert_allclose(*losses, rtol=1e-6)


def test_csv_rows_are_enclosed_in_the_two_tokens(sess):
    Path("rows.csv").write_text('text\n"one\nrow"\nanother, one\n\n' * 1 + "third\n" * 60, encoding="utf-8")
    gpt2.encode_csv("rows.csv")
    lines = Path("csv_encoded.txt").read_text(encoding="utf-8")
    assert lines.startswith("<|startoftext|>one\nrow<|endoftext|>\n<|startoftext|>another<|endoftext|>\n<|start")
    gpt2.encode_csv("rows.csv", "out.txt", header=False, start_token="[", end_token="]")
    assert Path("out.txt").read_text(encoding="utf-8").startswith("[text]\n[one\nrow]\n")
    gpt2.encode_dataset("rows.csv", out_path="rows.npy")
    encoder = model_dir.find_vocabulary("124M", "models")
    text = encoder.decode(np.load("rows.npy").tolist())
    start = "<|endoftext|><|startoftext|>"
    assert text.startswith(f"{start}one\nrow{start}another{start}third") and text.endswith("third<|endoftext|>")
    gpt2.finetune(sess, "rows.csv", **QUICK)
    gpt2.encode_dataset("text.txt")
    gpt2.finetune(sess, "text_encoded.npz", run_name="run2", **QUICK)


def test_csv_of_any_encoding_and_size(workdir):
    Path("rows.csv").write_bytes(f'text\n"{"é" * 200_000}"\n'.encode("utf-16"))
    with pytest.warns(UserWarning, match="read as utf-16, as the byte-order mark says: rows.csv"):
        gpt2.encode_csv("rows.csv", start_token="", end_token="")
    assert Path("csv_encoded.txt").read_text(encoding="utf-8") == "é" * 200_000 + "\n"
    Path("rows.csv").write_bytes(b"text\ncaf\xe9\n")
    with pytest.warns(UserWarning, match="1 bytes of rows.csv are not utf-8; read as U"):
        gpt2.encode_csv("rows.csv", start_token="", end_token="")
    assert Path("csv_encoded.txt").read_text(encoding="utf-8") == "caf\ufffd\n"


def test_invalid_csv_and_output_paths(workdir):
    Path("rows.csv").write_text("a\n")
    with pytest.raises(GPT2Error, match="'nosuch.csv' is neither a file nor"):
        gpt2.encode_csv("nosuch.csv")
    with pytest.raises(UsageError, match="csv_path must be one file, but '.' matches"):
        gpt2.encode_csv(".")
    for name in ("", "."):
        with pytest.raises(UsageError, match="out_path must be the name of a file, not"):
            gpt2.encode_csv("rows.csv", name)
        with pytest.raises(UsageError, match="out must be the name of a file"):
            gpt2.encode_dataset("rows.csv", out_path=name)
    assert not Path("csv_encoded.txt").exists()


def test_ctrl_c_saves_and_returns(sess, monkeypatch):
    monkeypatch.setattr(TrainingLog, "write_samples", lambda *_: signal.raise_signal(signal.SIGINT) or "")
    gpt2.finetune(sess, "text.txt", **{**QUICK, "steps": -1, "sample_every": 3, "sample_length": 1})
    assert Path("checkpoint/run1/counter").read_text() == "3\n" and gpt2.generate(sess, **GREEDY)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda sess: gpt2.load_gpt2(sess), "there is no run checkpoint/run1; create it with finetune"),
        (lambda sess: gpt2.load_gpt2(sess, model_name="355M"), "download"),
        (lambda sess: gpt2.finetune(sess, "no.txt", **QUICK), "neither a file nor a folder"),
        (lambda sess: gpt2.finetune(sess, "text.txt", optimizer="best"), "optimizer must be"),
        (lambda sess: gpt2.finetune(sess, "text.txt", model_name="355M"), "download"),
        (lambda sess: gpt2.generate(sess, model_name="124M", temperature=-1), "temperature must be"),
        (lambda sess: gpt2.start_tf_sess(threads=2000), "threads must be from 1 to 1024, not 2000"),
        (lambda sess: gpt2.generate(object()), "sess must be a session from start_tf_sess"),
        (lambda sess: gpt2.mount_gdrive(), "You must be in Colaboratory"),
        (lambda sess: gpt2.copy_checkpoint_to_gdrive(), "there is no run checkpoint/run1"),
        (lambda sess: gpt2.copy_file_to_gdrive("text.txt"), "You must mount first using mount_gdrive"),
    ],
)
def test_errors_are_raised_and_never_exit(sess, call, message):
    with pytest.raises(GPT2Error, match=message):
        call(sess)


LONG_NAME = "x" * 300


@pytest.mark.parametrize(
    "call",
    [
        lambda sess: gpt2.load_gpt2(sess, checkpoint_dir=LONG_NAME),
        lambda sess: gpt2.load_gpt2(sess, model_name="124M", checkpoint=LONG_NAME),
        lambda sess: gpt2.download_gpt2(LONG_NAME, base_urls=("http://127.0.0.1:9",)),
        lambda sess: gpt2.download_file_with_progress("http://127.0.0.1:9", LONG_NAME, "124M", "hparams.json"),
        lambda sess: gpt2.copy_checkpoint_to_gdrive(checkpoint_folder=LONG_NAME),
        lambda sess: gpt2.copy_checkpoint_from_gdrive(LONG_NAME),
        lambda sess: gpt2.copy_file_to_gdrive(LONG_NAME),
        lambda sess: gpt2.copy_file_from_gdrive(LONG_NAME),
        lambda sess: gpt2.encode_csv(LONG_NAME),
    ],
)
def test_names_that_are_too_long_leave_no_files(sess, mounted, call):
    before = set(Path().rglob("*"))
    with pytest.raises(GPT2Error, match="File name too long|is neither a file nor"):
        call(sess)
    assert set(Path().rglob("*")) == before


def test_downloads(workdir, monkeypatch):
    assert gpt2.is_gpt2_downloaded() and gpt2.is_gpt2_downloaded(model_name="117M")
    assert not gpt2.is_gpt2_downloaded(model_name="355M") and not gpt2.is_gpt2_downloaded("elsewhere")
    calls = []
    monkeypatch.setattr(download, "download_model", lambda *args: calls.append(args[:3]))
    gpt2.download_gpt2(model_name="355M")
    assert calls == [("355M", Path("models"), download.BASE_URLS)]


def test_download_of_one_file(workdir):
    with serve({"models/124M/hparams.json": b"{}"}) as server:
        gpt2.download_file_with_progress(server.url, "models/124M", "124M", "hparams.json")
        assert Path("models/124M/hparams.json").read_text() == "{}"
        with pytest.raises(GPT2Error, match="could not be downloaded"):
            gpt2.download_file_with_progress(server.url, "models/124M", "124M", "nothing")


@pytest.fixture
def mounted(workdir, monkeypatch):
    monkeypatch.setattr(drive, "MOUNT_POINT", workdir / "drive")
    (workdir / "drive/MyDrive").mkdir(parents=True)
    return workdir / "drive/MyDrive"


def test_copies_to_drive_and_back(sess, mounted):
    gpt2.finetune(sess, "text.txt", **QUICK)
    expected = gpt2.generate(sess, **GREEDY)
    gpt2.copy_checkpoint_to_gdrive()
    gpt2.copy_checkpoint_to_gdrive(copy_folder=True)
    gpt2.copy_file_to_gdrive("text.txt")
    assert {path.name for path in mounted.iterdir()} == {"checkpoint_run1.tar", "checkpoint", "text.txt"}
    for copy_folder in (False, True):
        shutil.rmtree("checkpoint")
        gpt2.copy_checkpoint_from_gdrive(copy_folder=copy_folder)
        gpt2.load_gpt2(sess)
        assert gpt2.generate(sess, **GREEDY) == expected
    Path("text.txt").unlink()
    gpt2.copy_file_from_gdrive("text.txt")
    assert Path("text.txt").read_text() == TEXT
    gpt2.copy_checkpoint_to_gdrive(copy_folder=True, checkpoint_folder="checkpoint/run1")  # version 0.4
    assert gpt2.get_tarfile_name("checkpoint/run1") == "checkpoint_run1.tar"


def test_training_updates_the_copy_on_drive(sess, mounted, monkeypatch):
    copies = []
    real_mirror = drive.mirror_run

    def record_mirror(source, target):
        real_mirror(source, target)
        copies.append(sorted(path.name for path in target.glob("model-*.index")))

    monkeypatch.setattr("gpt_2_simple.finetuning.mirror_run", record_mirror)
    gpt2.finetune(sess, "text.txt", **{**QUICK, "steps": 4}, save_every=2, copy_to_gdrive=True)
    assert copies == [["model-2.index"], ["model-4.index"]]
    assert not list(mounted.rglob(".lock"))
    copied = gpt2.start_tf_sess()
    gpt2.load_gpt2(copied, checkpoint_dir=str(mounted / "checkpoint"))
    assert gpt2.generate(copied, **GREEDY) == gpt2.generate(sess, **GREEDY)


def test_copies_of_a_run_in_progress_leave_its_lock_alone(sess, mounted):
    gpt2.finetune(sess, "text.txt", **QUICK)
    lock = Path("checkpoint/run1/.lock")
    lock.touch()
    for copy_folder in (False, True):
        gpt2.copy_checkpoint_to_gdrive(copy_folder=copy_folder)
        gpt2.copy_checkpoint_from_gdrive(copy_folder=copy_folder)
        assert lock.is_file()
    assert not list(mounted.rglob(".lock"))
    with tarfile.open(mounted / "checkpoint_run1.tar") as tar:
        assert [name for name in tar.getnames() if ".lock" in name] == []


def test_colab_mounts(workdir, monkeypatch):
    mounts = []
    colab = types.ModuleType("google.colab")
    colab.drive = types.SimpleNamespace(mount=mounts.append)
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    gpt2.mount_gdrive()
    assert mounts == ["/content/drive"]


@pytest.mark.parametrize("rounds", [4, pytest.param(8, marks=pytest.mark.slow)])
def test_rounds_do_not_leak_memory(sess, tmp_path, rounds):
    if not Path("/proc/self/statm").exists():
        pytest.skip("there is no /proc to read the memory from")
    tiny.write_model(tmp_path / "models/larger", n_ctx=64, n_embd=256)

    def resident_bytes():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    sizes = []
    for _ in range(rounds):
        gpt2.finetune(sess, "text.txt", model_name="larger", **{**QUICK, "restore_from": "fresh"})
        gpt2.generate(sess, length=5, return_as_list=True)
        gpt2.load_gpt2(sess, model_name="124M")
        gpt2.generate(sess, length=5, return_as_list=True)
        shutil.rmtree("checkpoint")
        sizes.append(resident_bytes())
    assert sizes[-1] - sizes[1] < 30_000_000, sizes  # a leaked model and optimizer would add 20 MB per round


def test_a_session_keeps_its_model_when_training_fails(trained):
    before = gpt2.generate(trained, **GREEDY)
    with pytest.raises(GPT2Error):
        gpt2.finetune(trained, "nothing.txt")
    assert gpt2.generate(trained, **GREEDY) == before


def test_usage_errors_are_value_errors(sess):
    with pytest.raises(UsageError):
        gpt2.finetune(sess, "text.txt", batch_size=0)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        gpt2.finetune(sess, "text.txt", batchsize=0)
