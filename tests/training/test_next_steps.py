"""What train.py says while it starts, and what to type next when it ends."""

import io
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from runs import QUICK, interrupt_after, losses

import interactive_conditional_samples
from gpt2 import installation, tensorflow_startup
from gpt2.cli import command as cli
from gpt2.cli.command_lines import as_arguments, generate_command
from gpt2.cli.parsing import parse
from gpt2.formats.model_dir import find_model
from gpt2.training.settings.settings import TrainingSettings
from train import train

SCRIPTS = {
    "interactive_conditional_samples.py": interactive_conditional_samples.interact_model,
    "train.py": train,
}


def suggested(err, start):
    """Return the script and the arguments of the command line on the line that starts with this text."""
    (line,) = [line for line in err.splitlines() if line.startswith(start)]
    python, script, *arguments = shlex.split(line.partition(": ")[2])
    assert shutil.which(python) and Path(script).is_file(), line  # it works in the current directory
    parse(SCRIPTS[Path(script).name], arguments)
    return SCRIPTS[Path(script).name], arguments


def generate(monkeypatch, capsys, command, arguments):
    """Run the suggested line that generates text, and return what it writes."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("the cat\n"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert cli.main(command, [*arguments, "--length=3"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "flags",
    [{}, {"run_name": "-a'b", "checkpoint_dir": "runs of mine"}],
)
def test_the_end_says_what_to_type_next(run, monkeypatch, capsys, flags):
    status, out, err = run(stop_after=2, **flags)
    folder = f"{flags.get('checkpoint_dir', 'checkpoint')}/{flags.get('run_name', 'run1')}"
    assert status == 0 and f"the model after 2 updates is in {folder}, and its losses in {folder}/loss.png\n" in err
    assert out.endswith(f"Saving {folder}/model-2\n")  # stdout has the old tools' lines alone
    assert "SAMPLE 1" in generate(monkeypatch, capsys, *suggested(err, "to generate text with it"))
    command, arguments = suggested(err, "to train it further")
    assert cli.main(command, arguments) == 0
    assert f"the model after 4 updates is in {folder}," in capsys.readouterr().err


def test_the_end_names_the_best_model(run, monkeypatch, capsys):
    _, _, err = run(stop_after=3, val_every=1)
    command, arguments = suggested(err, "with the best model (validation loss ")
    assert arguments == ["--model_name", "checkpoint/run1/best"]
    assert "after 3 updates): " in err and "SAMPLE 1" in generate(monkeypatch, capsys, command, arguments)
    _, _, err = run(stop_after=2, run_name="worse", val_every=1, learning_rate=10.0)
    assert "best" not in err and suggested(err, "to generate")


@pytest.mark.parametrize("flags", [{}, {"stop_after": 9}])
def test_an_interrupted_run_says_how_to_resume_it(run, flags):
    _, _, err = interrupt_after(2, lambda: run(**flags))
    assert "the model after 2 updates is in checkpoint/run1" in err
    assert suggested(err, "to train it further")[1] == ["--run_name", "run1"]


def test_a_run_at_its_end_prints_the_command_that_continues_it(run, capsys):
    run(stop_after=2)
    cases = [({"stop_after": 2}, "2"), ({"stop_after": 1}, "1"), ({"steps": 0}, "1000")]
    for flags, steps in [*cases, ({"stop_after": 2, "batch_size": 3, "dropout": 0.5}, "2")]:
        status, out, err = run(**flags)
        assert (status, out) == (0, "")
        assert err.startswith("checkpoint/run1 has made 2 updates already; to make more, type: ")
        command, arguments = suggested(err, "checkpoint/run1 has made")
        changes = shlex.split("--batch_size 3 --dropout 0.5" if "dropout" in flags else "")
        assert arguments == ["--run_name", "run1", *changes, "--steps", steps]
    assert cli.main(command, [*arguments[:-1], "1"]) == 0
    capsys.readouterr()
    assert list(losses()) == [1, 2, 3]


@pytest.mark.parametrize(
    "flags", [{"steps": 0}, {"stop_after": 0, "dropout": 0.1}, {"steps": 0, "restore_from": "fresh"}]
)
def test_a_run_that_has_not_started_gets_its_whole_command_line(run, tiny_dir, capsys, flags):
    if "restore_from" in flags:
        run(stop_after=2)
    _, _, err = run(**flags)
    command, arguments = suggested(err, "checkpoint/run1 has made 0 updates already")
    typed = parse(command, arguments)
    expected = {"dataset": "text.txt", "model_name": str(tiny_dir), "run_name": "run1", **QUICK, **flags, "steps": 1000}
    expected.pop("stop_after", None)
    assert typed == expected
    if "restore_from" in flags:
        return
    assert cli.main(command, [*arguments, "--steps=1"]) == 0
    assert "the model after 1 updates is in checkpoint/run1" in capsys.readouterr().err


def test_without_scripts_the_installed_command_is_named(run, monkeypatch, tmp_path):
    monkeypatch.setattr(installation, "CHECKOUT", tmp_path / "site-packages")
    _, _, err = run(stop_after=1)
    assert "to generate text with it, type: gpt-2-gen checkpoint/run1 The\n" in err and "train it further" not in err
    assert run(stop_after=1)[2] == "checkpoint/run1 has made 1 updates already; give steps to make more\n"


def test_script_commands_are_relative_below_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    script = installation.script_command("train.py", "--run_name", "a b")
    assert shlex.split(script)[1:] == [str(installation.CHECKOUT / "train.py"), "--run_name", "a b"]
    monkeypatch.chdir(installation.CHECKOUT)
    assert shlex.split(installation.script_command("train.py"))[1:] == ["train.py"]
    monkeypatch.chdir(installation.CHECKOUT.parent)
    assert shlex.split(installation.script_command("train.py"))[1:] == [f"{installation.CHECKOUT.name}/train.py"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shlex.split(installation.script_command("train.py"))[0] == sys.executable


@pytest.mark.parametrize("has_scripts", [True, False])
def test_a_run_named_like_a_model_is_generated_with(monkeypatch, tmp_path, tiny_dir, has_scripts):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_dir, "runs/shakespeare")
    monkeypatch.chdir("runs")  # with --checkpoint_dir . the path of the run is only its name
    if not has_scripts:
        monkeypatch.setattr(installation, "CHECKOUT", tmp_path)
    run = Path("shakespeare")
    line = shlex.split(generate_command(run))
    name = line[-1] if has_scripts else line[1]
    assert find_model(name).path.resolve() == run.resolve()


@pytest.mark.parametrize("name", ["steps", "top_p", "csv_start", "multi_gpu", "from_scratch", "dataset", "clip_norm"])
@pytest.mark.parametrize("value", [True, False, 0, 3, 1e-05, "", "-", "a b", "--x", "é'\"$", "None"])
def test_as_arguments_is_the_inverse_of_parsing(name, value):
    kind = type(TrainingSettings.__dataclass_fields__[name].default)
    if kind is not type(value) and not (name == "steps" and type(value) is int):
        return
    assert parse(train, as_arguments({name: value})) == {name: value}


def test_starting_tensorflow_is_announced_first(monkeypatch, capsys, working_dir, tiny_dir):
    """TensorFlow's import takes half a minute on some machines, in which nothing else is printed."""
    events = []
    monkeypatch.delitem(sys.modules, "tensorflow")
    monkeypatch.setattr(
        tensorflow_startup, "import_tensorflow", lambda: pytest.exit("imported") if not events else 1 / 0
    )
    notify = lambda line: events.append(line)  # noqa: E731
    with pytest.raises(ZeroDivisionError):
        tensorflow_startup.start_tensorflow(notify=notify)
    assert events == [tensorflow_startup.START_NOTE]
    arguments = {"dataset": "text.txt", "model_name": tiny_dir, **QUICK}
    assert cli.main(train, [f"--{name}={value}" for name, value in arguments.items()]) == 1
    out, err = capsys.readouterr()
    assert err.splitlines()[0] == "starting TensorFlow, which can take half a minute" and "starting" not in out


def test_a_started_tensorflow_is_not_announced():
    lines = []
    tensorflow_startup.start_tensorflow(notify=lines.append)
    assert lines == []
