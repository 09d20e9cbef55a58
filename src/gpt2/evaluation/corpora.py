"""Tasks that measure the perplexity per token and per word, and the bits per byte and per character, of a text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from gpt2.errors import DamagedFileError
from gpt2.evaluation import detokenize, paper
from gpt2.evaluation.datasets import ENWIK8, PTB, TEXT8, WIKITEXT2, DataFile
from gpt2.evaluation.perplexity import METRIC_NAMES, ScoreTotals, TextCounts, text_metrics
from gpt2.evaluation.scores import protocol_of, score_ids
from gpt2.evaluation.task import ProgressCallback, Task, TaskMetric, TaskResult, TaskSettings
from gpt2.text_batch import Model


class CorpusTask(NamedTuple):
    """A task that scores one text.

    Attributes:
        name: The name on the command line.
        preprocess: Called with the published text; returns the text to score.
        about: A description for the protocol.
        paper_column: The column of the paper's table that reports this text; "" if there is none.
        paper_metric: The key in METRIC_NAMES of the metric in that column.
        data: The file with the text.
        parts: The number of equal parts of the file, of which only the last is scored.
    """

    name: str
    preprocess: Callable[[str], str]
    about: str
    paper_column: str = ""
    paper_metric: str = ""
    data: DataFile = WIKITEXT2
    parts: int = 1

    def run(
        self, model: Model, file: IO[bytes], path: Path, settings: TaskSettings, progress: ProgressCallback
    ) -> TaskResult:
        """Score the text of a file; see `Task.run`."""
        protocol = protocol_of(model.hparams.n_ctx, model.encoder, settings.window, settings.stride, settings.start)
        original = _decode_last_part(file.read(), path, self.parts)[: settings.limit]
        counts = TextCounts()
        totals = ScoreTotals()
        ids = np.array(model.encoder.encode(self.preprocess("".join(counts.count([original])))), np.int32)
        done = 0
        for scored in totals.accumulate(score_ids(model, [[ids]], protocol)):
            done += len(scored.ids)
            progress(done, len(ids))
        columns = {self.paper_metric: self.paper_column}
        values = text_metrics(totals.nats, totals.tokens, counts)
        metrics = [TaskMetric(METRIC_NAMES[key], value, columns.get(key, "")) for key, value in values.items()]
        sizes = {"tokens": totals.tokens, "words": counts.words, "lines": counts.lines, "bytes": counts.bytes}
        about = f"{self.about}; {protocol}; words, line ends and bytes are counted in the published text"
        return TaskResult(self.name, about, metrics, sizes)


def _decode_last_part(data: bytes, path: Path, parts: int) -> str:
    """Decode the last of `parts` equal parts, starting at its first whole character."""
    start = len(data) - len(data) // parts
    while start < len(data) and data[start] & 0xC0 == 0x80:  # a UTF-8 continuation byte
        start += 1
    try:
        return data[start:].decode("utf-8")
    except UnicodeDecodeError as error:
        raise DamagedFileError(path, f"it is not UTF-8 at byte {start + error.start}") from error


def _unchanged(text: str) -> str:
    return text


def _detokenize_wikitext(text: str) -> str:
    return detokenize.detokenize(text, detokenize.WIKITEXT)


def _detokenize_ptb(text: str) -> str:
    return detokenize.detokenize(text, detokenize.PTB)


LAST_PART = "the last twentieth of {}, which has 5,000,000 {}, unchanged"
WIKITEXT = "the raw test text of WikiText (the same in WikiText-2 and WikiText-103), {}detokenized, as one text"
CORPORA = (
    CorpusTask("wikitext2", _detokenize_wikitext, WIKITEXT.format(""), paper.WIKITEXT2, "perplexity"),
    CorpusTask("wikitext103", _detokenize_wikitext, WIKITEXT.format(""), paper.WIKITEXT103, "perplexity_per_word"),
    CorpusTask("wikitext-as-it-is", _unchanged, WIKITEXT.format("not ")),
    CorpusTask(
        "ptb",
        _detokenize_ptb,
        "the test text of Penn Treebank, detokenized, as one text",
        paper.PTB,
        "perplexity_per_word_or_line_end",
        PTB,
    ),
    CorpusTask("enwik8", _unchanged, LAST_PART.format("enwik8", "bytes"), paper.ENWIK8, "bits_per_byte", ENWIK8, 20),
    CorpusTask(
        "text8", _unchanged, LAST_PART.format("text8", "characters"), paper.TEXT8, "bits_per_character", TEXT8, 20
    ),
)
TASKS = [Task(corpus.name, corpus.about, corpus.data, corpus.run, corpus.data.member) for corpus in CORPORA]
