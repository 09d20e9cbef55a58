"""What the command score.py does: a text, and what the model thinks of it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gpt2.cli.command import print_error_line
from gpt2.cli.models import ModelFlags, TextFlags, found, loaded, output, texts
from gpt2.errors import UsageError
from gpt2.text.vocabulary import Vocabulary

if TYPE_CHECKING:  # it needs packages, which --help does not
    from gpt2.evaluation.scores import ScoredTokens


class Wanted(NamedTuple):
    """The flags that say what of a text is told, and how."""

    by: str
    likeliest: int
    form: str | None
    out: str | None
    window: int | None
    stride: int | None


def score(chosen: ModelFlags, source: TextFlags, wanted: Wanted) -> None:
    """Writes what the model thinks of each token, word, line or file."""
    from gpt2.cli.progress_bars import SCORING, bar
    from gpt2.engine.scoring import ScoreOptions
    from gpt2.evaluation import output_formats, scores, units
    from gpt2.evaluation.perplexity import BITS_PER_NAT, ScoreTotals, mean, perplexity

    units.check_unit(wanted.by)
    form = output_formats.resolve_form(wanted.form, Path(wanted.out or "").suffix)
    directory, vocabulary = found(chosen)
    n_ctx = directory.hparams.n_ctx
    window = n_ctx if wanted.window is None else wanted.window
    stride = max(1, window // 2) if wanted.stride is None else wanted.stride
    protocol = scores.protocol_of(n_ctx, vocabulary, window, stride)
    some, size = texts(source, vocabulary)
    model, names, totals = loaded(directory, vocabulary, chosen), [], ScoreTotals()

    def parts() -> Iterator[Iterable[str]]:
        for text in some:
            names.append(text.name)
            yield text.parts

    with output(wanted.out) as write, bar(SCORING) as report:
        told = totals.accumulate(scores.score(model, parts(), protocol, ScoreOptions(True, wanted.likeliest)))
        if wanted.out is not None or not sys.stdout.isatty():  # else the table is seen as it grows
            told = _reported(told, vocabulary, lambda done: report(done, size))
        listed = units.group_tokens(units.iterate_tokens(told, vocabulary), wanted.by, names)
        for piece in output_formats.FORMS[form](listed):
            write(piece)
    bits = mean(totals.nats * BITS_PER_NAT, totals.tokens)
    print_error_line(
        f"{totals.tokens:,} tokens scored: log-probability {-totals.nats:.4f}, {bits:.4f} bits per token, perplexity"
        f" {perplexity(totals.nats, totals.tokens):.4f}; {protocol}"
    )


def _reported(
    told: Iterable[ScoredTokens], vocabulary: Vocabulary, report: Callable[[int], object]
) -> Iterator[ScoredTokens]:
    """The same; tells how many bytes have been scored."""
    done = 0
    for scored in told:
        done += len(vocabulary.decode_bytes(scored.ids))
        report(done)
        yield scored


def following(chosen: ModelFlags, source: TextFlags, count: int, form: str | None, out: str | None) -> None:
    """Writes the likeliest tokens that may follow a text, which is the first of its source."""
    from gpt2 import generate
    from gpt2.evaluation import output_formats
    from gpt2.request import Request, Sampling

    form = output_formats.resolve_form(form, Path(out or "").suffix)
    if form not in output_formats.NEXT_FORMS:
        raise UsageError(f"the next tokens are listed as {', '.join(output_formats.NEXT_FORMS)}, not as {form}")
    directory, vocabulary = found(chosen)
    some, _ = texts(source, vocabulary)
    prompt = "".join(next(iter(some)).parts)
    model = loaded(directory, vocabulary, chosen)
    request = Request(prompt or None, length=1, sampling=Sampling(temperature=0), logprobs=count)
    choice = next(generate.completions(model, [request])).tokens[0]
    rows = [
        (rank, vocabulary.token_text(token), logprob) for rank, (token, logprob) in enumerate(choice.likeliest, start=1)
    ]
    with output(out) as write:
        for piece in output_formats.NEXT_FORMS[form](rows):
            write(piece)
    share = sum(math.exp(logprob) for _, _, logprob in rows)
    print_error_line(f"together {share:.2%} of the probability")
