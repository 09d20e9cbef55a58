"""The command `gpt_2_simple`: its modes, flags and defaults, wherever they stand in the line."""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from gpt2.cli import command, flags
from gpt2.errors import UsageError
from gpt2.formats.model_dir import DEFAULT_MODEL
from gpt_2_simple.files import download_gpt2, is_gpt2_downloaded
from gpt_2_simple.finetuning import finetune
from gpt_2_simple.generating import generate_to_file
from gpt_2_simple.session import load_gpt2, start_tf_sess


def switch(value: str) -> bool:
    try:
        return flags.switch(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be true or false, not {value!r}") from None


FINETUNE, GENERATE = "finetune", "generate"
BOTH = "both"
# (name, type, default, which mode, help): the old command's, and below them ours, which are only passed on if given.
FLAGS: list[tuple[str, Any, Any, str, str]] = [
    ("run_name", str, "run1", BOTH, "name of the run, a folder below checkpoint_dir"),
    ("checkpoint_dir", str, "checkpoint", BOTH, "folder that holds the runs"),
    (
        "model_name",
        str,
        None,
        BOTH,
        "pretrained model: to start from, 124M if not given; to generate from, instead of a run",
    ),
    ("model_dir", str, "models", BOTH, "folder that holds the pretrained models"),
    ("multi_gpu", switch, True, BOTH, "train on all GPUs"),
    ("steps", int, -1, FINETUNE, "so many updates; -1 goes on until Ctrl-C, which saves"),
    (
        "restore_from",
        str,
        "latest",
        FINETUNE,
        "latest goes on with the run, or begins it; fresh begins anew; or a path",
    ),
    ("sample_every", int, 1000000, FINETUNE, "write samples after every so many updates"),
    ("save_every", int, 100, FINETUNE, "save after every so many updates"),
    ("print_every", int, 10, FINETUNE, "print the loss after every so many updates"),
    ("optimizer", str, "adam", FINETUNE, "adam, adamw, sgd or adafactor"),
    ("overwrite", switch, False, FINETUNE, "new checkpoints replace all that the run had"),
    ("nfiles", int, 1, GENERATE, "how many files to write"),
    ("nsamples", int, 1, GENERATE, "how many texts in each"),
    ("folder", str, "gen", GENERATE, "folder to write them to, in which nothing is deleted"),
    ("length", int, 1023, GENERATE, "tokens of a text; 1023 means what fits the window"),
    ("temperature", float, 0.7, GENERATE, "of the choice of tokens; 0 takes the likeliest"),
    ("top_k", int, 0, GENERATE, "choose among the k likeliest tokens; 0 means all"),
    ("top_p", float, 0.0, GENERATE, "choose among the likeliest tokens that reach this probability; replaces top_k"),
    ("batch_size", int, 1, BOTH, "texts that are written, or windows that are trained on, at once"),
    ("prefix", str, None, GENERATE, "text that the texts begin with"),
    ("truncate", str, None, GENERATE, "text before which they end"),
    ("include_prefix", switch, True, GENERATE, "whether the prefix is part of the texts"),
    ("sample_delim", str, "=" * 20 + "\n", GENERATE, "what stands after each text, if there are several in a file"),
    ("seed", int, None, BOTH, "fixes the random numbers"),
    ("precision", str, None, BOTH, "of the weights: float32, bfloat16 or, to generate, int8"),
    ("repetition_penalty", float, None, GENERATE, "makes tokens that are there already less likely; 1 is off"),
    ("learning_rate", float, None, FINETUNE, "of the optimiser, 0.0001 if not given"),
    ("accumulate_gradients", int, None, FINETUNE, "batches that are averaged for an update, 5 if not given"),
    ("max_checkpoints", int, None, FINETUNE, "how many checkpoints stay, 1 if not given"),
    ("use_memory_saving_gradients", switch, None, FINETUNE, "less memory for more time"),
    ("only_train_transformer_layers", switch, None, FINETUNE, "leave the embeddings as they are"),
    ("val_every", int, None, FINETUNE, "validate on text that is held out after every so many updates"),
]


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; gpt_2_simple --help lists the flags")


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
    arguments = vars(_parser().parse_intermixed_args(argv))
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
    for name, _, default, of, _ in FLAGS:
        value = arguments[name]
        if of in (mode, BOTH):
            value = default if value is None else value
            if value is not None or name in ("model_name", "prefix", "truncate"):
                wanted[name] = value
        elif value is not None:
            raise UsageError(f"--{name} is for {of}, not for {mode}")
    return dataset, wanted


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
    for name, kind, default, mode, text in FLAGS:
        of = "finetune, generate" if mode == BOTH else mode
        about = f"[{of}] {text}" + ("" if default is None else f" ({default!r})")
        # A flag without a value means its default, as it always did.
        parser.add_argument(f"--{name}", nargs="?", type=kind, help=about.replace("%", "%%"), metavar=name.upper())
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
    """`generate_to_file`, `nfiles` times, into new files of the folder, which is made if it is not there."""
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
    into = Path(folder).expanduser()
    into.mkdir(parents=True, exist_ok=True)
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
