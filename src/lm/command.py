"""transformer-lm's commands: sp-train, sp-encode, gpt-2, gpt-2-gen, gpt-2-lambada.

Dashes and underscores are the same in their flags. What they print on stdout is what they always did; what is unknown
or cannot be is refused before anything runs.
"""

from __future__ import annotations

import contextlib
import inspect
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2.cli import command
from gpt2.cli.argument_parser import Parser, argparse_type
from gpt2.cli.command import print_error_line
from gpt2.cli.flags import FLAGS as GENERAL
from gpt2.cli.flags import NUMBER, WHOLE, YES_OR_NO, Flag, parse_switch
from gpt2.cli.training_flags import FLAGS as TRAINING
from gpt2.devices import check_threads
from gpt2.files import ByteProgress, expand_path, is_file
from gpt2.request import DEFAULT_PRECISION, Request, Sampling, check_precision
from gpt2.text.sentencepiece import import_sentencepiece

if TYPE_CHECKING:
    from lm.training import Data, Options

FOLDER, FILE = "a folder", "a file"
FLAGS = {
    "run_path": Flag(str, FOLDER, "the run's folder, a model directory; a run that is there goes on"),
    "dataset_path": Flag(str, FOLDER, "folder with train.npy and valid.npy, as sp-encode writes them"),
    "sp_model_path": Flag(str, FILE, "the vocabulary, as sp-train writes it"),
    "epochs": Flag(int, WHOLE, "how often the training text is seen, in all"),
    "lr": Flag(float, NUMBER, "learning rate"),
    "batch_size": Flag(int, WHOLE, "windows that are computed together, on each device"),
    "g_accum_gradients": Flag(int, WHOLE, "batches of an update, on all devices together; one each if not given"),
    "gradient_checkpointing": TRAINING["memory_saving_gradients"],
    "warmup_steps": TRAINING["warmup_steps"],
    "n_ctx": Flag(int, WHOLE, "window, tokens"),
    "n_ctx_min": Flag(int, WHOLE, "not offered: windows of several lengths"),
    "n_embed": Flag(int, WHOLE, "width of the embeddings"),
    "n_head": Flag(int, WHOLE, "attention heads"),
    "n_layer": Flag(int, WHOLE, "blocks"),
    "n_hidden": Flag(int, WHOLE, "width of the blocks, n_embed if not given"),
    "clean": Flag(parse_switch, YES_OR_NO, "remove the run that is in run_path first"),
    "log_every": Flag(int, WHOLE, "a line after every so many updates"),
    "save_every": Flag(int, WHOLE, "save after every so many updates"),
    "validate_every": Flag(int, WHOLE, "validate after every so many updates, save_every if not given"),
    "only_validate": Flag(parse_switch, YES_OR_NO, "show the losses of the run on valid.npy, and train nothing"),
    "max_tokens": Flag(int, WHOLE, "end when the run has seen so many tokens in all"),
    "use_amp": Flag(parse_switch, YES_OR_NO, "compute the matrix products in bfloat16"),
    "sample_sentences": Flag(parse_switch, YES_OR_NO, "of no effect: windows begin anywhere"),
    "verbose": Flag(parse_switch, YES_OR_NO, "of no effect"),
    "master_port": Flag(str, "a port", "of no effect: several machines need TF_CONFIG"),
    "master_addr": Flag(str, "an address", "of no effect"),
    "model_path": Flag(str, FOLDER, "a model directory of any format, or a name under models/"),
    "prefix": Flag(str, "text", "what the text begins with"),
    "tokens_to_generate": Flag(int, WHOLE, "how many new pieces"),
    "top_k": GENERAL["top_k"],
    "top_p": Flag(float, NUMBER, f"{GENERAL['top_p'].help}; above 0 it replaces top_k"),
    **{name: GENERAL[name] for name in ("temperature", "seed", "precision", "threads")},
    "lambada_path": Flag(str, FILE, "LAMBADA's .jsonl, or a text with a passage a line"),
    "vocab_size": Flag(int, WHOLE, "how many pieces", 1),
    "character_coverage": Flag(float, NUMBER, "share of the text's characters that get pieces of their own"),
}


def train(**given: Any) -> None:
    """Train a GPT-2 from nothing on what sp-encode wrote.

    The run's folder is a model directory that every command reads: --model_name RUN_PATH. The same command goes on
    where the last one ended, its sizes repeated; Ctrl-C saves and ends.
    """
    from lm import training

    options = training.Options(**given)
    for remark in options.remarks():
        print_error_line(remark)
    vocabulary = training.load_vocabulary(options.sp_model_path)
    print(training.params(options, vocabulary.n_vocab))
    print(f"Loading dataset from {options.dataset_path}", flush=True)
    data = training.Data(expand_path(options.dataset_path), vocabulary)
    print(f"Train dataset has {len(data.train):,} tokens")
    print(f"Validation dataset has {len(data.valid):,} tokens", flush=True)
    if options.only_validate:
        with _bar("validation") as report:
            losses = training.losses(options.folder, data, report)
        for name, loss in sorted(losses.items()):
            print(f"{name:<20} {loss:.4f}")
        return
    if options.clean:
        training.clean(options.folder)
    _train(options, data)


def _train(options: Options, data: Data) -> None:
    from gpt2.cli.training_report import TerminalReport
    from gpt2.training import run
    from lm import training

    seen, done = training.seen_tokens(options)
    settings = training.settings(options, data)
    if seen:
        print(f"Resuming from seen_tokens {seen:,}", flush=True)
    if done and settings.stop_after == done:
        print_error_line(f"{options.folder} has seen {seen:,} tokens already; give more epochs")
        return
    run.train(settings, report=TerminalReport(settings.print_every))
    seen, _ = training.seen_tokens(options)
    if options.max_tokens and seen >= options.max_tokens:
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
    """Write what a model goes on with after PREFIX, which is not repeated. The text is unfiltered."""
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


def lambada(
    model_path: str,
    lambada_path: str,
    precision: str = DEFAULT_PRECISION,
    threads: int | None = None,
) -> None:
    """How often a model finds the last word of LAMBADA's passages, each piece of it the likeliest one, and how likely
    the words are to it. Each passage begins after an end of text."""
    from gpt2 import generate
    from lm import lambada

    check_precision(precision)
    check_threads(threads)
    texts = lambada.passages(expand_path(lambada_path))
    model = generate.load(model_path, precision=precision, threads=threads)
    with _bar("passages") as report:
        found = lambada.evaluated(model, texts, report)
    print(f"accuracy {found.accuracy:.4f} ({found.right} of {found.words} last words)")
    print(f"perplexity {found.perplexity:.2f} for each last word")


@contextlib.contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on stderr for what is counted."""
    from tqdm import tqdm

    with tqdm(desc=title, leave=False) as shown:

        def report(done: int, total: int | None) -> None:
            shown.total = total
            shown.update(done - shown.n)

        yield report


def train_vocabulary(argv: Sequence[str] | None = None) -> None:
    """What sp-train does."""
    given = _corpora("sp-train", ("sp_text", "sp_model_prefix"), ("vocab_size", "character_coverage"), argv)
    import_sentencepiece()
    from gpt2.cli.progress_bars import READING, bar
    from lm import data

    text = expand_path(given["sp_text"])
    if is_file(text):
        print(f'Using existing "{text}", remove and re-run if it is stale.', flush=True)
    else:
        print(f"Reading corpora: {given['corpora']}", flush=True)
        paths = data.texts(given["corpora"], data.TRAIN)
        with bar(READING) as report:
            data.gather(paths, text, report)
    print_error_line("training the vocabulary, which may take minutes")
    data.train(text, given["sp_model_prefix"], given["vocab_size"], given["character_coverage"])


def encode(argv: Sequence[str] | None = None) -> None:
    """What sp-encode does."""
    given = _corpora("sp-encode", ("sp_model", "output"), (), argv)
    import_sentencepiece()
    from gpt2.cli.progress_bars import ENCODING, bar
    from lm import data, training

    @contextlib.contextmanager
    def begin(split: str, path: Path) -> Iterator[ByteProgress]:
        with bar(f"{ENCODING} {split}") as report:
            yield report
        print(f"Saving encoded split {split} to {path}", flush=True)

    vocabulary = training.load_vocabulary(given["sp_model"])
    print(f"Reading corpora: {given['corpora']}", flush=True)
    data.encode(given["corpora"], vocabulary, expand_path(given["output"]), begin)


ABOUT = {
    "sp-train": "Makes a SentencePiece vocabulary of the train split of corpora.",
    "sp-encode": "Encodes the splits of corpora into OUTPUT/train.npy, valid.npy and test.npy.",
    "corpora": "folders with train, valid and test, each with files .txt",
    "sp_text": "file for the text that the vocabulary is made of; one that is there is used",
    "sp_model_prefix": "beginning of the names of the vocabulary's files, PREFIX.model and PREFIX.vocab",
    "sp_model": "the vocabulary, PREFIX.model",
    "output": "folder for the files of ids",
}
DEFAULTS = {"vocab_size": 50000, "character_coverage": 1.0}


def _corpora(program: str, words: Sequence[str], flags: Sequence[str], argv: Sequence[str] | None) -> dict[str, Any]:
    """The arguments of a command that begins with any number of corpora. Raises UsageError."""
    parser = Parser(prog=program, description=ABOUT[program], allow_abbrev=False)
    parser.add_argument("corpora", nargs="+", help=ABOUT["corpora"])
    for word in words:
        parser.add_argument(word, help=ABOUT[word])
    for name in flags:
        flag, names = FLAGS[name], [f"--{name.replace('_', '-')}", f"--{name}"]
        about = f"{flag.help} ({DEFAULTS[name]})"
        parser.add_argument(*names, type=argparse_type(flag), default=DEFAULTS[name], help=about, metavar=name.upper())
    return vars(parser.parse_args(sys.argv[1:] if argv is None else argv))


def sp_train() -> int:
    return command.guarded(train_vocabulary)


def sp_encode() -> int:
    return command.guarded(encode)


def gpt_2() -> int:
    from lm.training import Options

    train.__signature__ = inspect.signature(Options)  # type: ignore[attr-defined]  # its flags and their defaults
    return command.main(train, flags=FLAGS)


def gpt_2_gen() -> int:
    return command.main(generate, flags=FLAGS)


def gpt_2_lambada() -> int:
    return command.main(lambada, flags=FLAGS)
