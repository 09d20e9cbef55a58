"""What the command generate.py does: a file of prompts, and a file of what a model writes for them."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from gpt2.cli.command import print_error_line
from gpt2.cli.models import ModelFlags, found, loaded
from gpt2.devices import available_cores
from gpt2.errors import GPT2Error, UsageError
from gpt2.files import expand_path
from gpt2.formats.directory import ModelDir
from gpt2.request import Request, Sampling

if TYPE_CHECKING:  # they need packages, which --help does not
    from gpt2.bulk.job import JobTotals
    from gpt2.bulk.output import Output
    from gpt2.bulk.source import PromptSource, SourceProgress
    from gpt2.bulk.workers import Executor
    from gpt2.text.vocabulary import Vocabulary

STANDARD = "-"


class Files(NamedTuple):
    """The flags that say what is read and written."""

    prompts: str
    out: str
    in_form: str | None
    out_form: str | None
    column: str | None
    id_column: str
    template: str | None
    delimiter: str | None
    encoding: str
    no_header: bool


class Wanted(NamedTuple):
    """The flags that say what is written for each prompt."""

    length: int | None
    sampling: Sampling
    seed: int | None
    stop: tuple[str, ...]
    n: int
    logprobs: int | None
    ignore_eos: bool


class Workers(NamedTuple):
    """The flags that say who writes."""

    batch_size: int
    processes: int
    ray: str | None


def generate(chosen: ModelFlags, files: Files, wanted: Wanted, workers: Workers) -> None:
    """Writes what the model makes of each prompt. Raises GPT2Error, at the end if rows have errors."""
    from gpt2.bulk import job
    from gpt2.bulk.row_queue import RowQueue
    from gpt2.bulk.rows import RowDefaults
    from gpt2.bulk.source import SourceProgress

    if workers.processes > 1 and workers.ray is not None:
        raise UsageError("give processes or ray, not both")
    directory, vocabulary = found(chosen)
    source = _source(files)
    length = directory.hparams.n_ctx // 2 if wanted.length is None else wanted.length
    request = Request(None, length, wanted.sampling, stop=wanted.stop, end_of_text=not wanted.ignore_eos)
    with contextlib.ExitStack() as stack:
        output, seed = stack.enter_context(_opened(files, wanted, chosen, source, directory))
        request = dataclasses.replace(request, seed=seed)
        asked = RowDefaults(
            request, wanted.n, wanted.logprobs, files.column or "prompt", files.template, files.id_column
        )
        progress = SourceProgress()
        ahead = RowQueue(job.rows(source, asked, progress), output.ended)
        ahead.fill()  # what is wrong with the input is said before the model is loaded
        hands = stack.enter_context(_hands(chosen, workers, directory, vocabulary))
        print_error_line(f"seed {seed}")
        totals = job.run(ahead, hands, output, stack.enter_context(_bar(len(output.ended), progress)))
    _tell(totals, output)


def _source(files: Files) -> PromptSource:
    from gpt2.bulk import file_formats, source
    from gpt2.text.undecodable import check_encoding

    check_encoding(files.encoding)
    path = files.prompts if files.prompts == STANDARD else str(expand_path(files.prompts))
    form = file_formats.form_of(files.in_form, path)
    found = source.PromptSource(path, form, files.delimiter, files.encoding, not files.no_header, files.column)
    source.check(found)
    return found


@contextlib.contextmanager
def _opened(
    files: Files, wanted: Wanted, chosen: ModelFlags, source: PromptSource, directory: ModelDir
) -> Iterator[tuple[Output, int]]:
    """The output, and the job's seed: the one of the flags, or of the job that goes on, or a new one."""
    from gpt2.bulk import file_formats, job, journal, output
    from gpt2.bulk import source as sources

    seed = secrets.randbits(32) if wanted.seed is None else wanted.seed
    form, out = file_formats.form_of(files.out_form, files.out), expand_path(files.out)
    made = None if form == file_formats.PARQUET else file_formats.written_as(form, directory.path.name, files.delimiter)
    if made is None:
        sources.parquet()
    if files.delimiter is not None and file_formats.TEXT not in (form, source.form):
        raise UsageError("delimiter is what stands between texts, and neither file is one of text")
    if files.out == STANDARD or (out.exists() and not out.is_file() and made is not None):
        if made is None:
            raise UsageError("Parquet is written into a folder, not to stdout")
        with contextlib.nullcontext(sys.stdout.buffer) if files.out == STANDARD else out.open("wb") as file:
            yield output.Stream(file, made), seed
        return
    with journal.opened(out) as kept:
        if wanted.seed is None and kept.settings is not None:
            seed = int(kept.settings.get("seed", seed))
        job.begin(kept, out, _settings(files, wanted, chosen, source, form, directory) | {"seed": seed}, source)
        with output.opened(out, made, kept) as opened:
            yield opened, seed


def _settings(
    files: Files, wanted: Wanted, chosen: ModelFlags, source: PromptSource, out_form: str, directory: ModelDir
) -> dict[str, Any]:
    """All that the output depends on, by the flags' names."""
    settings = {**wanted._asdict(), **dataclasses.asdict(wanted.sampling), "precision": chosen.precision}
    settings |= {"model_name": [directory.path.name, directory.weights_path.name]}
    settings |= {name: value for name, value in files._asdict().items() if name not in ("prompts", "out")}
    settings |= {"in_form": source.form, "out_form": out_form, "stop": list(wanted.stop)}
    return {name: value for name, value in settings.items() if name not in ("sampling", "logit_bias")}


@contextlib.contextmanager
def _hands(chosen: ModelFlags, workers: Workers, directory: ModelDir, vocabulary: Vocabulary) -> Iterator[Executor]:
    """Whoever writes."""
    from gpt2.bulk import cluster, processes
    from gpt2.bulk.batch_worker import BatchWorker
    from gpt2.bulk.workers import InProcessExecutor, WorkerConfig, WorkerExecutor

    plan = WorkerConfig(str(directory.path.absolute()), chosen.precision, chosen.threads, workers.batch_size)
    if workers.ray is not None:
        with cluster.Cluster(plan, workers.ray) as machines:
            print_error_line(
                f"{directory.path.name} on {len(machines.actors)} machines of the cluster at {workers.ray}"
            )
            yield WorkerExecutor(machines, workers.batch_size)
    elif workers.processes > 1:
        threads = max(1, (chosen.threads or available_cores()) // workers.processes)
        with processes.Processes(plan._replace(threads=threads), workers.processes) as crew:
            print_error_line(
                f"{directory.path.name} in {workers.processes} processes of {threads} threads ({chosen.precision})"
            )
            yield WorkerExecutor(crew, workers.batch_size)
    else:
        yield InProcessExecutor(BatchWorker(loaded(directory, vocabulary, chosen), workers.batch_size))


@contextlib.contextmanager
def _bar(done: int, progress: SourceProgress) -> Iterator[Callable[[JobTotals], None]]:
    """Shows what a job has come to: rows and tokens a second, and the time that is left where that can be guessed."""
    from tqdm import tqdm

    from gpt2.cli.progress_bars import WIDTH

    start = time.monotonic()
    with tqdm(desc="Writing", unit=" rows", initial=done, ncols=WIDTH, mininterval=0.5) as bar:

        def report(totals: JobTotals) -> None:
            share = progress.share()
            bar.total = round(progress.rows / share) if share else None
            bar.set_postfix_str(f"{totals.tokens / max(1e-9, time.monotonic() - start):.0f} tokens/s", refresh=False)
            bar.update(done + totals.rows - bar.n)

        yield report


def _tell(totals: JobTotals, output: Output) -> None:
    """Raises GPT2Error if rows have errors."""
    count = len(output.ended)
    print_error_line(f"{count:,} rows, {totals.rows:,} of them now")
    if output.errors:
        named = f": {'; '.join(totals.errors)}" if totals.errors else ""
        raise GPT2Error(f"{output.errors:,} of {count:,} rows have an error{named}")
