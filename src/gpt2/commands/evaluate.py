"""What the command evaluate.py does: tasks, or texts of one's own, and the numbers that a model comes to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gpt2 import files
from gpt2.cli.models import ModelFlags, TextFlags, found, loaded, texts
from gpt2.errors import GPT2Error, UsageError
from gpt2.files import expand_path

if TYPE_CHECKING:  # it needs packages, which --help does not
    from gpt2.evaluation.task import Task, TaskResult


class Trials(NamedTuple):
    """The flags that say what a model is tried on, and how it is told."""

    tasks: str | None
    data: str | None
    data_dir: str | None
    window: int | None
    stride: int | None
    limit: int | None
    no_start: bool
    json: bool


def evaluate(chosen: ModelFlags, source: TextFlags, trials: Trials) -> None:
    """Writes the numbers of tasks, or of texts of one's own, each with its protocol."""
    from gpt2.cli.progress_bars import SCORING, bar
    from gpt2.evaluation import paper, report, tasks
    from gpt2.evaluation.custom_text import measure_texts
    from gpt2.evaluation.scores import protocol_of
    from gpt2.evaluation.task import TaskSettings

    own = source.in_text is not None or source.text is not None
    if own == (trials.tasks is not None):
        names = ", ".join(tasks.TASKS)
        raise UsageError(f"give tasks, or a text as in_text or text; the tasks are {names}, and all")
    if own and trials.limit is not None:
        raise UsageError("limit is for tasks; of a text of your own give as much as is wanted")
    wanted = [] if trials.tasks is None else tasks.select_tasks(trials.tasks)
    if trials.data is not None and len({task.data for task in wanted}) != 1:
        raise UsageError("data is that of one task; give data_dir for several")
    directory, vocabulary = found(chosen)
    size = paper.released_size(directory.hparams)
    protocol = protocol_of(directory.hparams.n_ctx, vocabulary, trials.window, trials.stride, not trials.no_start)
    some, n_bytes = texts(source, vocabulary) if own else ([], None)
    paths = {task.name: _data(task, trials) for task in wanted}
    model = loaded(directory, vocabulary, chosen)

    def tell(result: TaskResult) -> None:
        if trials.json:
            print(report.as_json(result, str(directory.path), size), flush=True)
        else:
            print(*report.as_table(result, size), sep="\n", flush=True)

    if own:
        with bar(SCORING) as progress:
            result = measure_texts(model, some, protocol, progress, n_bytes)
        tell(result)
    settings = TaskSettings(trials.window, trials.stride, not trials.no_start, trials.limit)
    for task in wanted:
        with bar(f"{SCORING} {task.name}", unit="") as progress:
            result = tasks.run_task(model, task, paths[task.name], settings, progress)
        tell(result)


def _data(task: Task, trials: Trials) -> Path:
    """Where the task's data are, downloaded if need be."""
    from gpt2.cli.progress_bars import FETCHING, bars
    from gpt2.evaluation import datasets, tasks

    if trials.data is not None:
        path = expand_path(trials.data)
        if not (files.is_file(path) or files.is_folder(path)):
            raise GPT2Error(f"{path} is not there; without data, they are downloaded")
        return path
    with bars(FETCHING) as report:
        folder = expand_path(trials.data_dir) if trials.data_dir else datasets.default_folder()
        return tasks.find_data(task, folder, report)
