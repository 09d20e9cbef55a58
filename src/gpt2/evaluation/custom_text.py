"""Texts of one's own, of any size: read in parts, scored as they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from gpt2.data import documents
from gpt2.errors import printable_name
from gpt2.evaluation.corpora import LABELS
from gpt2.evaluation.perplexity import ScoreTotals, TextCounts, measures
from gpt2.evaluation.scores import Protocol, score
from gpt2.evaluation.task import Progress, TaskMetric, TaskResult
from gpt2.generate import Model


class NamedText(NamedTuple):
    """A text in parts, and what it is called."""

    name: str
    parts: Iterable[str]


def read_files(
    paths: Sequence[Path], encoding: str, rows: documents.CsvFormat, where: documents.LastCut
) -> Iterator[NamedText]:
    """Each file is a text, and so is each row of a .csv; they are to be read in their order, each to its end.

    where: `last_safe_cut` of the vocabulary. An empty file is a text without tokens. Raises GPT2Error, naming it, for
    one that is damaged.
    """
    for path in paths:
        parts = documents.read([path], encoding, rows, where)
        first, count = next(parts, None), 0
        if first is None:
            yield NamedText(printable_name(path), ())
        while first is not None:
            count += 1
            yield NamedText(
                f"{printable_name(path)}:{count}" if count > 1 else printable_name(path), _document(first, parts)
            )
            first = next(parts, None)


def _document(first: documents.DocumentPart, following: Iterator[documents.DocumentPart]) -> Iterator[str]:
    part = first
    yield part.text
    while not part.last:
        part = next(following)
        yield part.text


def read_stream(stream: IO[str], name: str, where: documents.LastCut) -> NamedText:
    """What comes from a pipe, cut where tokens end."""
    blocks = iter(lambda: stream.read(documents.PART), "")
    return NamedText(name, (text for text, _ in documents.cut(blocks, documents.PART, where)))


def measure_texts(
    model: Model, texts: Iterable[NamedText], protocol: Protocol, progress: Progress, size: int | None = None
) -> TaskResult:
    """Of all texts together. size: bytes of all of them, if that is known."""
    counts, totals, names, done = TextCounts(), ScoreTotals(), [], 0

    def parts() -> Iterator[Iterator[str]]:
        for text in texts:
            names.append(text.name)
            yield counts.count(text.parts)

    for scored in totals.accumulate(score(model, parts(), protocol)):
        done += len(model.encoder.decode_bytes(scored.ids))
        progress(done, size)
    found = measures(totals.nats, totals.tokens, counts)
    sizes = {"texts": len(names), "tokens": totals.tokens, "words": counts.words, "lines": counts.lines}
    name = names[0] if len(names) == 1 else f"{len(names)} texts"
    numbers = [TaskMetric(LABELS[key], value) for key, value in found.items()]
    return TaskResult(name, str(protocol), numbers, {**sizes, "bytes": counts.bytes})
