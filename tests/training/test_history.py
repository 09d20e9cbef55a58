"""The history of a run of any length: its file is complete, its memory is bounded, and its picture does not lag."""

import json
import math
import random
import tracemalloc

import pytest
from matplotlib.figure import Figure

from gpt2.training.logs import history, loss_curve
from gpt2.training.logs.history import History


@pytest.fixture
def picture(monkeypatch):
    """Return a function: picture(history) -> the lines of the picture that it draws: {label: (steps, values)}."""
    figures = []
    save = Figure.savefig

    def savefig(figure, *arguments, **options):
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)

    def draw(of_run):
        of_run.draw_curve()
        return {line.get_label(): tuple(map(list, line.get_data())) for line in figures[-1].axes[0].get_lines()}

    return draw


def record_losses(of_run, losses, first_step=1):
    """Add records as `TrainingLog` does, with the smoothed loss of the log's lines."""
    total = weight = 0.0
    for step, loss in enumerate(losses, first_step):
        total, weight = total * 0.99 + loss, weight * 0.99 + 1
        of_run.add(step=step, loss=loss, smoothed_loss=total / weight, tokens=8)


def smoothed_of(lines):
    return next(data for label, data in lines.items() if label.startswith("smoothed"))


@pytest.mark.parametrize("count", [100, 500, 3000])
@pytest.mark.parametrize(
    "loss_at", [lambda x: 4 - 2 * x, lambda x: 2 + math.exp(-4 * x), lambda x: 4.0 if x < 0.5 else 2.0]
)
def test_the_smoothed_curve_follows_the_losses(tmp_path, picture, count, loss_at):
    """It is within a tenth of the fall of the losses, a twelfth of the run later."""
    of_run = History(tmp_path, -1)
    record_losses(of_run, [loss_at(number / count) for number in range(count)])
    steps, smoothed = smoothed_of(picture(of_run))
    fall = loss_at(0) - loss_at(1)
    assert smoothed[0] == pytest.approx(loss_at(0), abs=0.01 * fall)  # corrected for the bias at the start
    for step, value in zip(steps, smoothed):
        x = step / count
        if not 0.5 <= x < 0.5 + 1 / 8:
            assert value == pytest.approx(loss_at(x), abs=0.15 * fall)


def test_the_smoothed_curve_is_smooth(tmp_path, picture):
    rng = random.Random(1)
    of_run = History(tmp_path, -1)
    record_losses(of_run, [3 + rng.uniform(-1, 1) for _ in range(1000)])
    _, smoothed = smoothed_of(picture(of_run))
    assert max(abs(value - 3) for value in smoothed[100:]) < 0.5


@pytest.mark.parametrize("is_validated", [True, False])
def test_the_best_loss_is_marked(tmp_path, picture, is_validated):
    of_run = History(tmp_path, -1)
    record_losses(of_run, [abs(step - 60) / 30 + 1 for step in range(1, 101)])
    if is_validated:
        for step, loss in ((0, 4.0), (25, 3.0), (50, 2.25), (75, 2.5), (100, 2.75)):
            of_run.add(step=step, validation_loss=loss)
    lines = picture(of_run)
    ((label, (steps, values)),) = [(label, data) for label, data in lines.items() if label.startswith("best")]
    if is_validated:
        assert (label, steps, values) == ("best: 2.250 after 50 updates", [50], [2.25])
    else:
        assert 60 <= steps[0] <= 65 and values == [min(smoothed_of(lines)[1])]


def test_memory_and_picture_do_not_grow_with_the_run(tmp_path, picture, monkeypatch):
    monkeypatch.setattr(loss_curve, "MAX_POINTS", 50)
    monkeypatch.setattr(history.AppendedFile, "add", lambda *_: None)  # the file grows, on the disk
    of_run = History(tmp_path, -1)
    record_losses(of_run, [1.0] * 500)
    tracemalloc.start()
    record_losses(of_run, [3 - 2 * step / 20000 for step in range(500, 20000)], 501)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 100_000
    lines = picture(of_run)
    for steps, _ in lines.values():
        assert len(steps) <= 50
        assert steps == sorted(steps)
    steps, values = lines["loss"]
    assert steps[0] < 400 and steps[-1] > 19600 and values[-1] == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("interruptions", [[], [1], [70, 71], [10, 333, 900]])
def test_a_resumed_run_has_the_picture_and_the_file_of_an_uninterrupted_one(tmp_path, monkeypatch, interruptions):
    monkeypatch.setattr(loss_curve, "MAX_POINTS", 64)
    rng = random.Random(2)
    losses = [rng.random() for _ in range(1000)]
    folders = [tmp_path / "whole" / "run", tmp_path / "parts" / "run"]
    for folder in folders:
        folder.mkdir(parents=True)
    of_run = History(folders[0], -1)
    record_losses(of_run, losses)
    of_run.draw_curve()
    done = 0
    for end in [*interruptions, 1000]:
        of_run = History(folders[1], done if done else -1)
        total = json.loads(folders[0].joinpath("progress.jsonl").read_bytes().splitlines()[0])
        assert total["step"] == 1
        for line in folders[0].joinpath("progress.jsonl").read_text().splitlines()[done : min(end + 7, 1000)]:
            of_run.add(**json.loads(line))  # a killed run has made more updates than it has saved
        with of_run.path.open("ab") as file:
            file.write(b'{"step": 5, "lo' if end < 1000 else b"")
        done = end
    of_run.draw_curve()
    for name in ("progress.jsonl", "loss.png"):
        assert folders[0].joinpath(name).read_bytes() == folders[1].joinpath(name).read_bytes()


@pytest.mark.parametrize("size", [0, 1, 5000])
@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_removed_file_is_written_again(tmp_path, monkeypatch, size, what):
    monkeypatch.setattr("gpt2.training.logs.appended_file.COPIED_BYTES", 999)
    folder = tmp_path / "run"
    folder.mkdir()
    of_run = History(folder, -1)
    record_losses(of_run, [1.0] * size)
    before = of_run.path.read_bytes()
    for _ in range(2):
        of_run.path.unlink()
        if what == "folder":
            folder.rmdir()
            folder.mkdir()
        of_run.restore()
        assert of_run.path.read_bytes() == before
    of_run.add(step=size + 1, loss=2.0)
    assert of_run.path.read_bytes().startswith(before)
    assert json.loads(of_run.path.read_bytes().splitlines()[-1])["step"] == size + 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, "3.0", None, [1.0]])
def test_losses_that_are_not_numbers_are_not_drawn(tmp_path, picture, value):
    (tmp_path / "progress.jsonl").write_text(f'{json.dumps({"step": 1, "loss": value})}\n{{"step": 2, "loss": 1.5}}\n')
    assert picture(History(tmp_path, 2))["loss"] == ([2], [1.5])
