"""The command score.py, which shows a model's log-probabilities of a text, token by token."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from gpt2.cli.command import print_error_line
from gpt2.cli.models import ModelChoice
from gpt2.cli.text_input import TextInput
from gpt2.cli.text_output import open_output
from gpt2.errors import UsageError
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
from gpt2.text.vocabulary import Vocabulary

if TYPE_CHECKING:  # imports packages that --help does not need
    from gpt2.evaluation.scores import ScoredTokens


@dataclass(frozen=True)
class ScoreFlags:
    """The flags of score.py."""

    in_text: OptionalInText = None
    text: Text = None
    by: Annotated[str, Flag(expects="a name", help="unit of the scores: token, word, line or file")] = "token"
    next: Annotated[int | None, Flag(help="list the N most likely next tokens instead of scores", minimum=1)] = None
    likeliest: Annotated[int, Flag(help="number of most likely tokens to show with each token", minimum=0)] = 0
    form: Annotated[
        str | None,
        Flag(expects="a name", help="table, csv, jsonl or html; if not given, derived from the extension of --out"),
    ] = None
    out: Annotated[str | None, Flag(expects="a path", help="the file to write; stdout if not given")] = None
    model_name: ModelName = DEFAULT_MODEL
    models_dir: ModelsDir = DEFAULT_MODELS_DIR
    window: Window = None
    stride: Stride = None
    precision: Precision = DEFAULT_PRECISION
    threads: Threads = None
    encoding: Encoding = "utf-8"
    csv_header: CsvHeader = False
    no_cache: NoCache = False
    column: Column = None
    no_header: NoHeader = False


def score_text(flags: ScoreFlags) -> None:
    """Show the log-probability, surprisal in bits and rank of each token, word, line or file.

    If no text is given, it is read from stdin. Log-probabilities are natural logarithms; rank 1 is the most likely
    token, and a unit of several tokens has the largest of their ranks. Each token sees at least half a window of
    context, unless --stride is given; <|endoftext|> precedes each text. --next 20 lists the 20 most likely next
    tokens instead.
    """
    from gpt2.data.documents import CsvFormat  # imports packages that --help does not need

    model = ModelChoice(flags.model_name, flags.models_dir, flags.precision, flags.threads, not flags.no_cache)
    csv_format = CsvFormat.from_flags(flags.column, flags.no_header, flags.csv_header)
    source = TextInput(flags.in_text, flags.text, flags.encoding, csv_format)
    if flags.next is None:
        _score(model, source, flags)
    else:
        _list_next_tokens(model, source, flags.next, flags.form, flags.out)


def _score(choice: ModelChoice, source: TextInput, flags: ScoreFlags) -> None:
    """Write the scores of each unit of the text."""
    from gpt2.cli.progress_bars import SCORING, bar
    from gpt2.engine.scoring import ScoreOptions
    from gpt2.evaluation import output_formats, scores, units
    from gpt2.evaluation.perplexity import BITS_PER_NAT, ScoreTotals, mean, perplexity

    units.check_unit(flags.by)
    form = output_formats.resolve_form(flags.form, Path(flags.out or "").suffix)
    directory, vocabulary = choice.find()
    n_ctx = directory.hparams.n_ctx
    window = n_ctx if flags.window is None else flags.window
    stride = max(1, window // 2) if flags.stride is None else flags.stride
    protocol = scores.protocol_of(n_ctx, vocabulary, window, stride)
    texts, n_bytes = source.open(vocabulary)
    model = choice.load(directory, vocabulary)
    names: list[str] = []
    totals = ScoreTotals()

    def parts() -> Iterator[Iterable[str]]:
        for text in texts:
            names.append(text.name)
            yield text.parts

    with open_output(flags.out) as write, bar(SCORING) as report:
        scored = totals.accumulate(scores.score(model, parts(), protocol, ScoreOptions(True, flags.likeliest)))
        if flags.out is not None or not sys.stdout.isatty():  # in a terminal, the growing table shows the progress
            scored = _report_progress(scored, vocabulary, lambda done: report(done, n_bytes))
        groups = units.group_tokens(units.iterate_tokens(scored, vocabulary), flags.by, names)
        for text in output_formats.FORMS[form](groups):
            write(text)
    bits = mean(totals.nats * BITS_PER_NAT, totals.tokens)
    print_error_line(
        f"{totals.tokens:,} tokens scored: log-probability {-totals.nats:.4f}, {bits:.4f} bits per token, perplexity"
        f" {perplexity(totals.nats, totals.tokens):.4f}; {protocol}"
    )


def _report_progress(
    scored: Iterable[ScoredTokens], vocabulary: Vocabulary, report: Callable[[int], object]
) -> Iterator[ScoredTokens]:
    """Yield the scored tokens, and call `report` with the number of bytes that have been scored."""
    n_bytes = 0
    for tokens in scored:
        n_bytes += len(vocabulary.decode_bytes(tokens.ids))
        report(n_bytes)
        yield tokens


def _list_next_tokens(choice: ModelChoice, source: TextInput, count: int, form: str | None, out: str | None) -> None:
    """Write the most likely next tokens after the first text of a source."""
    from gpt2 import generate
    from gpt2.evaluation import output_formats
    from gpt2.request import Request, Sampling

    form = output_formats.resolve_form(form, Path(out or "").suffix)
    if form not in output_formats.NEXT_FORMS:
        raise UsageError(f"the next tokens can be listed as {', '.join(output_formats.NEXT_FORMS)}, not as {form}")
    directory, vocabulary = choice.find()
    texts, _ = source.open(vocabulary)
    prompt = "".join(next(iter(texts)).parts)
    model = choice.load(directory, vocabulary)
    request = Request(prompt or None, length=1, sampling=Sampling(temperature=0), logprobs=count)
    token_choice = next(generate.completions(model, [request])).tokens[0]
    rows = [
        (rank, vocabulary.token_text(token), logprob)
        for rank, (token, logprob) in enumerate(token_choice.likeliest, start=1)
    ]
    with open_output(out) as write:
        for text in output_formats.NEXT_FORMS[form](rows):
            write(text)
    share = sum(math.exp(logprob) for _, _, logprob in rows)
    print_error_line(f"these tokens have {share:.2%} of the probability")
