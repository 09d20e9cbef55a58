"""transformer-lm's commands: sp-train, sp-encode, gpt-2 and gpt-2-gen, and gpt-2-lambada.

Flags may be written with dashes or underscores. stdout is the same as in transformer-lm. Unknown flags and invalid
values are rejected before any work starts.
"""

from __future__ import annotations

import contextlib
import inspect
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2 import flags as shared
from gpt2.cli import command
from gpt2.cli.argument_parser import RaisingArgumentParser, argparse_type
from gpt2.cli.command import print_error_line
from gpt2.cli.declarations import NUMBER, TRUE_OR_FALSE, WHOLE_NUMBER, flag_of, flags_of
from gpt2.cli.values import parse_switch
from gpt2.devices import check_threads
from gpt2.files import ByteProgress, expand_path, is_file
from gpt2.flags import Flag
from gpt2.request import DEFAULT_PRECISION, Request, Sampling, check_precision
from gpt2.text.sentencepiece import import_sentencepiece
from gpt2.training.settings.settings import TrainingSettings

if TYPE_CHECKING:
    from lm.training import EncodedCorpus, TransformerLmOptions

TRAINING = flags_of(TrainingSettings)
FOLDER, FILE = "a folder", "a file"
FLAGS = {
    "run_path": Flag(str, FOLDER, "the run's folder, which is a model directory; an existing run is resumed"),
    "dataset_path": Flag(str, FOLDER, "folder with train.npy and valid.npy, as sp-encode writes them"),
    "sp_model_path": Flag(str, FILE, "the vocabulary, as sp-train writes it"),
    "epochs": Flag(int, WHOLE_NUMBER, "number of passes over the training text, in all"),
    "lr": Flag(float, NUMBER, "learning rate"),
    "batch_size": Flag(int, WHOLE_NUMBER, "windows computed together, on each device"),
    "g_accum_gradients": Flag(
        int, WHOLE_NUMBER, "batches per update, on all devices together; one per device if not given"
    ),
    "gradient_checkpointing": TRAINING["memory_saving_gradients"],
    "warmup_steps": TRAINING["warmup_steps"],
    "n_ctx": Flag(int, WHOLE_NUMBER, "window, in tokens"),
    "n_ctx_min": Flag(int, WHOLE_NUMBER, "not supported: windows of several lengths"),
    "n_embed": Flag(int, WHOLE_NUMBER, "width of the embeddings"),
    "n_head": Flag(int, WHOLE_NUMBER, "number of attention heads"),
    "n_layer": Flag(int, WHOLE_NUMBER, "number of layers"),
    "n_hidden": Flag(int, WHOLE_NUMBER, "width of the layers, n_embed if not given"),
    "clean": Flag(parse_switch, TRUE_OR_FALSE, "remove the run in run_path first"),
    "log_every": Flag(int, WHOLE_NUMBER, "updates between log lines"),
    "save_every": Flag(int, WHOLE_NUMBER, "updates between checkpoints"),
    "validate_every": Flag(int, WHOLE_NUMBER, "updates between validations, save_every if not given"),
    "only_validate": Flag(parse_switch, TRUE_OR_FALSE, "print the run's losses on valid.npy and do not train"),
    "max_tokens": Flag(int, WHOLE_NUMBER, "end when the run has seen this many tokens in all"),
    "use_amp": Flag(parse_switch, TRUE_OR_FALSE, "compute the matrix products in bfloat16"),
    "sample_sentences": Flag(parse_switch, TRUE_OR_FALSE, "ignored: windows start anywhere"),
    "verbose": Flag(parse_switch, TRUE_OR_FALSE, "ignored"),
    "master_port": Flag(str, "a port", "ignored: set TF_CONFIG for several machines"),
    "master_addr": Flag(str, "an address", "ignored"),
    "model_path": Flag(str, FOLDER, "a model directory of any format, or a name under models/"),
    "prefix": Flag(str, "text", "text to continue"),
    "tokens_to_generate": Flag(int, WHOLE_NUMBER, "number of new pieces"),
    "top_k": flag_of(shared.TopK),
    "top_p": Flag(float, NUMBER, f"{flag_of(shared.TopP).help}; above 0 it replaces top_k"),
    "temperature": flag_of(shared.Temperature),
    "seed": flag_of(shared.Seed),
    "precision": flag_of(shared.Precision),
    "threads": flag_of(shared.Threads),
    "lambada_path": Flag(str, FILE, "LAMBADA's .jsonl, or a text file with one passage per line"),
    "vocab_size": Flag(int, WHOLE_NUMBER, "number of pieces", 1),
    "character_coverage": Flag(float, NUMBER, "share of the text's characters that get pieces of their own"),
}


def train(**parameters: Any) -> None:
    """Train a new GPT-2 on the files that sp-encode writes.

    The run's folder is a model directory that every command accepts: --model_name RUN_PATH. To resume a run, repeat the
    command with the same sizes. Ctrl-C saves and ends.
    """
    from gpt2.formats.model_dir import find_vocabulary
    from lm import training

    options = training.TransformerLmOptions(**parameters)
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
    from gpt2.cli.training_report import TerminalReport
    from gpt2.training import run
    from lm import training

    seen_tokens, updates = training.run_progress(options)
    settings = training.training_settings(options, corpus)
    if seen_tokens:
        print(f"Resuming from seen_tokens {seen_tokens:,}", flush=True)
    if updates and settings.stop_after == updates:
        print_error_line(f"{options.folder} has seen {seen_tokens:,} tokens already; give more epochs")
        return
    run.train(settings, report=TerminalReport(settings.print_every))
    seen_tokens, _ = training.run_progress(options)
    if options.max_tokens and seen_tokens >= options.max_tokens:
        print(f"max_tokens {options.max_tokens} reached")


def generate(
    model_path: str,
    prefix: str,
    tokens_to_generate: int = 42,
    top_k: int = 8,
    top_p: float = 0.0,
    temperature: float = 1.0,
    seed: int | None = None,
    precision: str = DEFAULT_PRECISION,
    threads: int | None = None,
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
    model_path: str,
    lambada_path: str,
    precision: str = DEFAULT_PRECISION,
    threads: int | None = None,
) -> None:
    """Measure how well a model predicts the last words of LAMBADA's passages.

    A word counts as correct if each of its pieces is the likeliest one. Each passage follows an end-of-text token.
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
    """Show a progress bar on stderr that counts items; the block gets its progress callback."""
    from tqdm import tqdm

    with tqdm(desc=title, leave=False) as progress_bar:

        def report(done: int, total: int | None) -> None:
            progress_bar.total = total
            progress_bar.update(done - progress_bar.n)

        yield report


def train_vocabulary(argv: Sequence[str] | None = None) -> None:
    """Run sp-train: train a vocabulary on the train split of corpora."""
    arguments = _parse_corpora("sp-train", ("sp_text", "sp_model_prefix"), ("vocab_size", "character_coverage"), argv)
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
    arguments = _parse_corpora("sp-encode", ("sp_model", "output"), (), argv)
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
    "sp_text": "file for the vocabulary's training text; an existing file is used as it is",
    "sp_model_prefix": "start of the names of the vocabulary's files, PREFIX.model and PREFIX.vocab",
    "sp_model": "the vocabulary, PREFIX.model",
    "output": "folder for the files of ids",
}
DEFAULTS = {"vocab_size": 50000, "character_coverage": 1.0}


def _parse_corpora(
    program: str, positionals: Sequence[str], flags: Sequence[str], argv: Sequence[str] | None
) -> dict[str, Any]:
    """Return the arguments of a command whose line starts with any number of corpora."""
    parser = RaisingArgumentParser(prog=program, description=DESCRIPTIONS[program], allow_abbrev=False)
    parser.add_argument("corpora", nargs="+", help=ARGUMENT_HELP["corpora"])
    for name in positionals:
        parser.add_argument(name, help=ARGUMENT_HELP[name])
    for name in flags:
        flag = FLAGS[name]
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            f"--{name}",
            type=argparse_type(flag),
            default=DEFAULTS[name],
            help=f"{flag.help} ({DEFAULTS[name]})",
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
    from lm.training import TransformerLmOptions

    # The fields of TransformerLmOptions are the command's flags.
    train.__signature__ = inspect.signature(TransformerLmOptions)  # type: ignore[attr-defined]
    return command.main(train, flags=FLAGS)


def gpt_2_gen() -> int:
    """Run the command gpt-2-gen and return its exit status."""
    return command.main(generate, flags=FLAGS)


def gpt_2_lambada() -> int:
    """Run the command gpt-2-lambada and return its exit status."""
    return command.main(evaluate_lambada, flags=FLAGS)
