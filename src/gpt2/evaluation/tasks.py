"""All tasks by name, and how one is run on a model: its data found or fetched, then tried."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gpt2.errors import UsageError
from gpt2.evaluation import cbt, corpora, datasets, hellaswag, lambada
from gpt2.evaluation.task import Progress, Task, TaskResult, TaskSettings
from gpt2.files import no_callback
from gpt2.generate import Model

TASKS: dict[str, Task] = {task.name: task for task in (*lambada.TASKS, *cbt.TASKS, *corpora.TASKS, *hellaswag.TASKS)}


def select_tasks(names: str) -> list[Task]:
    """The tasks of a list with commas; `all` names each. Raises UsageError for others."""
    wanted = [*TASKS] if names == "all" else [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in TASKS:
            known = f"there are {', '.join(TASKS)}, and all; a text of your own is in_text"
            raise UsageError(f"there is no task {name!r}; {known}")
    return [TASKS[name] for name in wanted]


def find_data(task: Task, folder: Path, report: Callable[..., object] = no_callback) -> Path:
    """The task's data in the folder, downloaded if it is not there; see `datasets.download`."""
    return datasets.download(task.data, folder, report)


def run_task(
    model: Model, task: Task, path: Path, settings: TaskSettings, progress: Progress = no_callback
) -> TaskResult:
    """Tries the model. path: of the data, packed or not. Raises GPT2Error for data that are not what they should be."""
    with datasets.open_data(path, task.member) as file:
        return task.run(model, file, path, settings, progress)
