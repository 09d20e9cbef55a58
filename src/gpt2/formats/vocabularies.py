"""Which vocabulary lies in a folder, by the names of its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gpt2 import files
from gpt2.encoder import ENCODER_FILE, MERGES_FILE, SPECIAL_FILE, load_encoder
from gpt2.formats import huggingface_vocabulary
from gpt2.text.vocabulary import Vocabulary

# The files that make a vocabulary, and what reads them from their folder; the first that are there count.
KINDS: list[tuple[tuple[str, ...], Callable[[Path], Vocabulary]]] = [
    ((ENCODER_FILE, MERGES_FILE), load_encoder),
    ((huggingface_vocabulary.TOKENIZER_FILE,), huggingface_vocabulary.load_tokenizer),
    (huggingface_vocabulary.PAIR, huggingface_vocabulary.load_pair),
]
FILES = (*dict.fromkeys(name for names, _ in KINDS for name in names), SPECIAL_FILE)


def is_one(folder: Path) -> bool:
    return any(_are_there(folder, names) for names, _ in KINDS)


def load(folder: Path) -> Vocabulary:
    """The vocabulary in a folder for which `is_one` holds. Raises GPT2Error, naming the file, if it is damaged."""
    return next(read for names, read in KINDS if _are_there(folder, names))(folder)


def _are_there(folder: Path, names: tuple[str, ...]) -> bool:
    return all(files.is_file(folder / name) for name in names)
