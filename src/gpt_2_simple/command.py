"""The command `gpt_2_simple`: its modes and flags, which are accepted in any order."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpt2 import flags as shared
from gpt2.cli import command
from gpt2.cli.argument_parser import RaisingArgumentParser, argparse_type
from gpt2.cli.declarations import NUMBER, TEXT, TRUE_OR_FALSE, WHOLE_NUMBER, flag_of, flags_of
from gpt2.cli.parsing import check_is_one_word
from gpt2.cli.values import parse_switch
from gpt2.errors import UsageError
from gpt2.files import creating_folder, expand_path
from gpt2.flags import Flag
from gpt2.formats.model_dir import DEFAULT_MODEL
from gpt2.training.settings.settings import TrainingSettings
from gpt_2_simple.files import download_gpt2, is_gpt2_downloaded
from gpt_2_simple.finetuning import finetune
from gpt_2_simple.generating import generate_to_file
from gpt_2_simple.session import load_gpt2, start_tf_sess

TRAINING = flags_of(TrainingSettings)
FINETUNE, GENERATE = "finetune", "generate"
BOTH = "both"


class ModeFlag(NamedTuple):
    """A flag's name, its default, and the mode that it belongs to."""

    name: str
    default: Any
    mode: str


OLD_FLAGS = [
    ModeFlag("run_name", "run1", BOTH),
    ModeFlag("checkpoint_dir", "checkpoint", BOTH),
    ModeFlag("model_name", None, BOTH),
    ModeFlag("model_dir", "models", BOTH),
    ModeFlag("multi_gpu", True, BOTH),
    ModeFlag("steps", -1, FINETUNE),
    ModeFlag("restore_from", "latest", FINETUNE),
    ModeFlag("sample_every", 1000000, FINETUNE),
    ModeFlag("save_every", 100, FINETUNE),
    ModeFlag("print_every", 10, FINETUNE),
    ModeFlag("optimizer", "adam", FINETUNE),
    ModeFlag("overwrite", False, FINETUNE),
    ModeFlag("nfiles", 1, GENERATE),
    ModeFlag("nsamples", 1, GENERATE),
    ModeFlag("folder", "gen", GENERATE),
    ModeFlag("length", 1023, GENERATE),
    ModeFlag("temperature", 0.7, GENERATE),
    ModeFlag("top_k", 0, GENERATE),
    ModeFlag("top_p", 0.0, GENERATE),
    ModeFlag("batch_size", 1, BOTH),
    ModeFlag("prefix", None, GENERATE),
    ModeFlag("truncate", None, GENERATE),
    ModeFlag("include_prefix", True, GENERATE),
    ModeFlag("sample_delim", "=" * 20 + "\n", GENERATE),
]
# Flags that the old command did not have. They are only passed on if given.
ADDED_FLAGS = [
    ModeFlag("seed", None, BOTH),
    ModeFlag("precision", None, BOTH),
    ModeFlag("repetition_penalty", None, GENERATE),
    ModeFlag("learning_rate", None, FINETUNE),
    ModeFlag("accumulate_gradients", None, FINETUNE),
    ModeFlag("max_checkpoints", None, FINETUNE),
    ModeFlag("use_memory_saving_gradients", None, FINETUNE),
    ModeFlag("only_train_transformer_layers", None, FINETUNE),
    ModeFlag("val_every", None, FINETUNE),
]
FLAGS = OLD_FLAGS + ADDED_FLAGS
# Flags whose name or meaning differs from the other commands'; the rest are the flags of train.py.
OVERRIDES = {
    "model_name": Flag(
        str,
        TEXT,
        "pretrained model: to start from (124M if not given), or to generate from instead of a run",
    ),
    "model_dir": flag_of(shared.ModelsDir),
    "steps": Flag(int, WHOLE_NUMBER, "number of updates; -1 trains until Ctrl-C, which saves"),
    "overwrite": Flag(parse_switch, TRUE_OR_FALSE, "new checkpoints replace all earlier ones of the run"),
    "nfiles": Flag(int, WHOLE_NUMBER, "number of files to write"),
    "nsamples": Flag(int, WHOLE_NUMBER, "number of texts in each file"),
    "folder": Flag(str, TEXT, "folder for the files; nothing in it is deleted"),
    "length": Flag(int, WHOLE_NUMBER, "new tokens of a text; the default of 1023 includes the prefix"),
    "temperature": flag_of(shared.Temperature),
    "repetition_penalty": flag_of(shared.RepetitionPenalty),
    "top_k": flag_of(shared.TopK),
    "top_p": Flag(float, NUMBER, f"{flag_of(shared.TopP).help}; replaces top_k"),
    "batch_size": Flag(int, WHOLE_NUMBER, "texts to generate, or windows to train on, at once"),
    "prefix": Flag(str, TEXT, "text that each text continues"),
    "truncate": Flag(str, TEXT, "end each text before this text"),
    "include_prefix": Flag(parse_switch, TRUE_OR_FALSE, "whether the prefix is part of the texts"),
    "sample_delim": Flag(str, TEXT, "text after each text if a file has several"),
    "seed": flag_of(shared.Seed),
    "precision": flag_of(shared.Precision),
    "learning_rate": Flag(float, NUMBER, "learning rate of the optimizer, 0.0001 if not given"),
    "accumulate_gradients": Flag(int, WHOLE_NUMBER, "batches averaged for one update, 5 if not given"),
    "max_checkpoints": Flag(int, WHOLE_NUMBER, "number of checkpoints to keep, 1 if not given"),
    "use_memory_saving_gradients": TRAINING["memory_saving_gradients"],
}


def cmd(*, argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return command.guarded(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(argv: Sequence[str]) -> None:
    dataset, values = parse(argv)
    if dataset is not None:
        cmd_finetune(dataset, **values)
    else:
        cmd_generate(**values)


def parse(argv: Sequence[str]) -> tuple[str | None, dict[str, Any]]:
    """Parse a command line.

    Args:
        argv: The arguments without the program's name.

    Returns:
        The data set (None in the mode `generate`), and the values of the mode's flags by name.

    Raises:
        UsageError: If an argument is unknown, missing, invalid or belongs to the other mode.
    """
    arguments = vars(_parser().parse_intermixed_args([_expand_abbreviation(argument) for argument in argv]))
    positionals = arguments.pop("positionals")
    mode = arguments.pop("mode") or (positionals.pop(0) if positionals else None)
    if mode not in (FINETUNE, GENERATE):
        raise UsageError(f"Mode must be 'finetune' or 'generate', not {mode!r}; gpt_2_simple --help shows how")
    dataset = arguments.pop("dataset")
    if mode == GENERATE:
        dataset = None
    elif not dataset:
        dataset = positionals.pop(0) if positionals else None
    if mode == FINETUNE and dataset is None:
        raise UsageError("You need to provide a dataset.")
    if positionals:
        raise UsageError(f"unexpected argument {positionals[0]!r}; gpt_2_simple --help lists the flags")
    return dataset, _values_of_mode(mode, arguments)


def _values_of_mode(mode: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a mode's flags, with the defaults of flags that were not given."""
    values = {}
    for flag in FLAGS:
        value = arguments[flag.name]
        if flag.mode in (mode, BOTH):
            value = flag.default if value is None else value
            if value is not None or flag.name in ("model_name", "prefix", "truncate"):
                values[flag.name] = value
        elif value is not None:
            raise UsageError(f"--{flag.name} is for {flag.mode}, not for {mode}")
    return values


def _expand_abbreviation(argument: str) -> str:
    """Return an argument with the full name of its flag.

    Abbreviations of old flags stay valid, although flags were added that start with the same letters.
    """
    abbreviation, equals, value = argument.partition("=")
    old_names = ["--mode", "--dataset", *(f"--{flag.name}" for flag in OLD_FLAGS)]
    all_names = [*old_names, *(f"--{flag.name}" for flag in ADDED_FLAGS)]
    if len(abbreviation) <= 2 or not abbreviation.startswith("--") or abbreviation in all_names:
        return argument
    check_is_one_word(argument)
    for names in (old_names, all_names):
        matches = [name for name in names if name.startswith(abbreviation)]
        if len(matches) == 1:
            return f"{matches[0]}{equals}{value}"
    return argument


def flag_definition(name: str) -> Flag:
    """Return a flag's type and help."""
    return OVERRIDES.get(name) or TRAINING[name]


def _parser() -> RaisingArgumentParser:
    parser = RaisingArgumentParser(
        prog="gpt_2_simple",
        usage="gpt_2_simple finetune DATASET [--FLAG VALUE ...], or gpt_2_simple generate [--FLAG VALUE ...]",
        description="Fine-tune GPT-2 on your own text, and generate text with the result.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "positionals", nargs="*", metavar="MODE DATASET", help="finetune and a file, folder or glob; or generate"
    )
    parser.add_argument("--mode", nargs="?", metavar="MODE", help="the mode, instead of the argument MODE")
    parser.add_argument("--dataset", nargs="?", help="the data set, instead of the argument DATASET")
    for name, default, mode in FLAGS:
        definition = flag_definition(name)
        modes = "finetune, generate" if mode == BOTH else mode
        flag_help = f"[{modes}] {definition.help}" + ("" if default is None else f" ({default!r})")
        # As in the old command, a flag without a value has its default.
        parser.add_argument(
            f"--{name}",
            nargs="?",
            type=argparse_type(definition),
            help=flag_help.replace("%", "%%"),
            metavar=name.upper(),
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
    **extra_settings: Any,
) -> None:
    """Call `finetune` with these parameters, after downloading the model if it is missing."""
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
        **extra_settings,
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
    **generate_options: Any,
) -> None:
    """Call `generate_to_file` for `nfiles` new files in the folder.

    A missing folder is created, and removed again if the call fails.
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
    output_folder = expand_path(folder)
    with creating_folder(output_folder):
        for number in trange(nfiles):
            generate_to_file(
                sess,
                destination_path=str(_new_file(output_folder)),
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
                **generate_options,
            )


def _new_file(folder: Path) -> Path:
    """Return a path named after the time in UTC, with a number after it if that file exists."""
    stem = time.strftime("gpt2_gentext_%Y%m%d_%H%M%S", time.gmtime())
    stems = itertools.chain([stem], (f"{stem}_{number}" for number in itertools.count(2)))
    return next(path for path in (folder / f"{name}.txt" for name in stems) if not path.exists())
