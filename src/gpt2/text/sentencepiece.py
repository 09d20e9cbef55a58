"""SentencePiece vocabularies (Kudo and Richardson 2018) as transformer-lm uses them.

The package `sentencepiece` encodes and decodes.

SentencePiece normalizes a text first, above all its spaces. The space before a word becomes the first character of the
word's piece, written `▁`.

transformer-lm encodes a text line by line: each line ends with the control token <endofline>, and each document with
<endoftext>. If a vocabulary lacks <endofline>, a text is encoded as a whole; if it lacks <endoftext>, </s> separates
documents.
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
from gpt2.installation import install_command
from gpt2.text.undecodable import without_surrogates
from gpt2.text.vocabulary import type_code

END_OF_LINE = "<endofline>"
END_OF_TEXT = "<endoftext>"
UNKNOWN_TOKEN = "<unk>"
WORD_START = "▁"  # U+2581
SP_MODEL_FILE = "sp.model"
SP_MODEL_SUFFIX = ".model"  # the suffix of the files of sp-train
PACKAGE = "sentencepiece"


def import_sentencepiece() -> Any:
    """Import and return the package `sentencepiece`.

    Raises:
        GPT2Error: If the package is not installed. The message says how to install it.
    """
    try:
        import sentencepiece
    except ModuleNotFoundError as error:
        if error.name != PACKAGE:
            raise
        command = install_command(PACKAGE, PACKAGE)
        raise GPT2Error(f"a SentencePiece vocabulary needs the package {PACKAGE}; type: {command}") from error
    return sentencepiece


class SentencePiece:
    """A SentencePiece vocabulary; `processor` is the object of the package."""

    def __init__(self, model: bytes, adds_space: bool = True, trims: bool = True) -> None:
        """Load a vocabulary from the bytes of its file.

        Args:
            model: The content of an `sp.model` file, already checked by `formats.sentencepiece.sp_model`.
            adds_space: Whether the model's normalizer puts a space before each text.
            trims: Whether the model's normalizer removes leading, trailing and repeated spaces.

        Raises:
            GPT2Error: If the package is missing.
            RuntimeError: If the package cannot read the model.
        """
        self.model = model
        self.adds_space = adds_space
        self.trims = trims
        self.processor = import_sentencepiece().SentencePieceProcessor(model_proto=model)
        self.end_of_line = self._find_id(END_OF_LINE)
        end_ids = (self._find_id(END_OF_TEXT), self.processor.eos_id())
        self.end_ids = [token for token in end_ids if token is not None and token >= 0]  # the preferred one first
        self.bytes_cache: dict[int, bytes] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments, since the package's object is rebuilt from them."""
        return SentencePiece, (self.model, self.adds_space, self.trims)

    def _find_id(self, piece: str) -> int | None:
        token = self.processor.piece_to_id(piece)
        return token if self.processor.id_to_piece(token) == piece else None  # an unknown piece gets the id of <unk>

    @functools.cached_property
    def n_vocab(self) -> int:
        """The size of the vocabulary: one more than the largest id."""
        return self.processor.get_piece_size()

    @property
    def end_of_text(self) -> int:
        """The id of <endoftext>, or of </s> (the end of a sentence) if there is no <endoftext>.

        Raises:
            GPT2Error: If the vocabulary has neither token.
        """
        if not self.end_ids:
            raise GPT2Error(f"this vocabulary has neither {END_OF_TEXT} nor </s>; start from a prompt instead")
        return self.end_ids[0]

    @property
    def ending_ids(self) -> frozenset[int]:
        """The id of the end-of-text token, if there is one."""
        return frozenset(self.end_ids[:1])

    @property
    def ends_lines(self) -> bool:
        """Return whether each line ends with <endofline>."""
        return self.end_of_line is not None

    @functools.cached_property
    def fingerprint(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the model's file."""
        return hashlib.sha256(self.model).hexdigest()[:16]

    def last_safe_cut(self, text: str) -> int:
        """Return the index after the last newline or, if there is no newline, the index of the last space.

        A newline that is a user-defined symbol is like a letter, because no space follows it in the ids.
        """
        is_letter = self.end_of_line is None and self._find_id("\n") is not None
        return (0 if is_letter else text.rfind("\n") + 1) or max(0, text.rfind(" "))

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Return the ids of a text of any length, identical to the output of transformer-lm's `sp-encode`.

        Each newline becomes <endofline> if the vocabulary has that token.

        Args:
            text: The text to encode.
            special: Whether the name of the end-of-text token is encoded as that token instead of as ordinary text.
        """
        separator = self.token_text(self.end_of_text) if special and self.end_ids else ""
        if separator and separator in text:
            documents = [self.encode(part) for part in text.split(separator)]
            return list(chain(documents[0], *([self.end_of_text, *ids] for ids in documents[1:])))
        return list(chain.from_iterable(self._encode_lines(text)))

    def pack(self, text: str) -> bytes:
        """Return the ids that `encode` returns, as the bytes of an array of `type_code(n_vocab)`."""
        return array(type_code(self.n_vocab), chain.from_iterable(self._encode_lines(text))).tobytes()

    def _encode_lines(self, text: str) -> Iterator[list[int]]:
        """Yield the ids of each line, or of the whole text if the vocabulary has no <endofline>."""
        text = without_surrogates(text)
        if self.end_of_line is None:
            yield self.processor.encode(text)
            return
        lines = text.split("\n")
        lines[:-1] = [f"{line}\n" for line in lines[:-1]]
        for line, ids in zip(lines, self.processor.encode(lines, num_threads=1)):
            yield [*ids, self.end_of_line] if line.endswith("\n") else ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of the ids, without the space before the first word of the text and of each line.

        <endofline> becomes a newline, and the end-of-text token its name. <unk> becomes the text that the model's file
        gives for it (" ⁇ "). Bytes that are not valid UTF-8 become U+FFFD.
        """
        stream = self.stream()
        return stream.feed(ids) + stream.finish()

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of the ids in the middle of a text.

        The space before the first word is included; the space before the first word of a further line is not.

        >>> vocabulary.decode_bytes([vocabulary.processor.piece_to_id("▁Haus")])
        b' Haus'
        """
        return SentencePieceStream(self, at_start=False).decode_bytes(ids)

    def token_text(self, token: int) -> str:
        r"""Return an id's text, including spaces, or its name; bytes that are not valid UTF-8 are shown as `\xe4`."""
        if self.processor.is_control(self._check_id(token)) or self.processor.is_unknown(token):
            return self.processor.id_to_piece(token)
        return self.token_bytes(token).decode("utf-8", errors="backslashreplace")

    def stream(self, prompt: str | None = None) -> SentencePieceStream:
        """Return a decoder for ids that arrive one by one.

        The ids of a prompt may lack the space at its end. In that case the decoder drops the space before the first
        word, so that the joined text does not have two.

        Args:
            prompt: The text that the decoded text continues, or None if there is none.
        """
        return SentencePieceStream(self, self._loses_last_space(prompt or ""))

    def _loses_last_space(self, prompt: str) -> bool:
        """Return whether the prompt ends at the start of a line or with white space that its encoding loses."""
        line = prompt if self.end_of_line is None else prompt.rpartition("\n")[2]
        return not line or (line[-1].isspace() and not self.decode(self.encode(line)).endswith(line[-1]))

    def files(self) -> dict[str, bytes]:
        """Return the name and content of each file that stores this vocabulary in a model directory."""
        return {SP_MODEL_FILE: self.model}

    def starts_with_space(self, token: int) -> bool:
        """Return whether an id starts a word; byte tokens never do, not even the byte of a space."""
        return self.token_bytes(token).startswith(b" ") and self.processor.id_to_piece(token).startswith(WORD_START)

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of an id, including its space.

        Raises:
            GPT2Error: If the vocabulary does not have the id.
        """
        token = int(token)
        content = self.bytes_cache.get(token)
        if content is None:
            content = self.bytes_cache[token] = self._compute_bytes(self._check_id(token))
        return content

    def _compute_bytes(self, token: int) -> bytes:
        processor = self.processor
        piece = processor.id_to_piece(token)
        if token == self.end_of_line:
            return b"\n"
        if processor.is_control(token):
            return piece.encode("utf-8") if token in self.end_ids else b""
        if processor.is_unknown(token):
            return processor.decode([token]).encode("utf-8")
        if processor.is_byte(token):
            return bytes([int(piece[1:-1], 16)])  # <0xE4>
        return piece.replace(WORD_START, " ").encode("utf-8")

    def _check_id(self, token: int) -> int:
        if not 0 <= token < self.n_vocab:
            raise GPT2Error(f"this vocabulary has no id {token}; its ids are below {self.n_vocab}")
        return token


class SentencePieceStream:
    """An incremental decoder that returns only complete characters."""

    def __init__(self, vocabulary: SentencePiece, at_start: bool) -> None:
        """Start a new text.

        Args:
            vocabulary: The vocabulary of the ids.
            at_start: Whether the space before the next word is not part of the text.
        """
        self.vocabulary = vocabulary
        self.drops_space = vocabulary.adds_space or vocabulary.trims
        self.at_start = at_start and self.drops_space
        self.utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, ids: Iterable[int]) -> str:
        """Return the text that these ids complete."""
        return self.utf8.decode(self.decode_bytes(ids))

    def finish(self) -> str:
        """Return the text of an incomplete character at the end, as U+FFFD."""
        return self.utf8.decode(b"", final=True)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of the next ids, without the spaces that are not part of the text."""
        vocabulary = self.vocabulary
        parts: list[bytes] = []
        for token in map(int, ids):
            part = vocabulary.token_bytes(token)
            if self.at_start and part:
                if vocabulary.starts_with_space(token):
                    part = part[1:]
                self.at_start = not part and vocabulary.trims
            parts.append(part)
            if token == vocabulary.end_of_line or token in vocabulary.end_ids:
                self.at_start = self.drops_space
        return b"".join(parts)
