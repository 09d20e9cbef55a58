"""Reader of model directories in OpenAI's layout: `hparams.json encoder.json vocab.bpe checkpoint` and weights.

OpenAI published its models in this layout, and training writes its models in it. Another kind of vocabulary may replace
`encoder.json` and `vocab.bpe`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gpt2 import files
from gpt2.errors import FETCH_AGAIN, GPT2Error
from gpt2.formats import vocabularies
from gpt2.formats.directory import ModelDir
from gpt2.formats.openai.checkpoint_files import STATE_FILE, check_files, current_checkpoint
from gpt2.hparams import HPARAMS_FILE, HParams, load_hparams
from gpt2.text.bpe_files import ENCODER_FILE, MERGES_FILE
from gpt2.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from gpt2.formats.weights import Weights

FILES = (HPARAMS_FILE, ENCODER_FILE, MERGES_FILE, STATE_FILE)


def is_model(path: Path) -> bool:
    """Return whether the folder is a model directory in OpenAI's layout, complete or not."""
    return files.is_file(path / HPARAMS_FILE)


def open_model(path: Path, advice: str = FETCH_AGAIN) -> ModelDir:
    """Open the directory with its current checkpoint, after checking that all files exist with a plausible size.

    Args:
        path: The folder.
        advice: The remedy for missing or damaged files, which ends the error message.

    Raises:
        GPT2Error: A file is missing, cut off or unreadable. The message names the file.
    """
    needed = (HPARAMS_FILE, STATE_FILE) if vocabularies.has_vocabulary(path) else FILES
    missing = [name for name in needed if not files.is_file(path / name)]
    if missing == [HPARAMS_FILE, ENCODER_FILE, MERGES_FILE]:
        raise GPT2Error(
            f"{path} holds only weights, as the old train.py wrote them; copy {', '.join(missing)} of the base"
            " model into it"
        )
    if missing:
        raise GPT2Error(f"{path} lacks {', '.join(missing)}; {advice}")
    model = open_checkpoint(path, current_checkpoint(path))
    check_files(model.weights_path, model.hparams, advice)
    return model


def open_checkpoint(path: Path, prefix: Path) -> ModelDir:
    """Open the directory with a given checkpoint, without checking the checkpoint's files.

    Args:
        path: The folder.
        prefix: The path of the checkpoint's files without their suffixes.

    Raises:
        GPT2Error: hparams.json is missing or damaged.
    """
    return ModelDir(path, load_hparams(path / HPARAMS_FILE), prefix, _read_weights, lambda: _load_vocabulary(path))


def _read_weights(prefix: Path, hparams: HParams) -> Weights:
    # Imported late: it imports packages that the error for a wrong model name does not need.
    from gpt2.formats.openai import checkpoint

    return checkpoint.read_weights(prefix, hparams)


def _load_vocabulary(path: Path) -> Vocabulary:
    if not vocabularies.has_vocabulary(path):
        raise GPT2Error(f"{path} lacks its vocabulary; copy {ENCODER_FILE} and {MERGES_FILE} of the base model into it")
    return vocabularies.load(path)
