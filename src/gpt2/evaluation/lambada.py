"""LAMBADA: predict the last word of a passage (Paperno et al. 2016).

People can guess the word from the whole passage, but not from its last sentence alone. The data set is OpenAI's copy,
scored by the two protocols with published results.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

from gpt2.engine.scoring import ScoreOptions, Span, score_spans
from gpt2.errors import DamagedFileError
from gpt2.evaluation import paper
from gpt2.evaluation.datasets import LAMBADA
from gpt2.evaluation.multiple_choice import continuation_span, fit_window
from gpt2.evaluation.perplexity import mean, perplexity
from gpt2.evaluation.task import ProgressCallback, Task, TaskMetric, TaskResult, TaskSettings, read_json_lines
from gpt2.text_batch import Model

LAST_TOKEN = (
    "the last token of each passage given all before it, as in the paper: a hit if it is the most likely one; passages"
    " are stripped, with a newline before them and straight quotation marks; OpenAI's copy, without a stop-word filter"
)
LAST_WORD = (
    "the last word of each passage, with the space before it, given all before it: a hit if each of its tokens is the"
    " most likely one; OpenAI's copy unchanged (lambada_openai of EleutherAI's lm-evaluation-harness)"
)


def last_token_span(model: Model, text: str) -> Span:
    """Return the span that scores the last token, as in the paper.

    github.com/openai/gpt-2/issues/131 describes how the text is normalized.
    """
    text = "\n" + text.replace("“", '"').replace("”", '"').strip()
    return Span(fit_window(model, model.encoder.encode(text)), 1)


def last_word_span(model: Model, text: str) -> Span:
    """Return the span that scores all tokens of the last word."""
    context, space, word = text.rpartition(" ")
    return continuation_span(model, context, space + word)


class LambadaTask(NamedTuple):
    """The LAMBADA task with one of its protocols.

    Attributes:
        name: The name on the command line.
        protocol: A description of the scoring, in one sentence.
        make_span: Called with (model, passage); returns the span to score.
        paper_columns: Columns of the paper's table for perplexity and accuracy; "" if there is none.
    """

    name: str
    protocol: str
    make_span: Callable[[Model, str], Span]
    paper_columns: tuple[str, str]

    def run(
        self, model: Model, file: IO[bytes], path: Path, settings: TaskSettings, progress: ProgressCallback
    ) -> TaskResult:
        """Score the passages of a file; see `Task.run`."""
        examples = itertools.islice(read_json_lines(file, path, ["text"]), settings.limit)
        passages = [str(example["text"]) for example in examples]
        if not all(map(str.strip, passages)):
            raise DamagedFileError(path, "it contains a passage without words")
        spans = (self.make_span(model, passage) for passage in passages)
        hits = 0
        nats = 0.0
        done = 0
        for done, scores in enumerate(score_spans(model.backend, spans, ScoreOptions(ranks=True)), start=1):
            hits += bool((scores.ranks == 1).all())
            nats -= float(scores.logprobs.sum(dtype=float))
            progress(done, len(passages))
        perplexity_column, accuracy_column = self.paper_columns
        metrics = [
            TaskMetric("perplexity", perplexity(nats, done), perplexity_column),
            TaskMetric("accuracy, %", 100 * mean(hits, done), accuracy_column),
        ]
        return TaskResult(self.name, self.protocol, metrics, {"passages": done})


VARIANTS = (
    LambadaTask("lambada", LAST_TOKEN, last_token_span, (paper.LAMBADA_PPL, paper.LAMBADA_ACC)),
    LambadaTask("lambada-word", LAST_WORD, last_word_span, ("", "")),
)
TASKS = [Task(variant.name, variant.protocol, LAMBADA, variant.run) for variant in VARIANTS]
