"""Detection and loading of the vocabulary in a folder or in a single file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gpt2 import files
from gpt2.formats.huggingface import vocabulary
from gpt2.formats.openai.vocabulary import load_encoder
from gpt2.text.bpe_files import (
    ADDED_TOKENS_FILE,
    ENCODER_FILE,
    MERGES_FILE,
    SPECIAL_TOKENS_FILE,
)
from gpt2.text.sentencepiece import SP_MODEL_FILE, SP_MODEL_SUFFIX
from gpt2.text.vocabulary import Vocabulary


def _read_sp_model(path: Path) -> Vocabulary:
    """Read a SentencePiece file, given its path or its folder."""
    # Imported late: it imports packages that the error for a wrong model name does not need.
    from gpt2.formats.sentencepiece import sp_model

    return sp_model.read(path if _is_sp_model(path) else path / SP_MODEL_FILE)


# The files of each kind of vocabulary, and the function that reads them from their folder. The first match is used.
KINDS: list[tuple[tuple[str, ...], Callable[[Path], Vocabulary]]] = [
    ((ENCODER_FILE, MERGES_FILE), load_encoder),
    ((vocabulary.TOKENIZER_FILE,), vocabulary.load_tokenizer),
    (vocabulary.VOCAB_AND_MERGES, vocabulary.load_vocab_and_merges),
    ((SP_MODEL_FILE,), _read_sp_model),
]
FILES = (*dict.fromkeys(name for names, _ in KINDS for name in names), SPECIAL_TOKENS_FILE, ADDED_TOKENS_FILE)


def has_vocabulary(path: Path) -> bool:
    """Return whether `path` is a folder with a vocabulary, or a vocabulary file."""
    return any(_has_files(path, names) for names, _ in KINDS) or _is_sp_model(path)


def load(path: Path) -> Vocabulary:
    """Load the vocabulary at a path for which `has_vocabulary` is true.

    Raises:
        GPT2Error: A file is damaged or cannot be read. The message names the file.
    """
    if _is_sp_model(path):
        return _read_sp_model(path)
    return next(read for names, read in KINDS if _has_files(path, names))(path)


def _is_sp_model(path: Path) -> bool:
    return path.suffix == SP_MODEL_SUFFIX and files.is_file(path)


def _has_files(folder: Path, names: tuple[str, ...]) -> bool:
    return all(files.is_file(folder / name) for name in names)
