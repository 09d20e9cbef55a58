"""The command `gpt_2_simple`: its modes and flags, which are accepted in any order."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from gpt2.cli import command
from gpt2.cli.argument_parser import RaisingArgumentParser, argparse_type
from gpt2.cli.declarations import flag_of, flags_of, parameters_of
from gpt2.cli.parsing import check_is_one_word, suggest_flag
from gpt2.errors import UsageError, suggest
from gpt2.files import creating_folder, expand_path
from gpt2.flags import Flag, ModelsDir, Precision, RepetitionPenalty, Seed, Temperature, TopK, TopP
from gpt2.formats.model_dir import DEFAULT_MODEL
from gpt2.training.settings.settings import TrainingSettings
from gpt_2_simple.files import download_gpt2, is_gpt2_downloaded
from gpt_2_simple.finetuning import finetune
from gpt_2_simple.generating import generate_to_file
from gpt_2_simple.session import load_gpt2, start_tf_sess

TRAINING = flags_of(TrainingSettings)
FINETUNE, GENERATE = "finetune", "generate"
BOTH = "both"


@dataclasses.dataclass(frozen=True)
class CommandFlags:
    """The flags of the command, each with the mode that it belongs to."""

    run_name: Annotated[str, TRAINING["run_name"], BOTH] = "run1"
    checkpoint_dir: Annotated[str, TRAINING["checkpoint_dir"], BOTH] = "checkpoint"
    model_name: Annotated[
        str | None,
        Flag(help="pretrained model to start from (124M if not given), or to generate with instead of a run"),
        BOTH,
    ] = None
    model_dir: Annotated[ModelsDir, BOTH] = "models"
    multi_gpu: Annotated[bool, TRAINING["multi_gpu"], BOTH] = True
    steps: Annotated[int, Flag(help="number of updates; -1 trains until Ctrl-C, which saves"), FINETUNE] = -1
    restore_from: Annotated[str, TRAINING["restore_from"], FINETUNE] = "latest"
    sample_every: Annotated[int, TRAINING["sample_every"], FINETUNE] = 1000000
    save_every: Annotated[int, TRAINING["save_every"], FINETUNE] = 100
    print_every: Annotated[int, TRAINING["print_every"], FINETUNE] = 10
    optimizer: Annotated[str, TRAINING["optimizer"], FINETUNE] = "adam"
    overwrite: Annotated[bool, Flag(help="new checkpoints replace all earlier ones of the run"), FINETUNE] = False
    nfiles: Annotated[int, Flag(help="number of files to write"), GENERATE] = 1
    nsamples: Annotated[int, Flag(help="number of texts in each file"), GENERATE] = 1
    folder: Annotated[str, Flag(help="folder for the files; nothing in it is deleted"), GENERATE] = "gen"
    length: Annotated[int, Flag(help="new tokens of a text; the default of 1023 includes the prefix"), GENERATE] = 1023
    temperature: Annotated[Temperature, GENERATE] = 0.7
    top_k: Annotated[TopK, GENERATE] = 0
    top_p: Annotated[float, Flag(help=f"{flag_of(TopP).help}; replaces top_k"), GENERATE] = 0.0
    batch_size: Annotated[int, Flag(help="number of texts to generate, or of windows to train on, at once"), BOTH] = 1
    prefix: Annotated[str | None, Flag(help="beginning of each text"), GENERATE] = None
    truncate: Annotated[str | None, Flag(help="end each text before this text"), GENERATE] = None
    include_prefix: Annotated[bool, Flag(help="include the prefix in the texts"), GENERATE] = True
    sample_delim: Annotated[str, Flag(help="delimiter after each text if a file has several texts"), GENERATE] = (
        "=" * 20 + "\n"
    )
    # The old command did not have the following flags. They are passed on only if given.
    seed: Annotated[Seed, BOTH] = None
    precision: Annotated[str | None, flag_of(Precision), BOTH] = None
    repetition_penalty: Annotated[float | None, flag_of(RepetitionPenalty), GENERATE] = None
    learning_rate: Annotated[
        float | None, Flag(help="learning rate of the optimizer, 0.0001 if not given"), FINETUNE
    ] = None
    accumulate_gradients: Annotated[
        int | None, Flag(help="batches averaged for one update, 5 if not given"), FINETUNE
    ] = None
    max_checkpoints: Annotated[int | None, Flag(help="number of checkpoints to retain, 1 if not given"), FINETUNE] = (
        None
    )
    use_memory_saving_gradients: Annotated[bool | None, TRAINING["memory_saving_gradients"], FINETUNE] = None
    only_train_transformer_layers: Annotated[bool | None, TRAINING["only_train_transformer_layers"], FINETUNE] = None
    val_every: Annotated[int | None, TRAINING["val_every"], FINETUNE] = None


FIRST_ADDED_FLAG = "seed"


class ModeFlag(NamedTuple):
    """A flag's name, its default, its mode, and its type and help."""

    name: str
    default: Any
    mode: str
    definition: Flag


FLAGS = [
    ModeFlag(name, parameter.default, parameter.annotation.__metadata__[-1], flag_of(parameter.annotation))
    for name, parameter in parameters_of(CommandFlags).items()
]


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
        similar = suggest(mode, (FINETUNE, GENERATE))
        raise UsageError(f"Mode must be 'finetune' or 'generate', not {mode!r}; gpt_2_simple --help shows how{similar}")
    dataset = arguments.pop("dataset")
    if mode == GENERATE:
        dataset = None
    elif not dataset:
        dataset = positionals.pop(0) if positionals else None
    if mode == FINETUNE and dataset is None:
        raise UsageError("You need to provide a dataset.")
    if positionals:
        similar = suggest_flag(positionals[0], [flag.name for flag in FLAGS])
        raise UsageError(f"unexpected argument {positionals[0]!r}; gpt_2_simple --help lists the flags{similar}")
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
    all_names = ["--mode", "--dataset", *(f"--{flag.name}" for flag in FLAGS)]
    old_names = all_names[: all_names.index(f"--{FIRST_ADDED_FLAG}")]
    if len(abbreviation) <= 2 or not abbreviation.startswith("--") or abbreviation in all_names:
        return argument
    check_is_one_word(argument)
    for names in (old_names, all_names):
        matches = [name for name in names if name.startswith(abbreviation)]
        if len(matches) == 1:
            return f"{matches[0]}{equals}{value}"
    return argument


def _parser() -> RaisingArgumentParser:
    parser = RaisingArgumentParser(
        prog="gpt_2_simple",
        usage="gpt_2_simple finetune DATASET [--FLAG VALUE ...], or gpt_2_simple generate [--FLAG VALUE ...]",
        description="Fine-tune GPT-2 on your own text, and generate text with the result.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "positionals", nargs="*", metavar="MODE DATASET", help="finetune, and a file, folder or glob; or generate"
    )
    parser.add_argument("--mode", nargs="?", metavar="MODE", help="the mode, instead of the argument MODE")
    parser.add_argument("--dataset", nargs="?", help="the data set, instead of the argument DATASET")
    for name, default, mode, definition in FLAGS:
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
