"""Flags, help, exit statuses and errors of a command that only records its arguments."""

import errno
import inspect
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Annotated

import pytest

import generate_unconditional_samples
import interactive_conditional_samples
from gpt2 import flags as shared
from gpt2.cli import command as cli
from gpt2.cli import parsing
from gpt2.cli.declarations import flags_of, parameters_of
from gpt2.errors import GPT2Error, UsageError
from gpt2.flags import Flag

SRC = Path(cli.__file__).resolve().parents[2]
RECEIVED = {}


def show(
    model_name: shared.ModelName = "124M",
    seed: shared.Seed = None,
    nsamples: shared.SampleCount = 0,
    temperature: shared.Temperature = 1.0,
    stop: shared.Stop = (),
    prompt_file: Annotated[str | None, Flag(expects="a file", help="file of the prompt")] = None,
) -> None:
    """Show the arguments."""
    RECEIVED.clear()
    RECEIVED.update(locals())


DEFAULTS = {"model_name": "124M", "seed": None, "nsamples": 0, "temperature": 1.0, "stop": (), "prompt_file": None}


@pytest.mark.parametrize(
    "argv, expected",
    [
        ([], {}),
        (["--seed", "5"], {"seed": 5}),
        (["--seed=5"], {"seed": 5}),
        (["345M", "3"], {"model_name": "345M", "seed": 3}),
        (["--model-name", "345M"], {"model_name": "345M"}),
        (["--model_name", "117"], {"model_name": "117"}),  # fire alone converts it to a number
        (["--model_name", "1e2"], {"model_name": "1e2"}),
        (["-n", "4"], {"nsamples": 4}),
        (["--temperature", "1"], {"temperature": 1.0}),
        (["--temperature", "1e-1"], {"temperature": 0.1}),
        (["--seed", "None"], {"seed": None}),
        (["--stop", "123"], {"stop": ("123",)}),
        (["--stop", "a, b"], {"stop": ("a, b",)}),
        (["--stop", "['a', \"\\n\"]"], {"stop": ("a", "\n")}),
        (["--stop", "[a"], {"stop": ("[a",)}),
        (["--stop", "<|endoftext|>"], {"stop": ("<|endoftext|>",)}),
        (["--prompt_file", "-"], {"prompt_file": "-"}),
        (["--prompt_file=-", "--seed", "1"], {"prompt_file": "-", "seed": 1}),
    ],
)
def test_values(argv, expected):
    assert cli.main(show, argv) == 0
    assert DEFAULTS | expected == RECEIVED


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--seed", "5", "--model-name=345M"],
        ["--model_name", "", "--stop="],
        ["--model_name=a=b", "--stop", "=", "--seed", "1", "--seed", "2"],
        ["--stop", "a\nb c", "--temperature=-1"],
        ["--stop", "[1, 2]", "--model_name", "None"],
        ["--stop", "\u00e4", "--model_name", "*"],
    ],
)
def test_plain_lines_are_split_as_fire_splits_them(argv):
    assert parsing.split_plain_line(argv) == parsing.split_with_fire(parameters_of(show), argv)


@pytest.mark.parametrize("argv", [["345M"], ["-n", "4"], ["--seed", "1", "x"], ["--temperature", "-1"], ["--seed"]])
def test_other_lines_are_left_to_fire(argv):
    assert parsing.split_plain_line(argv) is None


def test_a_plain_line_does_not_import_what_only_other_lines_need(native, tiny_dir):
    """fire imports asyncio, which imports logging."""
    code = f"""
import sys
sys.path.insert(0, {str(SRC)!r})
import interactive_conditional_samples as command
from gpt2.cli import command as cli
flags = ["--model_name", {str(tiny_dir)!r}, "--length", "3", "--top_k", "40", "--prompt", "a b"]
assert cli.main(command.interact_model, flags) == 0
print("\\nimported:", *{{"fire", "asyncio", "logging", "psutil", "subprocess", "ssl", "regex"}} & sys.modules.keys())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.splitlines()[-1] == "imported:", result.stderr


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--bogus", "3"], "there is no flag --bogus; the flags are --model_name, --seed"),
        (["--seed", "1", "--bogus=3"], "there is no flag --bogus"),
        (["--seed 4"], "'--seed 4' is one argument: write --seed 4 without quotation marks, or --seed=4"),
        (["--seed"], "--seed needs a value: a whole number"),
        (["--seed", "--nsamples", "2"], "--seed needs a value"),
        (["--noseed"], "there is no flag --noseed"),
        (["--seed", "x"], "seed must be a whole number, not 'x'"),
        (["--seed", "1.5"], "seed must be a whole number, not '1.5'"),
        (["--seed", "-1"], "seed must be a whole number of at least 0, not -1"),
        (["--nsamples", ""], "nsamples must be a whole number, not ''"),
        (["--nsamples", "None"], "nsamples must be a whole number, not 'None'"),
        (["--temperature", "hot"], "temperature must be a number, not 'hot'"),
        (["-s", "4"], "ambiguous"),
        (["a", "1", "2", "3", "4", "5", "6"], "unexpected argument '6'; --help lists the flags"),
        (["--", "--trace"], "after -- only --help has an effect, not '--trace'"),
        (["--", "--seed", "1"], "not '--seed 1'; leave the -- out"),
        (["--se\ned", "1"], r"there is no flag --se\ned; the flags are"),
        (["--seed", "\x1b[2J"], "seed must be a whole number"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(argv, message, capsys):
    RECEIVED.clear()
    status = cli.main(show, argv)
    out, err = capsys.readouterr()
    assert (status, out, RECEIVED) == (2, "", {})
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["--", "--help"], ["--seed", "1", "--help"]])
def test_help(argv, capsys):
    RECEIVED.clear()
    assert cli.main(show, argv) == 0
    out, err = capsys.readouterr()
    assert "Show the arguments." in out and "--temperature=TEMPERATURE" in out and "default 124M" in out
    assert (err, RECEIVED) == ("", {})


@pytest.mark.parametrize("module", [generate_unconditional_samples, interactive_conditional_samples])
def test_the_classic_flags_come_in_the_original_order(module):
    command = getattr(module, "sample_model", None) or module.interact_model
    original = ["model_name", "seed", "nsamples", "batch_size", "length", "temperature", "top_k", "top_p", "models_dir"]
    parameters = inspect.signature(command).parameters
    assert list(parameters)[:9] == original
    nsamples = 0 if module is generate_unconditional_samples else 1
    assert [p.default for p in parameters.values()][:9] == ["124M", None, nsamples, 1, None, 1, 0, 1, "models"]
    assert all(flag.help for flag in flags_of(command).values())


@pytest.mark.parametrize(
    "argv, expected",
    [
        ([], (False, None)),
        (["--loud"], (True, None)),
        (["--loud", "--name", "x"], (True, "x")),
        (["--loud", "True"], (True, None)),
        (["--loud=false"], (False, None)),
        (["--name", "x", "--loud"], (True, "x")),
    ],
)
def test_a_switch_needs_no_value(argv, expected):
    def speak(
        loud: Annotated[bool, Flag(help="speak up")] = False,
        name: Annotated[str | None, Flag(expects="a name", help="whom to greet")] = None,
    ) -> None:
        received.append((loud, name))

    received = []
    assert cli.main(speak, argv) == 0
    assert received == [expected]
    assert cli.main(speak, ["--loud=maybe"]) == cli.EXIT_USAGE


def raising(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    "error, status, line",
    [
        (UsageError("not so"), 2, "error: not so\n"),
        (GPT2Error("it broke"), 1, "error: it broke\n"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 1, "error: [Errno 13] Permission denied: 'x'\n"),
        (RuntimeError("first\nsecond"), 1, "error: RuntimeError: first (GPT2_DEBUG=1 shows the traceback)\n"),
        (MemoryError("no 9 GB"), 1, "error: not enough memory: no 9 GB; a narrower precision needs less\n"),
        (KeyboardInterrupt(), 130, "\n"),
    ],
)
def test_errors_are_one_line(error, status, line, capsys):
    assert cli.main(raising(error), []) == status
    assert capsys.readouterr().err == line


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("GPT2_DEBUG", "1")
    with pytest.raises(RuntimeError, match="first"):
        cli.main(raising(RuntimeError("first")), [])


def test_warnings_are_lines_on_stderr_every_time(capsys):
    def command():
        for _ in range(2):
            warnings.warn("careful", stacklevel=1)

    assert cli.main(command, []) == 0
    assert capsys.readouterr() == ("", "warning: careful\nwarning: careful\n")
