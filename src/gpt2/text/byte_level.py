"""Bytes of the tokens of byte-level vocabularies: the characters that spell them, and incremental decoding."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Mapping, Set


def byte_characters() -> dict[int, str]:
    """Return the printable character of each byte: the one with its code if printable, else one from U+0100 on.

    >>> byte_characters()[ord(" ")], byte_characters()[ord("a")]
    ('Ġ', 'a')
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def pieces_from_merges(merges: Iterable[tuple[str, str]]) -> set[str]:
    """Return the pieces that text is encoded to: all bytes and the results of merges. Other pieces are special."""
    return {left + right for left, right in merges}.union(byte_characters().values())


def looks_special(piece: str) -> bool:
    """Return whether a piece has the form of a special token, such as `<|endoftext|>`."""
    return piece.startswith("<") and piece.endswith(">")


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


class BPEStream:
    """An incremental decoder that returns only complete characters; its joined texts equal the result of `decode`."""

    def __init__(self, decode_bytes: Callable[[Iterable[int]], bytes]) -> None:
        """Start an empty text; `decode_bytes` is the vocabulary's method."""
        self.decode_bytes = decode_bytes
        self.utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, ids: Iterable[int]) -> str:
        """Return the text that these ids complete."""
        return self.utf8.decode(self.decode_bytes(ids))

    def finish(self) -> str:
        """Return U+FFFD if the last character is incomplete, else an empty string."""
        return self.utf8.decode(b"", final=True)
