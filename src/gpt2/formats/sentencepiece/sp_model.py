"""Reads `sp.model`, a SentencePiece vocabulary: a protocol buffer (the package's sentencepiece_model.proto).

The package checks most of what a file says, but it follows the offsets in the table of characters wherever they lead:
those are checked here first, and what it would say on stderr is held back.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gpt2 import files, tensorflow_startup
from gpt2.errors import FETCH_AGAIN, DamagedFileError
from gpt2.formats.malformed import MalformedFileError
from gpt2.formats.protobuf import read_fields
from gpt2.text.sentencepiece import SentencePiece, import_sentencepiece

PIECE, NORMALIZER, DENORMALIZER = 1, 3, 5  # fields of a model
CHARSMAP, ADDS_SPACE, TRIMS = 2, 3, 4  # of a normaliser
ONE_BYTE = 128  # what is below is one byte long
BLOCK = 256  # units of a double array that the children of one are among
IS_VALUE, HAS_VALUE = 1 << 31, 1 << 8  # bits of a unit


class Spaces(NamedTuple):
    """What a file says of spaces: see `SentencePiece`."""

    adds_space: bool = True
    trims: bool = True


def read(path: Path) -> SentencePiece:
    """Raises GPT2Error, naming the file, if it cannot be read or is damaged, or if the package is missing."""
    import_sentencepiece()
    with files.reporting_read_errors(path), path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > files.MAX_TEXT_FILE_BYTES:
            raise DamagedFileError(
                path, f"it has more than {files.MAX_TEXT_FILE_BYTES} bytes, which no vocabulary needs"
            )
        model = file.read()
    try:
        spaces = _looked_through(model)
        with tensorflow_startup.hold_back_stderr():
            vocabulary = SentencePiece(model, *spaces)
        _check_pieces(vocabulary)
    except (MalformedFileError, RuntimeError) as error:
        reason = (
            str(error)
            if isinstance(error, MalformedFileError)
            else "it is no SentencePiece vocabulary, or not all of one"
        )
        raise DamagedFileError(path, reason, FETCH_AGAIN) from error
    return vocabulary


def _looked_through(model: bytes) -> Spaces:
    """Raises Broken for what the package would follow blindly."""
    if not model:
        raise MalformedFileError("it is empty")
    spaces = Spaces()
    for number, value in read_fields(model[_end_of_short_pieces(model) :]):
        if number in (NORMALIZER, DENORMALIZER) and isinstance(value, bytes):
            said = dict(read_fields(value))
            _check_charsmap(said.get(CHARSMAP, b""))
            if number == NORMALIZER:
                spaces = Spaces(bool(said.get(ADDS_SPACE, 1)), bool(said.get(TRIMS, 1)))
    return spaces


def _end_of_short_pieces(model: bytes) -> int:
    """Where the pieces end with which a file begins; there are tens of thousands, and nothing in them is followed."""
    at, tag = 0, PIECE << 3 | 2
    while at + 1 < len(model) and model[at] == tag and model[at + 1] < ONE_BYTE:
        at += 2 + model[at + 1]
    return at


def _check_charsmap(charsmap: int | bytes) -> None:
    """The characters that are written in another way: the size of a double array (Aoe 1989, as the library darts-clone
    has it), its units of 32 bits, and the texts that its values are offsets of, each with a NUL at its end.

    A unit's children are at its place, changed by its offset and by their byte: all must be in the array.
    """
    if not isinstance(charsmap, bytes):
        raise MalformedFileError("the table of its normaliser is none")
    if not charsmap:
        return
    size = int.from_bytes(charsmap[:4], "little")
    array, texts = charsmap[4 : 4 + size], charsmap[4 + size :]
    if not size or size % 4 or texts[-1:] != b"\0":  # with texts behind it, the array is whole
        raise MalformedFileError("the table of its normaliser is cut off")
    units = np.frombuffer(array, "<u4").astype(np.int64)
    offsets = (units >> 10) << ((units & 1 << 9) >> 6)
    bases = np.arange(len(units)) ^ offsets
    inner = units & IS_VALUE == 0
    if np.any((bases[inner] | BLOCK - 1) >= len(units)):
        raise MalformedFileError("the table of its normaliser points beyond its end")
    values = units[bases[inner & (units & HAS_VALUE != 0)]] & IS_VALUE - 1
    if np.any(values >= len(texts)):
        raise MalformedFileError("the table of its normaliser names texts that are not there")


def _check_pieces(vocabulary: SentencePiece) -> None:
    """Raises Broken for a piece that is no text, or whose score cannot be compared with others."""
    processor, ids = vocabulary.processor, range(vocabulary.n_vocab)
    try:
        for token in ids:
            processor.id_to_piece(token)
    except UnicodeDecodeError as error:
        raise MalformedFileError("a piece is not UTF-8") from error
    if not all(map(math.isfinite, map(processor.get_score, ids))):
        raise MalformedFileError("the score of a piece is not a number")
