"""The printable characters in which byte-level vocabularies spell the bytes of their tokens."""

from __future__ import annotations

from collections.abc import Mapping, Set


def byte_characters() -> dict[int, str]:
    """Return the printable character of each byte: the one with its code if printable, else one from U+0100 on.

    >>> byte_characters()[ord(" ")], byte_characters()[ord("a")]
    ('Ġ', 'a')
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


class TokenBytes(dict[int, bytes]):
    """A mapping from ids to their bytes, filled on first use, since a text needs about 1% of the ids."""

    def __init__(self, ids_of: Mapping[str, int], special: Set[str]) -> None:
        """Prepare an empty mapping.

        Args:
            ids_of: The id of each piece.
            special: The pieces whose bytes are their UTF-8 form instead of the bytes that their characters spell.
        """
        self.pieces = dict(zip(ids_of.values(), ids_of))
        self.special = special
        self.byte_of_character = {ord(character): byte for byte, character in byte_characters().items()}

    def __missing__(self, token: int) -> bytes:
        """Compute and store the bytes of an id; raise KeyError if the vocabulary does not have it."""
        piece = self.pieces[token]
        if piece in self.special:
            content = piece.encode("utf-8")
        else:
            content = piece.translate(self.byte_of_character).encode("latin-1")
        self[token] = content
        return content
