"""All evaluation tasks by name, and functions that fetch a task's data and run it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gpt2.errors import UsageError, suggest
from gpt2.evaluation import cbt, corpora, datasets, hellaswag, lambada
from gpt2.evaluation.task import ProgressCallback, Task, TaskResult, TaskSettings
from gpt2.files import no_callback
from gpt2.text_batch import Model

TASKS: dict[str, Task] = {task.name: task for task in (*lambada.TASKS, *cbt.TASKS, *corpora.TASKS, *hellaswag.TASKS)}


ALL_TASKS = "all"  # stands for all names


def select_tasks(names: str) -> list[Task]:
    """Return the tasks in a comma-separated list of names, or every task for `all`.

    Raises:
        UsageError: A name is unknown.
    """
    selected = [*TASKS] if names == ALL_TASKS else [name.strip() for name in names.split(",")]
    for name in selected:
        if name not in TASKS:
            raise UsageError(
                f"there is no task {name!r}; the tasks are {', '.join(TASKS)}, and {ALL_TASKS}; to evaluate your"
                f" own text, use in_text{suggest(name, [*TASKS, ALL_TASKS])}"
            )
    return [TASKS[name] for name in selected]


def find_data(
    task: Task,
    folder: Path,
    report: Callable[..., object] = no_callback,
    verifying: Callable[[str], object] = no_callback,
) -> Path:
    """Return the path of the task's data in `folder`; download it if necessary, as `datasets.download` does."""
    return datasets.download(task.data, folder, report, verifying)


def run_task(
    model: Model, task: Task, path: Path, settings: TaskSettings, progress: ProgressCallback = no_callback
) -> TaskResult:
    """Evaluate a model on a task.

    Args:
        model: The model.
        task: The task.
        path: The task's data, packed or unpacked.
        settings: The settings of the run.
        progress: Progress callback: called with (done, total) examples or tokens.

    Raises:
        GPT2Error: The data is missing, damaged or not in the expected format.
    """
    with datasets.open_data(path, task.member) as file:
        return task.run(model, file, path, settings, progress)
