"""What a vocabulary is to the rest of the library: text -> ids and back, whatever its files are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class TextStream(Protocol):
    """Ids in, text out, never half a character."""

    def feed(self, ids: Iterable[int]) -> str: ...

    def finish(self) -> str: ...


class TextEncoder(Protocol):
    """What the rest of the library needs of a vocabulary."""

    @property
    def n_vocab(self) -> int: ...

    @property
    def end_of_text(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    def encode(self, text: str) -> list[int]: ...

    def pack(self, text: str) -> bytes: ...

    def decode(self, ids: Iterable[int]) -> str: ...

    def stream(self) -> TextStream: ...
