#!/usr/bin/env python3
"""Command: a model in another format, for the programs that read it."""

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))  # where src/'s content is if it was moved up
sys.path.insert(0, str(CHECKOUT / "src"))

from gpt2.cli import command
from gpt2.errors import UsageError
from gpt2.files import expand_path
from gpt2.formats.model_dir import DEFAULT_MODELS_DIR, find_model


def convert(src, dst, to, dtype="float32", shard_size="5GB", variant=False, models_dir=DEFAULT_MODELS_DIR):
    """Write the model SRC to DST in another format: openai (what OpenAI published, for the old tools), huggingface
    (for transformers), gguf (for llama.cpp) or saved_model (for TensorFlow Serving).

    SRC may be in any format that the commands read. What is written is read back and compared before it gets its name.
    """
    from gpt2 import tensorflow_startup  # needs packages, which --help does not
    from gpt2.cli.flags import parse_byte_size
    from gpt2.cli.progress_bars import CONVERTING, bar
    from gpt2.export import convert as export
    from gpt2.export.options import ExportOptions

    if not dst:
        raise UsageError("dst must be the path of what is to be written, not ''")
    export.check_format(to)
    size = parse_byte_size(shard_size) if isinstance(shard_size, str) else shard_size  # as the default is, for people
    chosen = ExportOptions(dtype, size, variant)
    model = find_model(src, models_dir)
    if to in export.TENSORFLOW_FORMATS:
        tensorflow_startup.start_tensorflow()
    with bar(CONVERTING) as report:
        export.convert(model, expand_path(dst), to, chosen, report)
    rounded = "" if dtype == "float32" else f", rounded to {dtype}"
    command.print_error_line(f"{dst}: {model.hparams.n_params:,} weights, the same as in {src}{rounded}")


if __name__ == "__main__":
    sys.exit(command.main(convert))
