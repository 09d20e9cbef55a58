"""Tasks that are a text: its perplexity, by each of the things that published numbers were divided by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from gpt2.errors import DamagedFileError
from gpt2.evaluation import detokenize, paper
from gpt2.evaluation.datasets import ENWIK8, PTB, TEXT8, WIKITEXT2, DataFile
from gpt2.evaluation.perplexity import ScoreTotals, TextCounts, measures
from gpt2.evaluation.scores import protocol_of, score_ids
from gpt2.evaluation.task import Progress, Task, TaskMetric, TaskResult, TaskSettings
from gpt2.generate import Model

LABELS = {
    "perplexity": "perplexity per token",
    "perplexity_per_word": "perplexity per word",
    "perplexity_per_word_or_line_end": "perplexity per word or line end",
    "bits_per_byte": "bits per byte",
    "bits_per_character": "bits per character",
}


class CorpusTask(NamedTuple):
    """A text. read: what is scored of a file's text; about: how the protocol calls it; column: of the paper's table,
    measure: what is reported there."""

    name: str
    read: Callable[[str], str]
    about: str
    column: str = ""
    measure: str = ""
    data: DataFile = WIKITEXT2
    test_share: int = 1  # the last part of the file, one of so many

    def run(self, model: Model, file: IO[bytes], path: Path, settings: TaskSettings, progress: Progress) -> TaskResult:
        """See `Task`."""
        protocol = protocol_of(model.hparams.n_ctx, model.encoder, settings.window, settings.stride, settings.start)
        original, counts, totals = (
            _decoded(file.read(), path, self.test_share)[: settings.limit],
            TextCounts(),
            ScoreTotals(),
        )
        ids = np.array(model.encoder.encode(self.read("".join(counts.count([original])))), np.int32)
        done = 0
        for scored in totals.accumulate(score_ids(model, [[ids]], protocol)):
            done += len(scored.ids)
            progress(done, len(ids))
        found = measures(totals.nats, totals.tokens, counts)
        columns = {self.measure: self.column}
        numbers = [TaskMetric(LABELS[key], value, columns.get(key, "")) for key, value in found.items()]
        sizes = {"tokens": totals.tokens, "words": counts.words, "lines": counts.lines, "bytes": counts.bytes}
        said = f"{self.about}; {protocol}; words, line ends and bytes are those of the text as it was published"
        return TaskResult(self.name, said, numbers, sizes)


def _decoded(data: bytes, path: Path, test_share: int) -> str:
    """The last of so many parts, from the first whole character on. Raises Damaged."""
    start = len(data) - len(data) // test_share
    while start < len(data) and data[start] & 0xC0 == 0x80:
        start += 1
    try:
        return data[start:].decode("utf-8")
    except UnicodeDecodeError as error:
        raise DamagedFileError(path, f"it is not UTF-8 at byte {start + error.start}") from error


def _as_it_is(text: str) -> str:
    return text


def _wikitext(text: str) -> str:
    return detokenize.detokenized(text, detokenize.WIKITEXT)


def _ptb(text: str) -> str:
    return detokenize.detokenized(text, detokenize.PTB)


LAST = "the last twentieth of {}, of which it has 5,000,000 {}, as it is"
WIKITEXT = "the raw test text of WikiText, which is the same in WikiText-2 and WikiText-103, {}detokenized, as one text"
CORPORA = (
    CorpusTask("wikitext2", _wikitext, WIKITEXT.format(""), paper.WIKITEXT2, "perplexity"),
    CorpusTask("wikitext103", _wikitext, WIKITEXT.format(""), paper.WIKITEXT103, "perplexity_per_word"),
    CorpusTask("wikitext-as-it-is", _as_it_is, WIKITEXT.format("not ")),
    CorpusTask(
        "ptb",
        _ptb,
        "the test text of Penn Treebank, detokenized, as one text",
        paper.PTB,
        "perplexity_per_word_or_line_end",
        PTB,
    ),
    CorpusTask("enwik8", _as_it_is, LAST.format("enwik8", "bytes"), paper.ENWIK8, "bits_per_byte", ENWIK8, 20),
    CorpusTask("text8", _as_it_is, LAST.format("text8", "characters"), paper.TEXT8, "bits_per_character", TEXT8, 20),
)
TASKS = [Task(each.name, each.about, each.data, each.run, each.data.member) for each in CORPORA]
