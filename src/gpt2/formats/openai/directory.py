"""Model directories in OpenAI's layout: `hparams.json encoder.json vocab.bpe checkpoint` and the weights it names.

That is what OpenAI published and what training writes; another kind of vocabulary may stand in place of its two files.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gpt2 import files
from gpt2.encoder import ENCODER_FILE, MERGES_FILE
from gpt2.errors import FETCH_AGAIN, GPT2Error
from gpt2.formats import vocabularies
from gpt2.formats.directory import ModelDir
from gpt2.formats.openai.checkpoint_files import STATE_FILE, check_files, current_checkpoint
from gpt2.hparams import HPARAMS_FILE, HParams, load_hparams
from gpt2.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from gpt2.formats.weights import Weights

FILES = (HPARAMS_FILE, ENCODER_FILE, MERGES_FILE, STATE_FILE)


def is_model(path: Path) -> bool:
    """Whether the folder is such a directory, be it whole or not."""
    return files.is_file(path / HPARAMS_FILE)


def open_model(path: Path, advice: str = FETCH_AGAIN) -> ModelDir:
    """Checks that all files are there and of a plausible size; reads the hparams.

    Raises GPT2Error naming what is missing, cut off or unreadable. advice: what to do about that.
    """
    needed = (HPARAMS_FILE, STATE_FILE) if vocabularies.has_vocabulary(path) else FILES
    missing = [name for name in needed if not files.is_file(path / name)]
    if missing == [HPARAMS_FILE, ENCODER_FILE, MERGES_FILE]:
        raise GPT2Error(
            f"{path} holds weights only, as the old train.py wrote them: copy {', '.join(missing)} of the model that"
            " was trained into it"
        )
    if missing:
        raise GPT2Error(f"{path} lacks {', '.join(missing)}; {advice}")
    found = open_checkpoint(path, current_checkpoint(path))
    check_files(found.weights_path, found.hparams, advice)
    return found


def open_checkpoint(path: Path, prefix: Path) -> ModelDir:
    """The directory with these weights, which are not looked at. Raises GPT2Error for its hparams."""
    return ModelDir(path, load_hparams(path / HPARAMS_FILE), prefix, _read_weights, lambda: _vocabulary(path))


def _read_weights(prefix: Path, hparams: HParams) -> Weights:
    from gpt2.formats.openai import checkpoint  # needs packages, which a wrong name is answered without

    return checkpoint.read_weights(prefix, hparams)


def _vocabulary(path: Path) -> Vocabulary:
    if not vocabularies.has_vocabulary(path):
        raise GPT2Error(f"{path} lacks {ENCODER_FILE} and {MERGES_FILE}, its vocabulary")
    return vocabularies.load(path)
