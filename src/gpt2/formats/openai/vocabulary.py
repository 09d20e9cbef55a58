"""Reader of OpenAI's vocabulary files, `encoder.json` and `vocab.bpe`, with checks."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from gpt2 import files
from gpt2.encoder import Encoder
from gpt2.errors import DamagedFileError, GPT2Error
from gpt2.formats.added_tokens import read_saved_tokens
from gpt2.text.bpe_files import ENCODER_FILE, MERGES_FILE
from gpt2.text.byte_level import byte_characters, looks_special, pieces_from_merges

FETCH_BOTH_AGAIN = "fetch both vocabulary files again"


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Pause garbage collection, which takes a tenth of the loading time and frees no memory."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_without_garbage_collection()
def load_encoder(directory: Path) -> Encoder:
    """Load the vocabulary of a model directory.

    Raises:
        GPT2Error: A file cannot be read or is damaged. The message names the file.
    """
    path = directory / ENCODER_FILE
    ids_of = files.read_json(path)
    check_pieces(ids_of, path)
    _check_complete(ids_of, path)
    path = directory / MERGES_FILE
    merges = read_merges(path, ids_of)
    saved = read_saved_tokens(directory)
    added = [token.content for token in saved.added] if saved else ()
    encoder = Encoder(ids_of, merges, special=check_merges(merges, ids_of, path, special=added))
    return saved.add_to(encoder) if saved else encoder


def read_merges(path: Path, ids_of: dict[str, int]) -> list[tuple[str, str]]:
    """Read the pairs of `vocab.bpe`, reusing the strings of `ids_of` to save memory.

    Args:
        path: The file.
        ids_of: The id of each piece.

    Raises:
        DamagedFileError: A line below the version line does not consist of two pieces.
    """
    lines = files.read_text(path).split("\n")
    has_version = lines[0].startswith("#version")
    pairs = list(map(str.split, lines[has_version:]))
    if not set(map(len, pairs)) <= {0, 2}:
        line_index = next(i for i, pair in enumerate(pairs) if len(pair) not in (0, 2)) + has_version
        reason = f"line {line_index + 1} should be two pieces, not {lines[line_index][:40]!r}"
        raise DamagedFileError(path, reason, FETCH_BOTH_AGAIN)
    reuse = dict(zip(ids_of, ids_of)).get
    return [(reuse(left, left), reuse(right, right)) for left, right in filter(None, pairs)]


def check_pieces(ids_of: Any, path: Path) -> None:
    """Check that a JSON value maps each piece to a different id.

    Args:
        ids_of: The JSON value.
        path: The file of the pieces, for error messages.

    Raises:
        DamagedFileError: The value is not such a mapping.
    """
    if not isinstance(ids_of, dict) or not ids_of or set(map(type, ids_of.values())) != {int}:
        raise DamagedFileError(path, "it should map pieces of text to ids", FETCH_BOTH_AGAIN)
    if len(set(ids_of.values())) < len(ids_of):
        raise DamagedFileError(path, "it assigns one id to several pieces", FETCH_BOTH_AGAIN)
    try:
        "".join(ids_of).encode("utf-8")
    except UnicodeEncodeError as error:
        reason = "a piece contains an unpaired surrogate, which cannot occur in text"
        raise DamagedFileError(path, reason, FETCH_BOTH_AGAIN) from error


def _check_complete(ids_of: dict[str, int], path: Path) -> None:
    """Raise DamagedFileError if a byte or an id is missing, since no complete `encoder.json` lacks one."""
    if missing := set(byte_characters().values()) - ids_of.keys():
        raise DamagedFileError(path, f"it lacks {len(missing)} of the 256 bytes", FETCH_BOTH_AGAIN)
    if (min(ids_of.values()), max(ids_of.values())) != (0, len(ids_of) - 1):
        reason = f"the ids of its {len(ids_of)} pieces should be 0 to {len(ids_of) - 1}"
        raise DamagedFileError(path, reason, FETCH_BOTH_AGAIN)


def check_merges(
    merges: list[tuple[str, str]],
    ids_of: dict[str, int],
    path: Path,
    pieces_file: str = ENCODER_FILE,
    special: Collection[str] = (),
) -> set[str]:
    """Check that merges and pieces belong together.

    Args:
        merges: The pairs of pieces.
        ids_of: The id of each piece.
        path: The file of merges, for error messages.
        pieces_file: The name of the file of pieces, for error messages.
        special: Pieces that do not need a merge, in addition to pieces that look special.

    Returns:
        The special pieces, which no merge produces.

    Raises:
        GPT2Error: No merge produces a piece that is not special, or a merge produces an unknown piece.
    """
    merged = pieces_from_merges(merges)
    unmerged = {piece for piece in ids_of if piece not in merged}
    if unreachable := sorted(piece for piece in unmerged.difference(special) if not looks_special(piece)):
        raise GPT2Error(
            f"{path} is cut off: it has {len(merges)} merges, and none of them produces"
            f" {unreachable[0]!r} and {len(unreachable) - 1} other pieces of {pieces_file}; {FETCH_BOTH_AGAIN}"
        )
    if unknown := merged - ids_of.keys() - set(byte_characters().values()):
        raise GPT2Error(
            f"{path} belongs to another vocabulary: {pieces_file} lacks its piece {min(unknown)!r}; {FETCH_BOTH_AGAIN}"
        )
    return unmerged
