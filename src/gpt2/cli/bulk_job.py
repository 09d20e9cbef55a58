"""The parts of a bulk job: its prompts, its output, its executor and its progress."""

from __future__ import annotations

import contextlib
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2.bulk import cluster, file_formats, job, journal, output, parquet_rows, processes
from gpt2.bulk import source as sources
from gpt2.bulk.batch_worker import BatchWorker
from gpt2.bulk.weights_identity import weights_identity
from gpt2.bulk.workers import InProcessExecutor, WorkerConfig, WorkerExecutor
from gpt2.cli.command import print_error_line
from gpt2.cli.models import ModelChoice
from gpt2.cli.progress_bars import WIDTH
from gpt2.devices import available_cores
from gpt2.errors import GPT2Error, UsageError
from gpt2.files import expand_path
from gpt2.formats.directory import ModelDir
from gpt2.text.undecodable import check_encoding

if TYPE_CHECKING:
    from gpt2.bulk.job import JobTotals
    from gpt2.bulk.output import JobOutput
    from gpt2.bulk.source import PromptSource, SourceProgress
    from gpt2.bulk.workers import Executor
    from gpt2.text.vocabulary import Vocabulary

STDIN_OR_STDOUT = "-"


def open_prompts(
    prompts: str, form: str | None, delimiter: str | None, encoding: str, header: bool, column: str | None
) -> PromptSource:
    """Return the source of the prompts, after checking that it can be read.

    Args:
        prompts: The path of a file, or "-" for stdin.
        form: The format of the prompts; None derives it from the file's extension.
        delimiter: Separator of prompts in a text file; None is the end of a line.
        encoding: The encoding of the file.
        header: Whether the first row of a .csv holds the names of the columns.
        column: The column of the prompts; None is `prompt`, or the first column of a table.

    Raises:
        GPT2Error: The file cannot be read.
        UsageError: A value is not allowed.
    """
    check_encoding(encoding)
    path = prompts if prompts == STDIN_OR_STDOUT else str(expand_path(prompts))
    source = sources.PromptSource(path, file_formats.choose_format(form, path), delimiter, encoding, header, column)
    sources.check_source(source)
    return source


@contextlib.contextmanager
def open_output(
    path: str, source: PromptSource, directory: ModelDir, vocabulary: Vocabulary, settings: Mapping[str, Any]
) -> Iterator[tuple[JobOutput, int]]:
    """Yield the output of a new or a resumed job, and the job's seed.

    Args:
        path: The path of the output, or "-" for stdout.
        source: The prompts.
        directory: The model's directory; some formats of the output contain its name.
        vocabulary: The model's vocabulary.
        settings: Everything that the output depends on, by the flags' names. If `seed` is None, the resumed job's seed
            is used, or a new one.

    Raises:
        GPT2Error: The output cannot be written, or was started with other settings or another input.
        UsageError: A value is not allowed.
    """
    form = settings["out_form"]
    delimiter = settings["delimiter"]
    seed = secrets.randbits(32) if settings["seed"] is None else settings["seed"]
    expanded = expand_path(path)
    is_folder = form == file_formats.PARQUET
    if is_folder:
        parquet_rows.import_parquet()
    if delimiter is not None and file_formats.TEXT not in (form, source.file_format):
        raise UsageError("delimiter is for text files, and neither the prompts nor the output is one; leave it out")
    if path == STDIN_OR_STDOUT or (expanded.exists() and not expanded.is_file() and not is_folder):
        if is_folder:
            raise UsageError("Parquet cannot be written to stdout; out must be the path of a folder")
        with contextlib.nullcontext(sys.stdout.buffer) if path == STDIN_OR_STDOUT else expanded.open("wb") as file:
            yield output.StreamOutput(file, file_formats.row_format(form, directory.path.name, delimiter)), seed
        return
    given = expanded
    expanded = job.find_output(given)
    journal.adopt_journal(given, expanded)
    with _removing_unstarted(expanded), journal.open_journal(expanded) as job_journal:
        job.check_journal(job_journal)
        if settings["seed"] is None and job_journal.settings is not None:
            seed = job_journal.settings[job.SEED_KEY]
        identity = {job.SEED_KEY: seed, job.WEIGHTS_KEY: weights_identity(directory, vocabulary)}
        job.start(job_journal, expanded, {**settings, **identity}, source)
        assert job_journal.settings is not None
        name = job_journal.settings[job.MODEL_KEY][0]  # a copy of the model may have another name
        # Parquet has no row format, because it is written into a folder.
        file_form = None if is_folder else file_formats.row_format(form, name, delimiter)
        with output.open_output(expanded, file_form, job_journal) as job_output:
            job.warn_if_outdated(job_journal)
            yield job_output, seed


@contextlib.contextmanager
def _removing_unstarted(out: Path) -> Iterator[None]:
    """If the block fails before the first row is written, remove the new output and its journal.

    Otherwise the corrected command would be taken for a resumed job with other settings.
    """
    paths = [out, journal.journal_path(out)]
    is_new = not any(path.exists() for path in paths)
    try:
        yield
    except GPT2Error:
        if is_new and not job.has_rows(out):
            for path in paths:
                path.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def start_executor(
    choice: ModelChoice,
    directory: ModelDir,
    vocabulary: Vocabulary,
    batch_size: int,
    n_processes: int,
    ray_address: str | None,
) -> Iterator[Executor]:
    """Yield the executor that generates the rows: a Ray cluster, several processes, or this process.

    Args:
        choice: The flags of the model.
        directory: The model's directory.
        vocabulary: The model's vocabulary.
        batch_size: Number of texts that each worker generates together.
        n_processes: Number of processes; above 1, they share the cores.
        ray_address: The address of a Ray cluster; None uses this machine without Ray.

    Raises:
        GPT2Error: The model is damaged, or a worker cannot be started.
    """
    config = WorkerConfig(str(directory.path.absolute()), choice.precision, choice.threads, batch_size)
    if ray_address is not None:
        with cluster.RayCluster(config, ray_address) as workers:
            n_machines = len(workers.actors)
            print_error_line(f"{directory.path.name} on {n_machines} machines of the cluster at {ray_address}")
            yield WorkerExecutor(workers, batch_size)
    elif n_processes > 1:
        threads = max(1, (choice.threads or available_cores()) // n_processes)
        with processes.ProcessGroup(config._replace(threads=threads), n_processes) as workers:
            print_error_line(
                f"{directory.path.name} in {n_processes} processes of {threads} threads ({choice.precision})"
            )
            yield WorkerExecutor(workers, batch_size)
    else:
        yield InProcessExecutor(BatchWorker(choice.load(directory, vocabulary), batch_size))


@contextlib.contextmanager
def bar(n_done: int, progress: SourceProgress) -> Iterator[Callable[[JobTotals], None]]:
    """Yield a progress callback that shows rows, tokens per second and the time left.

    If the size of the input is unknown, the time left is not shown.

    Args:
        n_done: Rows that earlier runs of the job have done.
        progress: The progress of reading the input.
    """
    from tqdm import tqdm

    start = time.monotonic()
    with tqdm(desc="Generating", unit=" rows", initial=n_done, ncols=WIDTH, mininterval=0.5) as progress_bar:

        def report(totals: JobTotals) -> None:
            share = progress.share()
            progress_bar.total = round(progress.rows / share) if share else None
            tokens_per_second = totals.tokens / max(1e-9, time.monotonic() - start)
            progress_bar.set_postfix_str(f"{tokens_per_second:.0f} tokens/s", refresh=False)
            progress_bar.update(n_done + totals.rows - progress_bar.n)

        yield report


def report_totals(totals: JobTotals, output: JobOutput) -> None:
    """Print the number of rows in the output.

    Raises:
        GPT2Error: Some rows have errors.
    """
    count = len(output.finished_numbers)
    print_error_line(f"{count:,} rows, {totals.rows:,} of them from this run")
    if output.n_errors:
        first_errors = f": {'; '.join(totals.errors)}" if totals.errors else ""
        raise GPT2Error(f"{output.n_errors:,} of {count:,} rows have an error{first_errors}")
