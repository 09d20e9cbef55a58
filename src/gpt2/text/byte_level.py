"""Bytes as printable characters, in which byte-level vocabularies write their pieces, and back."""

from __future__ import annotations

from collections.abc import Mapping, Set


def byte_characters() -> dict[int, str]:
    """The printable character that stands for each byte: itself where it has one, else U+0100 and up.

    >>> byte_characters()[ord(" ")], byte_characters()[ord("a")]
    ('Ġ', 'a')
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


class TokenBytes(dict[int, bytes]):
    """id -> what it stands for, found when it is first asked for: a text has a hundredth of the ids."""

    def __init__(self, ids_of: Mapping[str, int], special: Set[str]) -> None:
        self.pieces, self.special = dict(zip(ids_of.values(), ids_of)), special
        self.to_latin = {ord(character): byte for byte, character in byte_characters().items()}

    def __missing__(self, i: int) -> bytes:
        """Raises KeyError for an id that the vocabulary does not have."""
        piece = self.pieces[i]
        # A special token's characters do not stand for bytes: those are its UTF-8.
        found = piece.encode("utf-8") if piece in self.special else piece.translate(self.to_latin).encode("latin-1")
        self[i] = found
        return found
