"""The command evaluate.py, which measures a model with the paper's tasks or on any text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from gpt2 import files
from gpt2.cli.models import ModelChoice
from gpt2.cli.text_input import TextInput
from gpt2.errors import GPT2Error, UsageError
from gpt2.files import expand_path
from gpt2.flags import (
    Column,
    CsvHeader,
    Encoding,
    Flag,
    ModelName,
    ModelsDir,
    NoCache,
    NoHeader,
    OptionalInText,
    Precision,
    Stride,
    Text,
    Threads,
    Window,
)
from gpt2.formats.model_dir import DEFAULT_MODEL, DEFAULT_MODELS_DIR
from gpt2.request import DEFAULT_PRECISION

if TYPE_CHECKING:  # imports packages that --help does not need
    from gpt2.evaluation.task import Task, TaskResult


@dataclass(frozen=True)
class EvaluateFlags:
    """The flags of evaluate.py."""

    tasks: Annotated[
        str | None, Flag(expects="names", help="tasks to run (see above), separated by commas; all runs every task")
    ] = None
    in_text: OptionalInText = None
    text: Text = None
    model_name: ModelName = DEFAULT_MODEL
    models_dir: ModelsDir = DEFAULT_MODELS_DIR
    data: Annotated[
        str | None,
        Flag(expects="a path", help="data of a single task, packed or unpacked; downloaded if not given"),
    ] = None
    data_dir: Annotated[
        str | None,
        Flag(expects="a folder", help="folder for downloaded data; ~/.cache/gpt-2-tensorflow/data if not given"),
    ] = None
    window: Window = None
    stride: Stride = None
    no_start: Annotated[
        bool, Flag(help="do not put <|endoftext|> before a text; its first token is then not scored")
    ] = False
    limit: Annotated[
        int | None,
        Flag(
            help="use only the first N examples of a task, or the first N characters of a task's text or of your texts",
            minimum=1,
        ),
    ] = None
    json: Annotated[
        bool,
        Flag(help="print one JSON object per line, with all numbers, instead of a table"),
    ] = False
    precision: Precision = DEFAULT_PRECISION
    threads: Threads = None
    encoding: Encoding = "utf-8"
    csv_header: CsvHeader = False
    no_cache: NoCache = False
    column: Column = None
    no_header: NoHeader = False


def evaluate_model(flags: EvaluateFlags) -> None:
    """Measure the perplexity of a text (--in_text), or run tasks; each result names its protocol.

    The tasks are lambada, lambada-word, cbt-cn, cbt-ne, wikitext2, wikitext103, wikitext-as-it-is, ptb, enwik8, text8
    and hellaswag. Their data is downloaded once, or given by --data. For the released sizes, the paper's results are
    shown alongside; docs/evaluation.md explains which of them should agree.
    """
    from gpt2.cli.progress_bars import SCORING, bar  # imports packages that --help does not need
    from gpt2.data.documents import CsvFormat
    from gpt2.evaluation import paper, report, tasks
    from gpt2.evaluation.custom_text import first_characters, measure_texts
    from gpt2.evaluation.scores import protocol_of
    from gpt2.evaluation.task import TaskSettings

    csv_format = CsvFormat.from_flags(flags.column, flags.no_header, flags.csv_header)
    source = TextInput(flags.in_text, flags.text, flags.encoding, csv_format)
    selected = _select_tasks(flags, source)
    choice = ModelChoice(flags.model_name, flags.models_dir, flags.precision, flags.threads, not flags.no_cache)
    directory, vocabulary = choice.find()
    size = paper.released_size(directory.hparams)
    protocol = protocol_of(directory.hparams.n_ctx, vocabulary, flags.window, flags.stride, not flags.no_start)
    texts, n_bytes = source.open(vocabulary) if source.is_given else ([], None)
    paths = {task.name: _find_data(task, flags.data, flags.data_dir) for task in selected}
    model = choice.load(directory, vocabulary)

    def show(result: TaskResult) -> None:
        if flags.json:
            print(report.as_json(result, str(directory.path), size), flush=True)
        else:
            print(*report.as_table(result, size), sep="\n", flush=True)

    if source.is_given:
        if flags.limit is not None:
            texts, n_bytes = first_characters(texts, flags.limit), None
        with bar(SCORING) as progress:
            result = measure_texts(model, texts, protocol, progress, n_bytes)
        show(result)
    settings = TaskSettings(flags.window, flags.stride, not flags.no_start, flags.limit)
    for task in selected:
        with bar(f"{SCORING} {task.name}", unit="") as progress:
            result = tasks.run_task(model, task, paths[task.name], settings, progress)
        show(result)


def _select_tasks(flags: EvaluateFlags, source: TextInput) -> Sequence[Task]:
    """Return the requested tasks, or no tasks if a text is given.

    Raises:
        UsageError: Neither or both of tasks and a text are given, a task is unknown, or a flag does not fit.
    """
    from gpt2.evaluation import tasks

    if source.is_given == (flags.tasks is not None):
        names = ", ".join(tasks.TASKS)
        raise UsageError(f"give either tasks or a text (in_text or text); the tasks are {names}, or all")
    selected = [] if flags.tasks is None else tasks.select_tasks(flags.tasks)
    if flags.data is not None and len({task.data for task in selected}) != 1:
        raise UsageError("data is for a single task; give data_dir for several")
    return selected


def _find_data(task: Task, data: str | None, data_dir: str | None) -> Path:
    """Return the path of a task's data, downloaded if necessary."""
    from gpt2.cli.progress_bars import FETCHING, bars
    from gpt2.evaluation import datasets, tasks

    if data is not None:
        path = expand_path(data)
        if not (files.is_file(path) or files.is_folder(path)):
            raise GPT2Error(f"{path} does not exist; leave out --data to download it")
        return path
    with bars(FETCHING) as report:
        folder = expand_path(data_dir) if data_dir else datasets.default_folder()
        return tasks.find_data(task, folder, report, report.verifying)
