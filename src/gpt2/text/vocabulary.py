"""What a vocabulary is to the rest of the library: text -> ids and back, whatever its files are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


def type_code(n_vocab: int) -> str:
    """The smallest of the types in which ids are kept, as `array` and NumPy call it: uint16 or uint32."""
    return "H" if n_vocab <= 1 << 16 else "I"


class TextStream(Protocol):
    """Ids in, text out, never half a character."""

    def feed(self, ids: Iterable[int]) -> str: ...

    def finish(self) -> str: ...


class Vocabulary(Protocol):
    """What the rest of the library needs of a vocabulary; it can be pickled. Ids that it does not have: GPT2Error."""

    @property
    def n_vocab(self) -> int:
        """One more than the largest id."""

    @property
    def end_of_text(self) -> int:
        """The id that parts documents, and with which a text without a prompt begins. Raises GPT2Error for none."""

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits by which files of ids name their vocabulary."""

    @property
    def ends_lines(self) -> bool:
        """Whether each line of a document ends with an id of its own, the last one too, be there a newline or not."""

    def last_safe_cut(self, text: str) -> int:
        """The last place at which a text may be cut so that its parts have the ids of the whole; 0 for none."""

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Text of any length -> ids. special: whether the text of the end-of-text token stands for it."""

    def pack(self, text: str) -> bytes:
        """What `encode` gives, as the bytes of an array of type_code(n_vocab)."""

    def decode(self, ids: Iterable[int]) -> str:
        """Ids -> text; bytes that are not UTF-8 become U+FFFD."""

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Ids -> the bytes that they stand for."""

    def token_text(self, token: int) -> str:
        """An id as people look at it: its text, spaces included, or its name."""

    def stream(self, prompt: str | None = None) -> TextStream:
        """For ids that come one by one. prompt: the text before them, which theirs joins as it is written; None for
        none."""

    def files(self) -> dict[str, bytes]:
        """What a model directory holds of it, by the names of the files."""
