"""Scoring of the user's texts, which can have any size because they are read in parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from gpt2.data import documents
from gpt2.errors import printable_name
from gpt2.evaluation.perplexity import METRIC_NAMES, ScoreTotals, TextCounts, text_metrics
from gpt2.evaluation.scores import Protocol, score
from gpt2.evaluation.task import ProgressCallback, TaskMetric, TaskResult
from gpt2.text_batch import Model


class NamedText(NamedTuple):
    """A text in parts, with its name in reports."""

    name: str
    parts: Iterable[str]


def read_files(
    paths: Sequence[Path], encoding: str, csv_format: documents.CsvFormat, last_safe_cut: documents.FindCut
) -> Iterator[NamedText]:
    """Yield the texts of files: one text for each file, or for each row of a .csv or .tsv file.

    An empty file yields an empty text. Consume the parts of each text before you request the next text.

    Args:
        paths: The files.
        encoding: Their encoding.
        csv_format: The layout of .csv and .tsv files.
        last_safe_cut: `Vocabulary.last_safe_cut`, which finds a position to cut a text without changing its tokens.

    Raises:
        GPT2Error: A file is damaged. The message names the file.
    """
    for path in paths:
        name = printable_name(path)
        parts = documents.read([path], encoding, csv_format, last_safe_cut)
        first = next(parts, None)
        if first is None:
            yield NamedText(name, ())
        row = 0
        while first is not None:
            row += 1
            yield NamedText(f"{name}:{row}" if row > 1 else name, _document(first, parts))
            first = next(parts, None)


def _document(first: documents.DocumentPart, following: Iterator[documents.DocumentPart]) -> Iterator[str]:
    part = first
    yield part.text
    while not part.last:
        part = next(following)
        yield part.text


def read_stream(stream: IO[str], name: str, last_safe_cut: documents.FindCut) -> NamedText:
    """Return the text of a stream, in parts that end at the ends of tokens.

    Args:
        stream: The stream, such as stdin.
        name: The name of the text.
        last_safe_cut: `Vocabulary.last_safe_cut`, which finds a position to cut a text without changing its tokens.
    """
    blocks = iter(lambda: stream.read(documents.PART_CHARACTERS), "")
    parts = documents.split_document(blocks, documents.PART_CHARACTERS, last_safe_cut)
    return NamedText(name, (text for text, _ in parts))


def first_characters(texts: Iterable[NamedText], limit: int) -> Iterator[NamedText]:
    """Yield the texts up to their first `limit` characters (Unicode code points) in all, and read no text after them.

    Args:
        texts: The texts.
        limit: The number of characters, at least 1.
    """
    remaining = limit

    def cut(parts: Iterable[str]) -> Iterator[str]:
        nonlocal remaining
        for part in parts:
            shortened = part[:remaining]
            remaining -= len(shortened)
            yield shortened
            if not remaining:
                return

    for text in texts:
        yield NamedText(text.name, cut(text.parts))
        if not remaining:
            return


def measure_texts(
    model: Model,
    texts: Iterable[NamedText],
    protocol: Protocol,
    progress: ProgressCallback,
    total_bytes: int | None = None,
) -> TaskResult:
    """Return the perplexities and bits per byte of all texts combined.

    Args:
        model: The model.
        texts: The texts.
        protocol: The windows in which tokens are scored.
        progress: Progress callback: called with (done, total) bytes.
        total_bytes: The size of all texts, if known.
    """
    counts = TextCounts()
    totals = ScoreTotals()
    names = []
    done = 0

    def parts() -> Iterator[Iterator[str]]:
        for text in texts:
            names.append(text.name)
            yield counts.count(text.parts)

    for scored in totals.accumulate(score(model, parts(), protocol)):
        done += len(model.encoder.decode_bytes(scored.ids))
        progress(done, total_bytes)
    values = text_metrics(totals.nats, totals.tokens, counts)
    metrics = [TaskMetric(METRIC_NAMES[key], value) for key, value in values.items()]
    sizes = {
        "texts": len(names),
        "tokens": totals.tokens,
        "words": counts.words,
        "lines": counts.lines,
        "bytes": counts.bytes,
    }
    name = names[0] if len(names) == 1 else f"{len(names)} texts"
    return TaskResult(name, str(protocol), metrics, sizes)
