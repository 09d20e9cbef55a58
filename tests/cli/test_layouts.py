"""The commands as programs, started from the directories that tutorials start them from."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gpt2 import installation

CHECKOUT = Path(__file__).resolve().parents[2]
BANNER = "=" * 40 + " SAMPLE 1 " + "=" * 40
UNCONDITIONAL, INTERACTIVE = "generate_unconditional_samples.py", "interactive_conditional_samples.py"


def environment(**extra):
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "TF_CPP_MIN_LOG_LEVEL")
    }
    return inherited | {"LC_ALL": "C", "PYTHONUTF8": "0"} | extra  # an ASCII locale


def run(*command, cwd, stdin="", **extra):
    command = [sys.executable, *map(str, command)]
    return subprocess.run(
        command, cwd=cwd, input=stdin.encode(), capture_output=True, timeout=120, env=environment(**extra)
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory, tiny_dir):
    """A folder whose `models` holds the tiny model as 345M."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny_dir, folder / "models/345M")
    return folder


def assert_one_sample(result):
    assert result.returncode == 0, result.stderr.decode()
    lines = result.stdout.decode("utf-8").split("\n")
    assert lines[0] == BANNER
    assert len(result.stdout) > 90
    assert result.stderr.decode().startswith("345M on ") and result.stderr.count(b"\n") == 1  # no chatter


SHORT = ("--model_name=345M", "--nsamples=1", "--length=20", "--seed=1")


def test_from_the_checkout_by_another_name_of_the_model(models):
    models_dir = models / "models"
    assert_one_sample(run(f"src/{UNCONDITIONAL}", *SHORT, f"--models_dir={models_dir}", cwd=CHECKOUT))


def test_from_any_working_directory(models):
    assert_one_sample(run(CHECKOUT / "src" / UNCONDITIONAL, *SHORT, cwd=models))


def test_with_pythonpath(models):
    result = run("./src/" + UNCONDITIONAL, *SHORT, f"--models_dir={models}/models", cwd=CHECKOUT, PYTHONPATH="src")
    assert_one_sample(result)


@pytest.fixture(scope="module")
def flat(models):
    """A folder with the content of src/ next to models/, as in a well-known walk-through."""
    for path in (CHECKOUT / "src").iterdir():
        if path.suffix == ".py":
            shutil.copy(path, models)
        elif path.name == "gpt2":
            shutil.copytree(path, models / "gpt2", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "download_model.py", models)
    return models


def test_flat_layout(flat):
    assert_one_sample(run(UNCONDITIONAL, *SHORT, cwd=flat))
    assert_one_sample(run(flat / UNCONDITIONAL, *SHORT, cwd="/"))  # the models next to the scripts are found


def test_prompts_through_a_pipe_and_threads(flat):
    flags = ("--model_name=345M", "--top_k=40", "--length=5", "--threads=1")
    result = run(INTERACTIVE, *flags, cwd=flat, stdin="the cat\n🦄 é\n")
    assert result.returncode == 0, result.stderr.decode()
    assert result.stdout.decode("utf-8").count(BANNER) == 2


def test_command_lines_of_the_forks(models, tmp_path):
    """They are those of nshepperd's and Tenoke's documentation, run in the root of the checkout."""
    (tmp_path / "text.txt").write_text("the cat sat on the mat and the dog sat on the log\n" * 40)
    (tmp_path / "models").symlink_to(models / "models")
    for name in ("train.py", "encode.py", "src"):
        (tmp_path / name).symlink_to(CHECKOUT / name)
    environ = environment(PYTHONPATH="src", PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    lines = (
        "./encode.py --model_name 345M text.txt text.npz",
        "./train.py --dataset text.npz --model_name 345M --sample_every 0 --steps 1 --seed None --batch_size 2",
        "ls text.txt text.txt | xargs -P 4 -I {} ./encode.py --model_name=345M {} {}.npz",
        "nohup ./train.py --dataset text.npz --model_name 345M --sample_every 0 --steps 1 > log",
        "python3 src/generate_unconditional_samples.py --model_name 345M --nsamples 20 --seed 42 --length 3 | tee out",
    )
    for line in lines:
        result = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, timeout=120, env=environ)
        assert result.returncode == 0, (line, result.stderr.decode())
    assert (tmp_path / "text.txt.npz").is_file() and (tmp_path / "checkpoint/run1/counter").read_text() == "2\n"
    assert (tmp_path / "out").read_text().count(" SAMPLE ") == 20


@pytest.mark.parametrize("flags", [["--help"], ["--", "--help"]])
@pytest.mark.parametrize("script", [UNCONDITIONAL, INTERACTIVE, "download_model.py"])
def test_help(flat, script, flags):
    result = run("-X", "importtime", script, *flags, cwd=flat)
    assert result.returncode == 0 and b"usage: " + script.encode() in result.stdout
    assert b"tensorflow" not in result.stderr  # importing it takes seconds


@pytest.mark.parametrize(
    "missing, command", [("numpy", [UNCONDITIONAL, "--model_name", "345M"]), ("fire", ["download_model.py", "124M"])]
)
def test_missing_packages_are_named(flat, missing, command, monkeypatch):
    result = run("-S", *command, cwd=flat)
    assert (result.returncode, result.stdout) == (1, b"")
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)  # -S leaves the virtual environment
    monkeypatch.setattr(installation, "CHECKOUT", flat)
    monkeypatch.chdir(flat)
    message = f"error: the package {missing} is missing; type: {installation.install_command('-r requirements.txt')}\n"
    assert result.stderr.decode() == message


def test_a_missing_model(flat):
    result = run(UNCONDITIONAL, "--temperature=2.0", cwd=flat)
    assert (result.returncode, result.stdout) == (1, b"")
    assert b"python3 download_model.py 124M, or use an available model: --model_name 345M" in result.stderr
    assert result.stderr.count(b"\n") == 1
    imports = run("-X", "importtime", UNCONDITIONAL, "--temperature=2.0", cwd=flat).stderr
    assert b"gpt2.formats.model_dir" in imports and b"| tensorflow" not in imports and b"  tensorflow" not in imports


def test_a_closed_pipe_ends_it_silently(flat):
    command = f"{sys.executable} {UNCONDITIONAL} --model_name 345M --seed 1 | head -3"
    result = subprocess.run(command, shell=True, cwd=flat, capture_output=True, timeout=120, env=environment())
    assert result.stdout.startswith(BANNER.encode())
    assert result.stderr.count(b"\n") == 1 and b"seed 1" in result.stderr


LOST = b"warning: standard output is closed; all output is lost\n"


@pytest.mark.parametrize(
    "command, closed, message",
    [
        ([UNCONDITIONAL, *SHORT], ">&-", LOST),
        ([UNCONDITIONAL, *SHORT], "2>&-", b""),
        ([INTERACTIVE, *SHORT], "<&-", b""),
        (["encode.py", "text.txt", "ids.npy", "--model_name=345M"], "<&- >&- 2>&-", b""),
        (["train.py", "text.txt", "--model_name=345M", "--steps=1"], "<&- >&- 2>&-", b""),
    ],
)
def test_closed_streams(flat, command, closed, message):
    """A daemon has such streams; a file that the command opens must not take their place."""
    for name in ("encode.py", "train.py"):
        shutil.copy(CHECKOUT / name, flat)
    (flat / "text.txt").write_text("the cat sat on the mat\n" * 40)
    line = f"{shlex.join([sys.executable, *command])} {closed}"
    result = subprocess.run(line, shell=True, cwd=flat, capture_output=True, timeout=120, env=environment())
    assert result.returncode == 0 and result.stderr.startswith(message), result.stderr
    assert b"error" not in result.stderr and result.stderr.count(b"\n") <= 2
    output = {"encode.py": "ids.npy", "train.py": "checkpoint/run1/model-1.index"}.get(command[0])
    assert output is None or (flat / output).is_file()
    assert ">&-" in closed or BANNER.encode() in result.stdout or command[0] == INTERACTIVE


def read_until(stream, text):
    received = b""
    while not received.endswith(text):
        byte = stream.read(1)
        assert byte, received
        received += byte
    return received


def test_ctrl_c_ends_the_sample_and_then_the_program(flat):
    command = [sys.executable, INTERACTIVE, "--model_name=345M", "--length=1000000"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=flat, env=environment(), **pipes) as process:
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        process.stdin.write(b"the cat\n")
        process.stdin.flush()
        read_until(process.stdout, BANNER.encode() + b"\n")
        process.stdout.read(40)  # it is generating
        process.send_signal(signal.SIGINT)
        read_until(process.stdout, b"=" * 80 + b"\nModel prompt >>> ")  # it asks for the next prompt
        time.sleep(0.5)  # Python misses a signal that comes between writing the prompt and waiting for the answer
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait() == 130
        watchdog.cancel()
        assert b"Traceback" not in process.stderr.read()


def test_doctor(flat):
    shutil.copytree(CHECKOUT / "scripts", flat / "scripts", dirs_exist_ok=True)
    result = run("scripts/doctor.py", cwd=flat)
    out = result.stdout.decode()
    assert result.returncode == 0, result.stderr.decode()
    for line in (
        "tensorflow 2.",
        "TensorFlow sees: CPU:0",
        "345M: 35,456 parameters",
        "self-test on 345M: the largest error",
    ):
        assert line in out
