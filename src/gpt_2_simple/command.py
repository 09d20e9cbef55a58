"""The command `gpt_2_simple`: its modes, flags and defaults, wherever they stand in the line."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt2.cli import command
from gpt2.cli.argument_parser import Parser, argparse_type
from gpt2.cli.flags import FLAGS as GENERAL
from gpt2.cli.flags import NUMBER, TEXT, WHOLE, YES_OR_NO, Flag, parse_switch
from gpt2.cli.training_flags import FLAGS as TRAINING
from gpt2.errors import UsageError
from gpt2.files import creating_folder, expand_path
from gpt2.formats.model_dir import DEFAULT_MODEL
from gpt_2_simple.files import download_gpt2, is_gpt2_downloaded
from gpt_2_simple.finetuning import finetune
from gpt_2_simple.generating import generate_to_file
from gpt_2_simple.session import load_gpt2, start_tf_sess

FINETUNE, GENERATE = "finetune", "generate"
BOTH = "both"
# (name, default, which mode): the old command's, and below them ours, which are only passed on if given.
FLAGS: list[tuple[str, Any, str]] = [
    ("run_name", "run1", BOTH),
    ("checkpoint_dir", "checkpoint", BOTH),
    ("model_name", None, BOTH),
    ("model_dir", "models", BOTH),
    ("multi_gpu", True, BOTH),
    ("steps", -1, FINETUNE),
    ("restore_from", "latest", FINETUNE),
    ("sample_every", 1000000, FINETUNE),
    ("save_every", 100, FINETUNE),
    ("print_every", 10, FINETUNE),
    ("optimizer", "adam", FINETUNE),
    ("overwrite", False, FINETUNE),
    ("nfiles", 1, GENERATE),
    ("nsamples", 1, GENERATE),
    ("folder", "gen", GENERATE),
    ("length", 1023, GENERATE),
    ("temperature", 0.7, GENERATE),
    ("top_k", 0, GENERATE),
    ("top_p", 0.0, GENERATE),
    ("batch_size", 1, BOTH),
    ("prefix", None, GENERATE),
    ("truncate", None, GENERATE),
    ("include_prefix", True, GENERATE),
    ("sample_delim", "=" * 20 + "\n", GENERATE),
    ("seed", None, BOTH),
    ("precision", None, BOTH),
    ("repetition_penalty", None, GENERATE),
    ("learning_rate", None, FINETUNE),
    ("accumulate_gradients", None, FINETUNE),
    ("max_checkpoints", None, FINETUNE),
    ("use_memory_saving_gradients", None, FINETUNE),
    ("only_train_transformer_layers", None, FINETUNE),
    ("val_every", None, FINETUNE),
]
# What has another name or meaning here than in the other commands; all else is theirs.
OWN = {
    "model_name": Flag(
        str, TEXT, "pretrained model: to start from, 124M if not given; to generate from, instead of a run"
    ),
    "model_dir": GENERAL["models_dir"],
    "steps": Flag(int, WHOLE, "so many updates; -1 goes on until Ctrl-C, which saves"),
    "overwrite": Flag(parse_switch, YES_OR_NO, "new checkpoints replace all that the run had"),
    "nfiles": Flag(int, WHOLE, "how many files to write"),
    "nsamples": Flag(int, WHOLE, "how many texts in each"),
    "folder": Flag(str, TEXT, "folder to write them to, in which nothing is deleted"),
    "length": Flag(int, WHOLE, "new tokens of a text; of 1023 the prefix is a part"),
    "top_k": GENERAL["top_k"],
    "top_p": Flag(float, NUMBER, f"{GENERAL['top_p'].help}; replaces top_k"),
    "batch_size": Flag(int, WHOLE, "texts that are written, or windows that are trained on, at once"),
    "prefix": Flag(str, TEXT, "text that the texts begin with"),
    "truncate": Flag(str, TEXT, "text before which they end"),
    "include_prefix": Flag(parse_switch, YES_OR_NO, "whether the prefix is part of the texts"),
    "sample_delim": Flag(str, TEXT, "what stands after each text, if there are several in a file"),
    "seed": GENERAL["seed"],
    "precision": GENERAL["precision"],
    "learning_rate": Flag(float, NUMBER, "of the optimiser, 0.0001 if not given"),
    "accumulate_gradients": Flag(int, WHOLE, "batches that are averaged for an update, 5 if not given"),
    "max_checkpoints": Flag(int, WHOLE, "how many checkpoints stay, 1 if not given"),
    "use_memory_saving_gradients": TRAINING["memory_saving_gradients"],
}


def cmd(*, argv: Sequence[str] | None = None) -> int:
    """What the command does; returns its exit status."""
    return command.guarded(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(argv: Sequence[str]) -> None:
    dataset, given = parse(argv)
    if dataset is not None:
        cmd_finetune(dataset, **given)
    else:
        cmd_generate(**given)


def parse(argv: Sequence[str]) -> tuple[str | None, dict[str, Any]]:
    """The data set, None to generate, and the flags of this mode. Raises UsageError."""
    arguments = vars(_parser().parse_intermixed_args([_whole_name(argument) for argument in argv]))
    words = arguments.pop("words")
    mode = arguments.pop("mode") or (words.pop(0) if words else None)
    if mode not in (FINETUNE, GENERATE):
        raise UsageError(f"Mode must be 'finetune' or 'generate', not {mode!r}; gpt_2_simple --help shows how")
    named = arguments.pop("dataset")
    dataset = (named or (words.pop(0) if words else None)) if mode == FINETUNE else None
    if mode == FINETUNE and dataset is None:
        raise UsageError("You need to provide a dataset.")
    if words:
        raise UsageError(f"there is no place for the argument {words[0]!r}; gpt_2_simple --help lists the flags")
    wanted = {}
    for name, default, of in FLAGS:
        value = arguments[name]
        if of in (mode, BOTH):
            value = default if value is None else value
            if value is not None or name in ("model_name", "prefix", "truncate"):
                wanted[name] = value
        elif value is not None:
            raise UsageError(f"--{name} is for {of}, not for {mode}")
    return dataset, wanted


def _whole_name(argument: str) -> str:
    """An abbreviated flag -> the flag, as far as the abbreviation was one of the old command's, or is one now."""
    name, equals, value = argument.partition("=")
    names = [f"--{flag}" for flag in ("mode", "dataset", *(flag for flag, *_ in FLAGS))]
    if len(name) <= 2 or not name.startswith("--") or name in names:
        return argument
    command.check_words(argument)
    for known in (names[: names.index("--seed")], names):
        found = [flag for flag in known if flag.startswith(name)]
        if len(found) == 1:
            return f"{found[0]}{equals}{value}"
    return argument


def _parser() -> Parser:
    parser = Parser(
        prog="gpt_2_simple",
        usage="gpt_2_simple finetune DATASET [--FLAG VALUE ...], or gpt_2_simple generate [--FLAG VALUE ...]",
        description="Fine-tunes GPT-2 on your own text, and writes text with what came of it.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "words", nargs="*", metavar="MODE DATASET", help="finetune and a file, folder or glob; or generate"
    )
    parser.add_argument("--mode", nargs="?", metavar="MODE", help="the same as a flag")
    parser.add_argument("--dataset", nargs="?", help="the same as a flag")
    for name, default, mode in FLAGS:
        flag = OWN.get(name) or TRAINING[name]
        of = "finetune, generate" if mode == BOTH else mode
        about = f"[{of}] {flag.help}" + ("" if default is None else f" ({default!r})")
        # A flag without a value means its default, as it always did.
        parser.add_argument(
            f"--{name}", nargs="?", type=argparse_type(flag), help=about.replace("%", "%%"), metavar=name.upper()
        )
    return parser


def cmd_finetune(
    dataset: str,
    run_name: str,
    checkpoint_dir: str,
    model_name: str | None,
    model_dir: str,
    steps: int,
    restore_from: str,
    sample_every: int,
    save_every: int,
    print_every: int,
    optimizer: str,
    overwrite: bool,
    multi_gpu: bool,
    **more: Any,
) -> None:
    """`finetune` after downloading the model if it is not there."""
    model_name = model_name or DEFAULT_MODEL
    if not is_gpt2_downloaded(model_dir, model_name):
        download_gpt2(model_dir, model_name)
    finetune(
        start_tf_sess(),
        dataset,
        run_name=run_name,
        checkpoint_dir=checkpoint_dir,
        model_name=model_name,
        model_dir=model_dir,
        steps=steps,
        restore_from=restore_from,
        sample_every=sample_every,
        save_every=save_every,
        print_every=print_every,
        optimizer=optimizer,
        overwrite=overwrite,
        multi_gpu=multi_gpu,
        **more,
    )


def cmd_generate(
    nfiles: int,
    nsamples: int,
    folder: str,
    length: int,
    temperature: float,
    batch_size: int,
    prefix: str | None,
    truncate: str | None,
    include_prefix: bool,
    sample_delim: str,
    run_name: str,
    checkpoint_dir: str,
    top_k: int,
    top_p: float,
    multi_gpu: bool,
    *,
    model_name: str | None = None,
    model_dir: str = "models",
    seed: int | None = None,
    precision: str = "float32",
    **more: Any,
) -> None:
    """`generate_to_file`, `nfiles` times, into new files of the folder, which is made if it is not there.

    One that was made for a call that fails goes again.
    """
    from tqdm import trange

    sess = start_tf_sess()
    load_gpt2(
        sess,
        run_name=run_name,
        checkpoint_dir=checkpoint_dir,
        model_name=model_name,
        model_dir=model_dir,
        precision=precision,
    )
    into = expand_path(folder)
    with creating_folder(into):
        for number in trange(nfiles):
            generate_to_file(
                sess,
                destination_path=str(_new_file(into)),
                length=length,
                temperature=temperature,
                nsamples=nsamples,
                batch_size=batch_size,
                prefix=prefix,
                truncate=truncate,
                include_prefix=include_prefix,
                sample_delim=sample_delim,
                seed=None if seed is None else seed + number,
                top_k=top_k,
                top_p=top_p,
                **more,
            )


def _new_file(folder: Path) -> Path:
    """A name for the time of the day, in UTC, with a number after it if there is such a file."""
    name = time.strftime("gpt2_gentext_%Y%m%d_%H%M%S", time.gmtime())
    names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    return next(path for path in (folder / f"{name}.txt" for name in names) if not path.exists())
