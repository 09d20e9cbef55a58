"""SentencePiece vocabularies (Kudo and Richardson 2018), as transformer-lm uses them; the package `sentencepiece` does
the work.

Text is normalised first (its spaces, most of all), and a word's space is the first character of its piece, written `▁`.
transformer-lm encodes line by line: each ends with the control token <endofline>, a document with <endoftext>. A
vocabulary that lacks the first encodes its text as a whole; of one that lacks the second, </s> parts documents.
"""

from __future__ import annotations

import codecs
import functools
import hashlib
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from gpt2.errors import GPT2Error
from gpt2.text.undecodable import without_surrogates
from gpt2.text.vocabulary import type_code

END_OF_LINE, END_OF_TEXT, UNKNOWN_TOKEN = "<endofline>", "<endoftext>", "<unk>"
WORD_START = "▁"  # U+2581
SP_MODEL_FILE = "sp.model"
SP_MODEL_SUFFIX = ".model"  # that sp-train gives its files
MISSING = "a SentencePiece vocabulary needs the package sentencepiece; type: pip install sentencepiece"


def import_sentencepiece() -> Any:
    """The package. Raises GPT2Error, with what to type, if it is not installed."""
    try:
        import sentencepiece
    except ModuleNotFoundError as error:
        if error.name != "sentencepiece":
            raise
        raise GPT2Error(MISSING) from error
    return sentencepiece


class SentencePiece:
    """A vocabulary; `processor` is the package's own object."""

    def __init__(self, model: bytes, adds_space: bool = True, trims: bool = True) -> None:
        """model: a file that `formats.sp_model` has looked through, with what it says of spaces: whether one is put
        before each text, and whether those at its ends, and double ones, are dropped.

        Raises GPT2Error if the package is missing, RuntimeError for what the package cannot read.
        """
        self.model, self.adds_space, self.trims = model, adds_space, trims
        self.processor = import_sentencepiece().SentencePieceProcessor(model_proto=model)
        self.end_of_line = self._id(END_OF_LINE)
        ends = (self._id(END_OF_TEXT), self.processor.eos_id())
        self.ends = [token for token in ends if token is not None and token >= 0]  # of texts, the one to write first
        self.known: dict[int, bytes] = {}  # what tokens stand for, as far as somebody has asked

    def __reduce__(self) -> tuple[Any, ...]:
        return SentencePiece, (self.model, self.adds_space, self.trims)

    def _id(self, name: str) -> int | None:
        found = self.processor.piece_to_id(name)
        return found if self.processor.id_to_piece(found) == name else None

    @functools.cached_property
    def n_vocab(self) -> int:
        return self.processor.get_piece_size()

    @property
    def end_of_text(self) -> int:
        """<endoftext>, or the end of a sentence, </s>. Raises GPT2Error for neither."""
        if not self.ends:
            raise GPT2Error(f"this vocabulary has neither {END_OF_TEXT} nor </s>; start from a prompt instead")
        return self.ends[0]

    @property
    def ends_lines(self) -> bool:
        return self.end_of_line is not None

    @functools.cached_property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.model).hexdigest()[:16]

    def last_safe_cut(self, text: str) -> int:
        """The last end of a line or, if there is none, the last space between words."""
        return text.rfind("\n") + 1 or max(0, text.rfind(" "))

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Text of any length -> ids, what `sp-encode` writes: each newline is an <endofline> if there is that token.

        special: whether <endoftext>, or what stands for it, is the token rather than a text of that name.
        """
        name = self.token_text(self.end_of_text) if special and self.ends else ""
        if name and name in text:
            documents = [self.encode(part) for part in text.split(name)]
            return list(chain(documents[0], *([self.end_of_text, *ids] for ids in documents[1:])))
        return list(chain.from_iterable(self._encoded(text)))

    def pack(self, text: str) -> bytes:
        return array(type_code(self.n_vocab), chain.from_iterable(self._encoded(text))).tobytes()

    def _encoded(self, text: str) -> Iterator[list[int]]:
        """The ids of each line, or of all."""
        text = without_surrogates(text)
        if self.end_of_line is None:
            yield self.processor.encode(text)
            return
        lines = text.split("\n")
        lines[:-1] = [f"{line}\n" for line in lines[:-1]]
        for line, ids in zip(lines, self.processor.encode(lines, num_threads=1)):
            yield [*ids, self.end_of_line] if line.endswith("\n") else ids

    def decode(self, ids: Iterable[int]) -> str:
        """Ids -> text, without the space of its first word and of each line's; bytes that are not UTF-8 become U+FFFD.

        <endofline> becomes a newline, the end of text its name, <unk> what the file wants to be seen of it (" ⁇ ").
        """
        stream = self.stream()
        return stream.feed(ids) + stream.finish()

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """What the ids stand for in the midst of a text: the space of the first word is there, that of a line is not.

        >>> vocabulary.decode_bytes([vocabulary.processor.piece_to_id("▁Haus")])
        b' Haus'
        """
        return SentencePieceStream(self, at_start=False).bytes_of(ids)

    def token_text(self, token: int) -> str:
        """An id's text, spaces included, or its name; bytes that are not UTF-8 are shown as `\\xe4`."""
        if self.processor.is_control(self._checked(token)) or self.processor.is_unknown(token):
            return self.processor.id_to_piece(token)
        return self.token_bytes(token).decode("utf-8", errors="backslashreplace")

    def stream(self, prompt: str | None = None) -> SentencePieceStream:
        """For ids that come one by one. A space that the prompt ends with, and that its ids have lost, is not written
        again before the first word."""
        return SentencePieceStream(self, self._lost_space(prompt or ""))

    def _lost_space(self, prompt: str) -> bool:
        line = prompt if self.end_of_line is None else prompt.rpartition("\n")[2]
        return not line or (line[-1].isspace() and not self.decode(self.encode(line)).endswith(line[-1]))

    def files(self) -> dict[str, bytes]:
        return {SP_MODEL_FILE: self.model}

    def begins_with_space(self, token: int) -> bool:
        """Whether it is the beginning of a word; what stands for a byte is not, be that a space."""
        return self.token_bytes(token).startswith(b" ") and self.processor.id_to_piece(token).startswith(WORD_START)

    def token_bytes(self, token: int) -> bytes:
        """What an id stands for, its space included. Raises GPT2Error for one that the vocabulary does not have."""
        token = int(token)
        found = self.known.get(token)
        if found is None:
            found = self.known[token] = self._token_bytes(self._checked(token))
        return found

    def _token_bytes(self, token: int) -> bytes:
        name, processor = self.processor.id_to_piece(token), self.processor
        if token == self.end_of_line:
            return b"\n"
        if processor.is_control(token):
            return name.encode("utf-8") if token in self.ends else b""
        if processor.is_unknown(token):
            return processor.decode([token]).encode("utf-8")
        if processor.is_byte(token):
            return bytes([int(name[1:-1], 16)])  # <0xE4>
        return name.replace(WORD_START, " ").encode("utf-8")

    def _checked(self, token: int) -> int:
        if not 0 <= token < self.n_vocab:
            raise GPT2Error(f"this vocabulary has no id {token}; its ids are below {self.n_vocab}")
        return token


class SentencePieceStream:
    """Ids in, text out, holding an incomplete character back."""

    def __init__(self, vocabulary: SentencePiece, at_start: bool) -> None:
        """at_start: whether the next word's space is not part of the text."""
        self.vocabulary = vocabulary
        self.drops = vocabulary.adds_space or vocabulary.trims
        self.at_start = at_start and self.drops
        self.utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, ids: Iterable[int]) -> str:
        """The text that is complete with these ids."""
        return self.utf8.decode(self.bytes_of(ids))

    def finish(self) -> str:
        """What is left at the end: U+FFFD for a character that was never completed."""
        return self.utf8.decode(b"", final=True)

    def bytes_of(self, ids: Iterable[int]) -> bytes:
        """What the ids stand for where they are."""
        vocabulary, parts = self.vocabulary, []
        for token in map(int, ids):
            part = vocabulary.token_bytes(token)
            if self.at_start and part:
                is_space = vocabulary.begins_with_space(token)
                part = part[1:] if is_space else part
                self.at_start = not part and vocabulary.trims
            parts.append(part)
            if token == vocabulary.end_of_line or token in vocabulary.ends:
                self.at_start = self.drops
        return b"".join(parts)
