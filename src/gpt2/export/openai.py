"""Export to OpenAI's layout for the old tools: `hparams.json encoder.json vocab.bpe checkpoint model.ckpt.*`."""

from __future__ import annotations

import json
from pathlib import Path

from gpt2.encoder import Encoder
from gpt2.engine.tensorflow import as_tensors
from gpt2.errors import GPT2Error
from gpt2.export import compare
from gpt2.export.options import DEFAULT_OPTIONS, FLOAT32, ExportOptions, resolve_dtype
from gpt2.files import ByteProgress, no_callback
from gpt2.formats.directory import ModelDir
from gpt2.hparams import HPARAMS_FILE, HParams
from gpt2.text.vocabulary import Vocabulary
from gpt2.training.checkpoints import tensorflow_checkpoint

NAME = "openai"
IS_FILE = False


def check(hparams: HParams, vocabulary: Vocabulary, options: ExportOptions) -> None:
    """Check that the old tools can read the model, unless variants are allowed; see `ExportFormat.check`."""
    resolve_dtype(options, [FLOAT32], NAME)
    unsupported = [f"{name} {value}" for name, value in hparams.variant_fields().items()]
    if not isinstance(vocabulary, Encoder):
        unsupported.append("a vocabulary other than a byte-level BPE")
    if unsupported and not options.variant:
        raise GPT2Error(
            f"the old tools, which read OpenAI's layout, do not support {', '.join(unsupported)}; use --variant to"
            " write it anyway, for this library only"
        )


def write(
    model: ModelDir,
    vocabulary: Vocabulary,
    folder: Path,
    options: ExportOptions = DEFAULT_OPTIONS,
    progress: ByteProgress = no_callback,
) -> None:
    """Write all files, with all weights in memory; see `ExportFormat.write`."""
    weights = as_tensors(compare.with_progress(model, progress))
    texts = {HPARAMS_FILE: json.dumps(model.hparams.as_dict())}
    for name, content in vocabulary.files().items():
        (folder / name).write_bytes(content)
    tensorflow_checkpoint.save(folder, weights, texts=texts)


def verify(model: ModelDir, vocabulary: Vocabulary, folder: Path, options: ExportOptions = DEFAULT_OPTIONS) -> None:
    """Compare the folder with the model; see `ExportFormat.verify`."""
    compare.verify_same(model, vocabulary, folder, compare.no_tolerance)
