"""transformer-lm's commands: sp-train, sp-encode, gpt-2 and gpt-2-gen, and gpt-2-lambada.

Flags may be written with dashes or underscores. stdout is the same as in transformer-lm. Unknown flags and invalid
values are rejected before any work starts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from gpt2.cli import command
from gpt2.cli.argument_parser import RaisingArgumentParser, argparse_type
from gpt2.cli.command import print_error_line
from gpt2.cli.declarations import flag_of, parameters_of
from gpt2.devices import check_threads
from gpt2.files import ByteProgress, expand_path, is_file
from gpt2.flags import Flag, Precision, Seed, Temperature, Threads, TopK, TopP
from gpt2.request import DEFAULT_PRECISION, Request, Sampling, check_precision
from gpt2.text.sentencepiece import import_sentencepiece
from lm.options import TransformerLmOptions

if TYPE_CHECKING:
    from lm.training import EncodedCorpus

ModelPath = Annotated[str, Flag(expects="a folder", help="a model directory of any format, or a name under models/")]


@dataclasses.dataclass(frozen=True)
class VocabularyFlags:
    """The flags of sp-train."""

    vocab_size: Annotated[int, Flag(help="number of pieces")] = 50000
    character_coverage: Annotated[float, Flag(help="share of the text's characters that get their own pieces")] = 1.0


def train(options: TransformerLmOptions) -> None:
    """Train a new GPT-2 on the files that sp-encode writes.

    The run's folder is a model directory that every command accepts: --model_name RUN_PATH. To resume a run, repeat the
    command with the same sizes. Ctrl-C saves and ends.
    """
    from gpt2.formats.model_dir import find_vocabulary
    from lm import training

    for remark in options.remarks():
        print_error_line(remark)
    vocabulary = find_vocabulary(options.sp_model_path)
    print(training.params_json(options, vocabulary.n_vocab))
    print(f"Loading dataset from {options.dataset_path}", flush=True)
    corpus = training.EncodedCorpus(expand_path(options.dataset_path), vocabulary)
    print(f"Train dataset has {len(corpus.train):,} tokens")
    print(f"Validation dataset has {len(corpus.valid):,} tokens", flush=True)
    if options.only_validate:
        with _count_bar("validation") as report:
            losses = training.validation_losses(options.folder, corpus, report)
        for name, loss in sorted(losses.items()):
            print(f"{name:<20} {loss:.4f}")
        return
    if options.clean:
        training.remove_run(options.folder)
    _train(options, corpus)


def _train(options: TransformerLmOptions, corpus: EncodedCorpus) -> None:
    from gpt2.cli.command_lines import as_arguments
    from gpt2.cli.training_report import TerminalReport
    from gpt2.training import run
    from lm import training

    seen_tokens, updates = training.run_progress(options)
    settings = training.training_settings(options, corpus)
    if seen_tokens:
        print(f"Resuming from seen_tokens {seen_tokens:,}", flush=True)
    if updates and settings.stop_after == updates:
        more = shlex.join(["gpt-2", *as_arguments(training.continuing_flags(options))])
        print_error_line(f"{options.folder} has already seen {seen_tokens:,} tokens; for more epochs, type: {more}")
        return
    run.train(settings, report=TerminalReport(settings.print_every))
    seen_tokens, _ = training.run_progress(options)
    if options.max_tokens and seen_tokens >= options.max_tokens:
        print(f"max_tokens {options.max_tokens} reached")


def generate(
    model_path: ModelPath,
    prefix: Annotated[str, Flag(help="text to continue")],
    tokens_to_generate: Annotated[int, Flag(help="number of new pieces")] = 42,
    top_k: TopK = 8,
    top_p: Annotated[float, Flag(help=f"{flag_of(TopP).help}; above 0 it replaces top_k")] = 0.0,
    temperature: Temperature = 1.0,
    seed: Seed = None,
    precision: Precision = DEFAULT_PRECISION,
    threads: Threads = None,
) -> None:
    """Generate text that continues PREFIX, and print it without the prefix. The text is unfiltered."""
    from gpt2 import generate

    sampling = Sampling(temperature, 0 if top_p > 0 else top_k, top_p)
    check_precision(precision)
    check_threads(threads)
    seed = secrets.randbits(32) if seed is None else seed
    request = Request(prefix or None, tokens_to_generate, sampling, seed)
    print(f"loading model from {model_path}", flush=True)
    model = generate.load(model_path, precision=precision, threads=threads)
    print(f"generating text for prefix {prefix}", flush=True)
    print(next(generate.generate(model, [request])).removeprefix(" "))


def evaluate_lambada(
    model_path: ModelPath,
    lambada_path: Annotated[
        str, Flag(expects="a file", help="LAMBADA's .jsonl, or a text file with one passage per line")
    ],
    precision: Precision = DEFAULT_PRECISION,
    threads: Threads = None,
) -> None:
    """Measure how well a model predicts the last words of LAMBADA's passages.

    A word counts as correct if each of its pieces is the most likely one. Each passage follows an end-of-text token.
    """
    from gpt2 import generate
    from lm import lambada

    check_precision(precision)
    check_threads(threads)
    passages = lambada.read_passages(expand_path(lambada_path))
    model = generate.load(model_path, precision=precision, threads=threads)
    with _count_bar("passages") as report:
        result = lambada.evaluate(model, passages, report)
    print(f"accuracy {result.accuracy:.4f} ({result.correct} of {result.words} last words)")
    print(f"perplexity {result.perplexity:.2f} for each last word")


@contextlib.contextmanager
def _count_bar(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """Yield a progress callback, called with (done, total) items, that draws a bar on stderr."""
    from tqdm import tqdm

    with tqdm(desc=title, leave=False) as progress_bar:

        def report(done: int, total: int | None) -> None:
            progress_bar.total = total
            progress_bar.update(done - progress_bar.n)

        yield report


def train_vocabulary(argv: Sequence[str] | None = None) -> None:
    """Run sp-train: train a vocabulary on the train split of corpora."""
    arguments = _parse_corpora("sp-train", ("sp_text", "sp_model_prefix"), VocabularyFlags, argv)
    import_sentencepiece()
    from gpt2.cli.progress_bars import READING, bar
    from lm import data

    text = expand_path(arguments["sp_text"])
    if is_file(text):
        print(f'Using existing "{text}", remove and re-run if it is stale.', flush=True)
    else:
        print(f"Reading corpora: {arguments['corpora']}", flush=True)
        paths = data.find_texts(arguments["corpora"], data.TRAIN)
        with bar(READING) as report:
            data.join_lines(paths, text, report)
    print_error_line("training the vocabulary, which may take minutes")
    data.train_vocabulary(text, arguments["sp_model_prefix"], arguments["vocab_size"], arguments["character_coverage"])


def encode_corpora(argv: Sequence[str] | None = None) -> None:
    """Run sp-encode: encode the splits of corpora."""
    arguments = _parse_corpora("sp-encode", ("sp_model", "output"), None, argv)
    import_sentencepiece()
    from gpt2.cli.progress_bars import ENCODING, bar
    from gpt2.formats.model_dir import find_vocabulary
    from lm import data

    @contextlib.contextmanager
    def show_split(split: str, path: Path) -> Iterator[ByteProgress]:
        with bar(f"{ENCODING} {split}") as report:
            yield report
        print(f"Saving encoded split {split} to {path}", flush=True)

    vocabulary = find_vocabulary(arguments["sp_model"])
    print(f"Reading corpora: {arguments['corpora']}", flush=True)
    data.encode_corpora(arguments["corpora"], vocabulary, expand_path(arguments["output"]), show_split)


DESCRIPTIONS = {
    "sp-train": "Train a SentencePiece vocabulary on the train split of corpora.",
    "sp-encode": "Encode the splits of corpora into OUTPUT/train.npy, valid.npy and test.npy.",
}
ARGUMENT_HELP = {
    "corpora": "folders with the subfolders train, valid and test, each with .txt files",
    "sp_text": "file for the vocabulary's training text; an existing file is used unchanged",
    "sp_model_prefix": "start of the names of the vocabulary's files, PREFIX.model and PREFIX.vocab",
    "sp_model": "the vocabulary, PREFIX.model",
    "output": "folder for the files of ids",
}


def _parse_corpora(
    program: str, positionals: Sequence[str], flags: type | None, argv: Sequence[str] | None
) -> dict[str, Any]:
    """Return the arguments of a command line that starts with one or more corpora."""
    parser = RaisingArgumentParser(prog=program, description=DESCRIPTIONS[program], allow_abbrev=False)
    parser.add_argument("corpora", nargs="+", help=ARGUMENT_HELP["corpora"])
    for name in positionals:
        parser.add_argument(name, help=ARGUMENT_HELP[name])
    for name, parameter in parameters_of(flags).items() if flags else ():
        flag = flag_of(parameter.annotation)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            f"--{name}",
            type=argparse_type(flag),
            default=parameter.default,
            help=f"{flag.help} ({parameter.default})",
            metavar=name.upper(),
        )
    return vars(parser.parse_args(sys.argv[1:] if argv is None else argv))


def sp_train() -> int:
    """Run the command sp-train and return its exit status."""
    return command.guarded(train_vocabulary)


def sp_encode() -> int:
    """Run the command sp-encode and return its exit status."""
    return command.guarded(encode_corpora)


def gpt_2() -> int:
    """Run the command gpt-2 and return its exit status."""
    return command.main(train)


def gpt_2_gen() -> int:
    """Run the command gpt-2-gen and return its exit status."""
    return command.main(generate)


def gpt_2_lambada() -> int:
    """Run the command gpt-2-lambada and return its exit status."""
    return command.main(evaluate_lambada)
