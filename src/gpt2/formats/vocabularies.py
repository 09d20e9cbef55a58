"""Which vocabulary lies in a folder, by the names of its files, or in a file of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gpt2 import files
from gpt2.encoder import ENCODER_FILE, MERGES_FILE, SPECIAL_TOKENS_FILE
from gpt2.formats.huggingface import vocabulary
from gpt2.formats.openai.vocabulary import load_encoder
from gpt2.text.sentencepiece import SP_MODEL_FILE, SP_MODEL_SUFFIX
from gpt2.text.vocabulary import Vocabulary


def _read_sp_model(path: Path) -> Vocabulary:
    """A file, or the one of its name in a folder."""
    from gpt2.formats.sentencepiece import sp_model  # needs packages, which a wrong name is answered without

    return sp_model.read(path if path.suffix == SP_MODEL_SUFFIX and files.is_file(path) else path / SP_MODEL_FILE)


# The files that make a vocabulary, and what reads them from their folder; the first that are there count.
KINDS: list[tuple[tuple[str, ...], Callable[[Path], Vocabulary]]] = [
    ((ENCODER_FILE, MERGES_FILE), load_encoder),
    ((vocabulary.TOKENIZER_FILE,), vocabulary.load_tokenizer),
    (vocabulary.VOCAB_AND_MERGES, vocabulary.load_vocab_and_merges),
    ((SP_MODEL_FILE,), _read_sp_model),
]
FILES = (*dict.fromkeys(name for names, _ in KINDS for name in names), SPECIAL_TOKENS_FILE)


def has_vocabulary(path: Path) -> bool:
    """Whether it is a folder with a vocabulary, or a file that is one."""
    return any(_are_there(path, names) for names, _ in KINDS) or _is_sp_model(path)


def load(path: Path) -> Vocabulary:
    """The vocabulary for which `has_vocabulary` holds. Raises GPT2Error, naming the file, if it is damaged."""
    if _is_sp_model(path):
        return _read_sp_model(path)
    return next(read for names, read in KINDS if _are_there(path, names))(path)


def _is_sp_model(path: Path) -> bool:
    return path.suffix == SP_MODEL_SUFFIX and files.is_file(path)


def _are_there(folder: Path, names: tuple[str, ...]) -> bool:
    return all(files.is_file(folder / name) for name in names)
