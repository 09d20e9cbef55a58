"""The interface of a vocabulary: it maps text to token ids and back, whatever its file format."""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Protocol


def type_code(n_vocab: int) -> str:
    """Return the type code of the smallest integer type that holds the ids of a vocabulary.

    Args:
        n_vocab: One more than the largest id.

    Returns:
        A code that both `array` and NumPy understand: "H" (uint16) or "I" (uint32).
    """
    return "H" if n_vocab <= 1 << 16 else "I"


class TextStream(Protocol):
    """An incremental decoder: it takes ids and returns text, and never returns part of a character."""

    def feed(self, ids: Iterable[int]) -> str:
        """Return the text that these ids complete."""

    def finish(self) -> str:
        """Return the text of an incomplete character at the end, as U+FFFD."""


class Vocabulary(Protocol):
    """A mapping between text and token ids.

    A vocabulary can be pickled. Its methods raise GPT2Error for ids that it does not have.
    """

    @property
    def n_vocab(self) -> int:
        """The size of the vocabulary: one more than the largest id."""

    @property
    def end_of_text(self) -> int:
        """The id that separates documents and that starts a text without a prompt.

        Raises:
            GPT2Error: If the vocabulary has no such token.
        """

    @property
    def ending_ids(self) -> Set[int]:
        """The ids that end a text: `end_of_text`, if there is one, and others that the model's files list."""

    @property
    def fingerprint(self) -> str:
        """A hash of 16 hexadecimal digits that identifies the vocabulary in token files."""

    @property
    def ends_lines(self) -> bool:
        """Return whether each line of a document ends with a special token, even a last line without a newline."""

    def last_safe_cut(self, text: str) -> int:
        """Return the last index at which `text` can be split without changing its ids, or 0 if there is none."""

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Return the ids of a text of any length.

        Args:
            text: The text to encode.
            special: Whether the name of the end-of-text token is encoded as that token instead of as ordinary text.
                Added tokens of the vocabulary are always encoded as themselves.
        """

    def pack(self, text: str) -> bytes:
        """Return the ids that `encode` returns, as the bytes of an array of `type_code(n_vocab)`."""

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of the ids; bytes that are not valid UTF-8 become U+FFFD."""

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of the ids."""

    def token_text(self, token: int) -> str:
        """Return the readable form of an id: its text, including spaces, or its name."""

    def stream(self, prompt: str | None = None) -> TextStream:
        """Return a decoder for ids that arrive one by one.

        Args:
            prompt: The text that the decoded text continues, or None if there is none.
        """

    def files(self) -> dict[str, bytes]:
        """Return the name and content of each file that stores this vocabulary in a model directory."""
