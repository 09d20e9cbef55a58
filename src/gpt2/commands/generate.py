"""The command generate.py, which generates a file of texts for a file of prompts."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from gpt2.cli.command import print_error_line
from gpt2.cli.models import ModelChoice
from gpt2.errors import UsageError
from gpt2.flags import (
    BatchSize,
    Encoding,
    Flag,
    FrequencyPenalty,
    MinP,
    ModelName,
    ModelsDir,
    NoHeader,
    Precision,
    PresencePenalty,
    RepetitionPenalty,
    Seed,
    Stop,
    Temperature,
    Threads,
    TopK,
    TopP,
)
from gpt2.formats.directory import ModelDir
from gpt2.formats.model_dir import DEFAULT_MODEL, DEFAULT_MODELS_DIR
from gpt2.request import DEFAULT_PRECISION, Request, Sampling

if TYPE_CHECKING:  # imports packages that --help does not need
    from gpt2.bulk.source import PromptSource

FORMS = "text, jsonl, csv or parquet; if not given, derived from the file's extension"
# Flags that do not change the texts: a job can be resumed with other values of them.
NOT_SETTINGS = ("prompts", "out", "models_dir", "batch_size", "threads", "processes", "ray")


@dataclass(frozen=True)
class GenerateFlags:
    """The flags of generate.py."""

    prompts: Annotated[
        str,
        Flag(
            expects="a path",
            help="the file of prompts: .jsonl, .csv, .parquet, otherwise text with one prompt per line; - is stdin",
        ),
    ]
    out: Annotated[
        str,
        Flag(
            expects="a path",
            help="the file to write: .jsonl, .csv, .parquet (a folder), otherwise text; - is stdout",
        ),
    ]
    model_name: ModelName = DEFAULT_MODEL
    length: Annotated[
        int | None,
        Flag(help="maximum number of new tokens; half the model's window if not given"),
    ] = None
    temperature: Temperature = 1.0
    top_k: TopK = 0
    top_p: TopP = 1.0
    seed: Seed = None
    stop: Stop = ()
    n: Annotated[int, Flag(help="number of texts to generate for each prompt", minimum=1)] = 1
    batch_size: BatchSize = 32
    precision: Precision = DEFAULT_PRECISION
    models_dir: ModelsDir = DEFAULT_MODELS_DIR
    repetition_penalty: RepetitionPenalty = 1.0
    frequency_penalty: FrequencyPenalty = 0.0
    presence_penalty: PresencePenalty = 0.0
    min_p: MinP = 0.0
    logprobs: Annotated[
        int | None,
        Flag(help="write the log-probabilities of each token and of the N most likely tokens", minimum=0),
    ] = None
    ignore_eos: Annotated[bool, Flag(help="continue after the tokens that end a text, such as <|endoftext|>")] = False
    column: Annotated[
        str | None,
        Flag(
            expects="a name",
            help="the column of the prompts; `prompt`, or a table's first column, if not given",
        ),
    ] = None
    template: Annotated[
        str | None, Flag(help="template of the prompts with names of columns, such as 'Product: {name}\\n'")
    ] = None
    id_column: Annotated[
        str,
        Flag(expects="a name", help="the column of the ids in the output; a row without an id gets its number"),
    ] = "id"
    in_form: Annotated[str | None, Flag(expects="a name", help=f"format of the prompts: {FORMS}")] = None
    out_form: Annotated[str | None, Flag(expects="a name", help=f"format of the output: {FORMS}")] = None
    delimiter: Annotated[
        str | None, Flag(help="text between two prompts in a text file, and between two texts in the output")
    ] = None
    no_header: NoHeader = False
    encoding: Encoding = "utf-8"
    threads: Threads = None
    processes: Annotated[
        int, Flag(help="number of processes that generate, each with its share of the cores", minimum=1)
    ] = 1
    ray: Annotated[
        str | None,
        Flag(
            expects="an address",
            help="address of a Ray cluster whose machines generate; `local` starts one on this machine",
        ),
    ] = None


def generate(flags: GenerateFlags) -> None:
    """Generate a text for each prompt of a file: text with one prompt per line, JSON lines, CSV or Parquet.

    The same command resumes an interrupted job and generates no row twice. The rows of JSON lines may have their own
    settings, under OpenAI's names. Each text depends only on its prompt, settings and seed; a row without a seed
    uses the job's seed and its row number.
    """
    from gpt2.bulk import file_formats, job
    from gpt2.bulk.row_queue import RowQueue
    from gpt2.bulk.rows import RowDefaults
    from gpt2.bulk.source import SourceProgress
    from gpt2.cli import bulk_job

    if flags.processes > 1 and flags.ray is not None:
        raise UsageError("give processes or ray, not both")
    choice = ModelChoice(flags.model_name, flags.models_dir, flags.precision, flags.threads)
    directory, vocabulary = choice.find()
    source = bulk_job.open_prompts(
        flags.prompts, flags.in_form, flags.delimiter, flags.encoding, not flags.no_header, flags.column
    )
    request = _request(flags, directory.hparams.n_ctx)
    out_form = file_formats.choose_format(flags.out_form, flags.out)
    settings = _settings(flags, source, out_form, directory)
    with contextlib.ExitStack() as stack:
        output, seed = stack.enter_context(bulk_job.open_output(flags.out, source, directory, vocabulary, settings))
        request = dataclasses.replace(request, seed=seed)
        column = flags.column or "prompt"
        defaults = RowDefaults(request, flags.n, flags.logprobs, column, flags.template, flags.id_column)
        progress = SourceProgress()
        queue = RowQueue(job.read_rows(source, defaults, progress, output), output.finished_numbers)
        queue.fill()  # reports errors of the input before the model is loaded
        executor = stack.enter_context(
            bulk_job.start_executor(choice, directory, vocabulary, flags.batch_size, flags.processes, flags.ray)
        )
        print_error_line(f"seed {seed}")
        totals = job.run(
            queue, executor, output, stack.enter_context(bulk_job.bar(len(output.finished_numbers), progress))
        )
    bulk_job.report_totals(totals, output)


def _request(flags: GenerateFlags, n_ctx: int) -> Request:
    """Return the request of a row without its own settings; its seed follows when the output is open."""
    sampling = Sampling(
        flags.temperature,
        flags.top_k,
        flags.top_p,
        flags.repetition_penalty,
        flags.frequency_penalty,
        flags.presence_penalty,
        flags.min_p,
    )
    length = n_ctx // 2 if flags.length is None else flags.length
    return Request(None, length, sampling, stop=flags.stop, end_of_text=not flags.ignore_eos)


def _settings(flags: GenerateFlags, source: PromptSource, out_form: str, directory: ModelDir) -> dict[str, Any]:
    """Return everything that the output depends on, by the flags' names, as the job's journal records it."""
    values = {name: value for name, value in dataclasses.asdict(flags).items() if name not in NOT_SETTINGS}
    values["model_name"] = [directory.path.name, directory.weights_path.name]
    values["in_form"] = source.file_format
    values["out_form"] = out_form
    values["stop"] = list(flags.stop)
    return values
