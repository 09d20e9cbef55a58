"""OpenAI's layout: `hparams.json encoder.json vocab.bpe checkpoint model.ckpt.*`, as the old tools read it."""

from __future__ import annotations

import json
from pathlib import Path

from gpt2.encoder import Encoder
from gpt2.engine.tensorflow import as_tensors
from gpt2.errors import GPT2Error
from gpt2.export import compare, options
from gpt2.export.options import DEFAULT_OPTIONS, ExportOptions
from gpt2.files import ByteProgress, no_callback
from gpt2.formats.directory import ModelDir
from gpt2.hparams import HPARAMS_FILE, HParams
from gpt2.text.vocabulary import Vocabulary
from gpt2.training.checkpoints import tensorflow_checkpoint

NAME, IS_FILE = "openai", False


def check(hparams: HParams, vocabulary: Vocabulary, chosen: ExportOptions) -> None:
    """Raises GPT2Error, naming it, for what the old tools cannot read, unless it is chosen; UsageError for a dtype."""
    options.resolve_dtype(chosen, [options.FLOAT32], NAME)
    others = [f"{name} {value}" for name, value in hparams.variant_fields().items()]
    if not isinstance(vocabulary, Encoder):
        others.append("a vocabulary that is no byte-level BPE")
    if others and not chosen.variant:
        raise GPT2Error(
            f"the old tools, which know OpenAI's layout, cannot read {', '.join(others)}; --variant writes it all the"
            " same, for the commands here"
        )


def write(
    model: ModelDir,
    vocabulary: Vocabulary,
    folder: Path,
    chosen: ExportOptions = DEFAULT_OPTIONS,
    report: ByteProgress = no_callback,
) -> None:
    """Writes all files into the folder, all weights held in memory meanwhile. Raises GPT2Error if one cannot be."""
    weights = as_tensors(compare.with_progress(model, report))
    texts = {HPARAMS_FILE: json.dumps(model.hparams.as_dict())}
    for name, content in vocabulary.files().items():
        (folder / name).write_bytes(content)
    tensorflow_checkpoint.save(folder, weights, texts=texts)


def verify(model: ModelDir, vocabulary: Vocabulary, folder: Path, chosen: ExportOptions = DEFAULT_OPTIONS) -> None:
    """Raises GPT2Error unless what was written is the model."""
    compare.verify_same(model, vocabulary, folder, compare.no_tolerance)
