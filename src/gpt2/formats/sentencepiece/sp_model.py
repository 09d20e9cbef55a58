"""Reader of `sp.model`, a SentencePiece vocabulary: a protocol buffer (the package's sentencepiece_model.proto).

The package checks most of a file, except the offsets in the table of character replacements. This module checks these
offsets first. It suppresses the package's output on stderr.
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
from gpt2.formats.protobuf import LENGTH_DELIMITED, read_fields
from gpt2.text.sentencepiece import SentencePiece, import_sentencepiece

# Field numbers of a model.
PIECE = 1
NORMALIZER = 3
DENORMALIZER = 5
# Field numbers of a normalizer.
CHARSMAP = 2
ADDS_SPACE = 3
TRIMS = 4
PIECE_TAG = PIECE << 3 | LENGTH_DELIMITED
MAX_ONE_BYTE_VARINT = 127
# Bits of a unit of a double array (32 bits).
CHILDREN = 256  # the children of a unit lie within an aligned block of this many units
IS_VALUE = 1 << 31
HAS_VALUE = 1 << 8


class SpaceHandling(NamedTuple):
    """The treatment of spaces by a model's normalizer, as arguments of `SentencePiece`.

    Attributes:
        adds_space: Whether a space is added before a text.
        trims: Whether leading, trailing and repeated spaces are removed.
    """

    adds_space: bool = True
    trims: bool = True


def read(path: Path) -> SentencePiece:
    """Return the vocabulary in a file.

    Raises:
        UnreadableFileError: If the file cannot be read.
        DamagedFileError: If the file is damaged or is not a SentencePiece vocabulary.
        GPT2Error: If the package `sentencepiece` is missing.
    """
    import_sentencepiece()
    with files.reporting_read_errors(path), path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > files.MAX_TEXT_FILE_BYTES:
            raise DamagedFileError(
                path, f"it has more than {files.MAX_TEXT_FILE_BYTES} bytes, more than a vocabulary needs"
            )
        model = file.read()
    try:
        spaces = _check_model(model)
        with tensorflow_startup.hold_back_stderr():
            vocabulary = SentencePiece(model, *spaces)
        _check_pieces(vocabulary)
    except MalformedFileError as error:
        raise DamagedFileError(path, str(error), FETCH_AGAIN) from error
    except RuntimeError as error:  # from the package, whose message names a line of its source
        raise DamagedFileError(path, "it is not a SentencePiece vocabulary, or it is cut off", FETCH_AGAIN) from error
    return vocabulary


def _check_model(model: bytes) -> SpaceHandling:
    """Check the tables that the package does not check, and return the model's treatment of spaces."""
    if not model:
        raise MalformedFileError("it is empty")
    spaces = SpaceHandling()
    for number, value in read_fields(model[_end_of_short_pieces(model) :]):
        if number in (NORMALIZER, DENORMALIZER) and isinstance(value, bytes):
            normalizer = dict(read_fields(value))
            _check_charsmap(normalizer.get(CHARSMAP, b""))
            if number == NORMALIZER:
                spaces = SpaceHandling(bool(normalizer.get(ADDS_SPACE, 1)), bool(normalizer.get(TRIMS, 1)))
    return spaces


def _end_of_short_pieces(model: bytes) -> int:
    """Return the offset after the leading pieces, which need no check."""
    offset = 0
    while offset + 1 < len(model) and model[offset] == PIECE_TAG and model[offset + 1] <= MAX_ONE_BYTE_VARINT:
        offset += 2 + model[offset + 1]
    return offset


def _check_charsmap(charsmap: int | bytes) -> None:
    """Raise MalformedFileError if an offset in a table of character replacements points outside the table.

    The table consists of the size of a double array (Aoe 1989, in the form of the library darts-clone), its units of 32
    bits, and the replacement texts. Each text is followed by a NUL. A unit is a value or an inner unit. A value is an
    offset into the texts. The children of an inner unit are at the indices (its index) XOR (its offset) XOR (their
    byte). All of these indices must be in the array.
    """
    if not isinstance(charsmap, bytes):
        raise MalformedFileError("the table of its normalizer is a number")
    if not charsmap:
        return
    size = int.from_bytes(charsmap[:4], "little")
    array = charsmap[4 : 4 + size]
    texts = charsmap[4 + size :]
    if not size or size % 4 or texts[-1:] != b"\0":  # if texts follow the array, the array is complete
        raise MalformedFileError("the table of its normalizer is cut off")
    units = np.frombuffer(array, "<u4").astype(np.int64)
    offsets = (units >> 10) << ((units & 1 << 9) >> 6)
    bases = np.arange(len(units)) ^ offsets
    inner = units & IS_VALUE == 0
    if np.any((bases[inner] | CHILDREN - 1) >= len(units)):
        raise MalformedFileError("the table of its normalizer points beyond its end")
    values = units[bases[inner & (units & HAS_VALUE != 0)]] & IS_VALUE - 1
    if np.any(values >= len(texts)):
        raise MalformedFileError("the table of its normalizer refers to texts beyond its end")


def _check_pieces(vocabulary: SentencePiece) -> None:
    """Raise MalformedFileError if a piece is not UTF-8 or if its score is not finite."""
    processor = vocabulary.processor
    ids = range(vocabulary.n_vocab)
    try:
        for token in ids:
            processor.id_to_piece(token)
    except UnicodeDecodeError as error:
        raise MalformedFileError("a piece is not UTF-8") from error
    if not all(map(math.isfinite, map(processor.get_score, ids))):
        raise MalformedFileError("the score of a piece is NaN or infinite")
