"""The command convert.py, which writes a model in the format of another program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gpt2.cli.command import print_error_line
from gpt2.cli.values import ByteSize, parse_byte_size
from gpt2.errors import UsageError
from gpt2.files import expand_path
from gpt2.flags import Flag, ModelsDir
from gpt2.formats.model_dir import DEFAULT_MODELS_DIR, find_model


@dataclass(frozen=True)
class ConvertFlags:
    """The flags of convert.py."""

    src: Annotated[
        str, Flag(expects="a name", help="the model: a name under models_dir, or the path of its folder or file")
    ]
    dst: Annotated[
        str, Flag(expects="a path", help="the new folder, or with --to gguf the new file; it must not exist")
    ]
    to: Annotated[str, Flag(expects="a name", help="the format to write: openai, huggingface, gguf or saved_model")]
    dtype: Annotated[
        str,
        Flag(
            expects="a name",
            help="type of the numbers: float32; for huggingface and gguf also float16 or bfloat16; for gguf also q8_0",
        ),
    ] = "float32"
    shard_size: Annotated[
        int,
        Flag(parse=parse_byte_size, expects="a size such as 500MB", help="huggingface: maximum size of a weight file"),
    ] = ByteSize("5GB")
    variant: Annotated[
        bool, Flag(help="openai: also write models that the old tools cannot read, only these commands")
    ] = False
    models_dir: ModelsDir = DEFAULT_MODELS_DIR


def convert(flags: ConvertFlags) -> None:
    """Write the model SRC to DST in another format.

    The formats are openai (OpenAI's checkpoints, for the old tools), huggingface (for transformers), gguf (for
    llama.cpp) and saved_model (for TensorFlow Serving). SRC may be in any format that the commands read. The new model
    is read back and compared before it gets its name. Added tokens are kept; a warning names those that the format
    cannot hold.
    """
    from gpt2 import tensorflow_startup  # imports packages that --help does not need
    from gpt2.cli.progress_bars import CONVERTING, bar
    from gpt2.export import convert as export
    from gpt2.export.options import ExportOptions

    if not flags.dst:
        raise UsageError("dst must be the path of the new folder or file, not ''")
    export.check_format(flags.to)
    options = ExportOptions(flags.dtype, flags.shard_size, flags.variant)
    model = find_model(flags.src, flags.models_dir)
    if flags.to in export.TENSORFLOW_FORMATS:
        tensorflow_startup.start_tensorflow(notify=print_error_line)
    with bar(CONVERTING) as report:
        export.convert(model, expand_path(flags.dst), flags.to, options, report)
    rounded = "" if flags.dtype == "float32" else f", rounded to {flags.dtype}"
    print_error_line(f"{flags.dst}: {model.hparams.n_params:,} weights, the same as in {flags.src}{rounded}")
