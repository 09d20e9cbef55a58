"""Export to OpenAI's layout for the old tools: `hparams.json encoder.json vocab.bpe checkpoint model.ckpt.*`."""

from __future__ import annotations

import json
from pathlib import Path

from gpt2.encoder import END_OF_TEXT, Encoder
from gpt2.engine.tensorflow import as_tensors
from gpt2.errors import GPT2Error, summarize_names
from gpt2.export import compare
from gpt2.export.byte_level import warn_of_added_tokens
from gpt2.export.options import DEFAULT_OPTIONS, FLOAT32, ExportOptions, resolve_dtype
from gpt2.files import ByteProgress, no_callback
from gpt2.formats.directory import ModelDir
from gpt2.hparams import HPARAMS_FILE, HParams
from gpt2.text.bpe_files import ADDED_TOKENS_FILE
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
    elif not vocabulary.fits_openai_files():
        unsupported.append(_describe_tokens(vocabulary))
    if unsupported and not options.variant:
        raise GPT2Error(
            f"the old tools, which read OpenAI's layout, do not support {', '.join(unsupported)}; use --variant to"
            " write it anyway, for this library only"
        )
    if isinstance(vocabulary, Encoder):
        warn_of_added_tokens(
            [token.content for token in vocabulary.added.tokens if token.content != vocabulary.end_token],
            f"are ordinary text for the old tools; these commands recognize them, from {ADDED_TOKENS_FILE}",
        )


def _describe_tokens(encoder: Encoder) -> str:
    """Return the part of a vocabulary that OpenAI's two files cannot hold."""
    if encoder.end_token != END_OF_TEXT:
        return f"the end-of-text token {encoder.end_token}"
    if len(encoder.ids_of) < encoder.n_vocab or not encoder.ids_of.keys() >= set(encoder.characters.values()):
        return "a vocabulary that lacks bytes or ids"
    return f"the special tokens {summarize_names(sorted(encoder.special - {END_OF_TEXT}))}"


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
