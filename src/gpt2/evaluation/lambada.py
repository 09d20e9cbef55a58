"""LAMBADA: the last word of a passage, which people guess from all of it and not from its last sentence alone (Paperno
et al. 2016). OpenAI's own copy, in the two readings under which numbers were published."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

from gpt2.engine.scoring import ScoreOptions, Span, score_spans
from gpt2.errors import DamagedFileError
from gpt2.evaluation import paper
from gpt2.evaluation.datasets import LAMBADA
from gpt2.evaluation.multiple_choice import continuation, fit_window
from gpt2.evaluation.perplexity import mean, perplexity
from gpt2.evaluation.task import Progress, Task, TaskMetric, TaskResult, TaskSettings, json_lines
from gpt2.generate import Model

TOKEN = (
    "the last token of each passage given all before it, as the paper counts: a hit if it is the likeliest; passages"
    " stripped, after a line end, with straight quotation marks; OpenAI's own copy, without a filter of stop words"
)
WORD = (
    "the last word of each passage, with the space before it, given all before it: a hit if each of its tokens is the"
    " likeliest; OpenAI's own copy as it is (lambada_openai of EleutherAI's lm-evaluation-harness)"
)


def last_token(model: Model, text: str) -> Span:
    """The paper's reading; what is done to the text is told in github.com/openai/gpt-2/issues/131."""
    text = "\n" + text.replace("“", '"').replace("”", '"').strip()
    return Span(fit_window(model, model.encoder.encode(text)), 1)


def last_word(model: Model, text: str) -> Span:
    context, space, word = text.rpartition(" ")
    return continuation(model, context, space + word)


class LambadaTask(NamedTuple):
    """A reading of the passages. read: what is scored of one; columns: of the paper's table, for perplexity and
    accuracy."""

    name: str
    protocol: str
    read: Callable[[Model, str], Span]
    columns: tuple[str, str]

    def run(self, model: Model, file: IO[bytes], path: Path, settings: TaskSettings, progress: Progress) -> TaskResult:
        """See `Task`."""
        found = itertools.islice(json_lines(file, path, ["text"]), settings.limit)
        passages = [str(passage["text"]) for passage in found]
        if not all(map(str.strip, passages)):
            raise DamagedFileError(path, "it has a passage without a word")
        spans = (self.read(model, passage) for passage in passages)
        hits, nats, done = 0, 0.0, 0
        for done, told in enumerate(score_spans(model.backend, spans, ScoreOptions(ranks=True)), start=1):
            hits += bool((told.ranks == 1).all())
            nats -= float(told.logprobs.sum(dtype=float))
            progress(done, len(passages))
        values = perplexity(nats, done), 100 * mean(hits, done)
        numbers = [TaskMetric(*each) for each in zip(("perplexity", "accuracy, %"), values, self.columns)]
        return TaskResult(self.name, self.protocol, numbers, {"passages": done})


READINGS = (
    LambadaTask("lambada", TOKEN, last_token, (paper.LAMBADA_PPL, paper.LAMBADA_ACC)),
    LambadaTask("lambada-word", WORD, last_word, ("", "")),
)
TASKS = [Task(each.name, each.protocol, LAMBADA, each.run) for each in READINGS]
