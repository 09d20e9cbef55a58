"""Byte-level BPE: text <-> ids, identical to OpenAI's encoder for any text.

Radford et al. 2019, section 2.2. Text is cut into pieces by a regular expression, a piece's UTF-8 bytes are written as
printable characters, and neighbours are merged in the order of `vocab.bpe` until no merge applies.

>>> encoder = load_encoder(Path("models/124M"))
>>> encoder.encode("Hello, my name is")
[15496, 11, 616, 1438, 318]
>>> encoder.decode([15496, 11, 616, 1438, 318])
'Hello, my name is'
"""

from __future__ import annotations

import codecs
import contextlib
import functools
import gc
import hashlib
import heapq
import json
import re
import sys
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from itertools import chain
from pathlib import Path
from typing import Any

from gpt2 import files
from gpt2.errors import DamagedFileError, GPT2Error
from gpt2.text.byte_level import TokenBytes, byte_characters
from gpt2.text.undecodable import without_surrogates
from gpt2.text.vocabulary import type_code

ENCODER_FILE, MERGES_FILE = "encoder.json", "vocab.bpe"
PAIR_PIECES_FILE, PAIR_MERGES_FILE = "vocab.json", "merges.txt"  # the same two as transformers names them
SPECIAL_FILE = "special_tokens_map.json"  # which says beside them what ends a text
END_OF_TEXT = "<|endoftext|>"

# Upper-case contractions ('S) are not split: OpenAI's comment says that IGNORECASE was forgotten, and so it must stay.
PIECE = r"'(?:[stmd]|re|ve|ll)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# The same for ASCII text, where the standard library is twice as fast; its \s would add U+001C to U+001F.
ASCII_PIECE = re.compile(
    r"'(?:[stmd]|re|ve|ll)| ?[A-Za-z]+| ?[0-9]+| ?[^\t-\r A-Za-z0-9]+|[\t-\r ]+(?![^\t-\r ])|[\t-\r ]+"
)
# Where the pattern ends a piece whatever follows, so that the parts have the ids of the whole. No piece goes on from
# other characters to white space, from a letter to what is none, nor from a digit to what is none; a piece that begins
# there looks at nothing before it, and the look-ahead of `\s+(?!\S)` never reaches over such a place.
BOUNDARY = r"(?<=\S)\s|(?<=\p{L})\P{L}|(?<=\p{N})\P{N}"
# Text of any size in bounded memory: a full cache starts anew, and what is longer than any word is not kept.
CACHED_PIECES, CACHED_LENGTH = 1 << 18, 64
LONG_PIECE = 128  # symbols, from which on the quadratic merge is the slower one
NO_MERGE = sys.maxsize
AGAIN = "fetch both vocabulary files again"


@functools.cache
def piece_pattern() -> Any:
    import regex  # only here, so that a command's mistakes are answered where nothing is installed yet

    return regex.compile(PIECE)


def pieces_from_merges(merges: Iterable[tuple[str, str]]) -> set[str]:
    """The pieces that text is cut into: the bytes, and what merges make. All others of a vocabulary are special."""
    return {left + right for left, right in merges}.union(byte_characters().values())


@functools.cache
def boundary_pattern() -> Any:
    import regex  # it can search from the end

    return regex.compile(BOUNDARY, regex.REVERSE)


def merge(symbols: Sequence[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Merges the neighbours of lowest rank, all their occurrences from left to right, until no merge applies.

    For words: quadratic in the number of symbols, but each scan of a short list runs in C.
    """
    parts, rank_of = list(symbols), ranks.get
    found = [rank_of(pair, NO_MERGE) for pair in zip(parts, parts[1:])]
    while found and (lowest := min(found)) != NO_MERGE:
        while lowest in found:
            at = found.index(lowest)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
            del found[at]
            if at:
                found[at - 1] = rank_of((parts[at - 1], parts[at]), NO_MERGE)
            if at < len(found):
                found[at] = rank_of((parts[at], parts[at + 1]), NO_MERGE)
    return parts


def merge_long(symbols: Sequence[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """What `merge` gives, in n log n steps: a heap of candidate pairs over a linked list."""
    parts = list(symbols)  # one that was merged away is left empty
    after = [*range(1, len(parts)), -1]
    before = list(range(-1, len(parts) - 1))
    heap = [(ranks[pair], at) for at, pair in enumerate(zip(symbols, symbols[1:])) if pair in ranks]
    heapq.heapify(heap)
    while heap:
        rank, found = heap[0][0], []
        # The whole round is taken off before any new pair is added: a merge may create a pair of lower rank.
        while heap and heap[0][0] == rank:
            left = heapq.heappop(heap)[1]
            right = after[left]
            if right < 0 or ranks.get((parts[left], parts[right])) != rank:
                continue  # one of the two was merged with another neighbour since
            parts[left], parts[right] = parts[left] + parts[right], ""
            after[left] = after[right]
            if after[left] >= 0:
                before[after[left]] = left
            found.append(left)
        for at in {neighbour for left in found for neighbour in (before[left], left)}:
            if at >= 0 and parts[at] and after[at] >= 0:
                pair = (parts[at], parts[after[at]])
                if pair in ranks:
                    heapq.heappush(heap, (ranks[pair], at))
    return [part for part in parts if part]


class PieceCache(dict[str, Any]):
    """piece -> ids, filled on demand; a dictionary, so that the inner loop of `encode` runs in C."""

    def __init__(self, encode_piece: Callable[[str], Any]) -> None:
        self.encode_piece = encode_piece

    def __missing__(self, piece: str) -> Any:
        ids = self.encode_piece(piece)
        if len(self) >= CACHED_PIECES:
            self.clear()
        if len(piece) <= CACHED_LENGTH:
            self[piece] = ids
        return ids


def split(text: str) -> list[str]:
    """The pieces that are merged each for itself; unpaired surrogates become U+FFFD."""
    if text.isascii():
        return ASCII_PIECE.findall(text)
    return piece_pattern().findall(without_surrogates(text))


def last_safe_cut(text: str) -> int:
    """The last place at which a text may be cut so that its parts have the ids of the whole; 0 for none."""
    found = boundary_pattern().search(text)
    return found.start() if found else 0


class Encoder:
    """A byte-level BPE vocabulary: `ids_of` maps pieces to ids, `merges` are in order of rank.

    end_token: the piece that parts documents. special: the pieces that merges do not make; found out if None.
    """

    def __init__(
        self,
        ids_of: dict[str, int],
        merges: Sequence[tuple[str, str]],
        end_token: str = END_OF_TEXT,
        special: Set[str] | None = None,
    ) -> None:
        self.ids_of, self.end_token = ids_of, end_token
        self.ranks = dict(zip(merges, range(len(merges))))
        self.characters = byte_characters()
        self.special = ids_of.keys() - pieces_from_merges(merges) if special is None else special
        self.bytes_of = TokenBytes(ids_of, self.special)
        self.cache = PieceCache(self.encode_piece)
        self.packed_cache = PieceCache(self.pack_piece)

    @functools.cached_property
    def n_vocab(self) -> int:
        """One more than the largest id."""
        return max(self.ids_of.values()) + 1

    @property
    def end_of_text(self) -> int:
        """The id of the token that parts documents; raises GPT2Error if the vocabulary has none."""
        if self.end_token not in self.ids_of:
            raise GPT2Error(f"this vocabulary has no {self.end_token} token; start from a prompt instead")
        return self.ids_of[self.end_token]

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits by which files of ids name their vocabulary: a hash of pieces, ids and merges."""
        pieces = sorted(self.ids_of, key=self.ids_of.__getitem__)
        content = [pieces, [self.ids_of[piece] for piece in pieces], self.merges()]
        content += [self.end_token] if self.end_token != END_OF_TEXT else []
        return hashlib.sha256(json.dumps(content).encode("ascii")).hexdigest()[:16]

    ends_lines = False
    last_safe_cut = staticmethod(last_safe_cut)

    def merges(self) -> list[tuple[str, str]]:
        return sorted(self.ranks, key=self.ranks.__getitem__)

    def __reduce__(self) -> tuple[Any, ...]:
        """What another process needs, which has caches of its own."""
        return Encoder, (self.ids_of, self.merges(), self.end_token, self.special)

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Text of any length -> ids.

        Unpaired surrogates become U+FFFD. The end-of-text token is ordinary text (`<|endoftext|>` seven tokens of it)
        unless `special`.
        """
        if special and self.end_token in text:
            documents = [self.encode(part) for part in text.split(self.end_token)]
            return list(chain(documents[0], *([self.end_of_text, *ids] for ids in documents[1:])))
        return list(chain.from_iterable(map(self.cache.__getitem__, split(text))))

    def pack(self, text: str) -> bytes:
        """What `encode` gives, as the bytes of an array of type_code(n_vocab); faster, and of little memory."""
        return b"".join(map(self.packed_cache.__getitem__, split(text)))

    def pack_piece(self, piece: str) -> bytes:
        return array(type_code(self.n_vocab), self.encode_piece(piece)).tobytes()

    def encode_piece(self, piece: str) -> tuple[int, ...]:
        symbols = [self.characters[byte] for byte in piece.encode("utf-8")]
        try:
            merged = (merge if len(symbols) <= LONG_PIECE else merge_long)(symbols, self.ranks)
            return tuple([self.ids_of[part] for part in merged])
        except KeyError as error:
            raise GPT2Error(f"this vocabulary cannot write {piece[:40]!r}: it lacks the piece {error}") from error

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Ids -> bytes; raises GPT2Error for an id that the vocabulary does not have."""
        try:
            return b"".join([self.bytes_of[int(i)] for i in ids])
        except KeyError as error:
            raise GPT2Error(f"this vocabulary has no id {error}; its ids are below {self.n_vocab}") from error

    def decode(self, ids: Iterable[int]) -> str:
        """Ids -> text; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def token_text(self, token: int) -> str:
        """An id's text; bytes that are not UTF-8 are shown as `\\xe4`."""
        return self.decode_bytes([token]).decode("utf-8", errors="backslashreplace")

    def stream(self, prompt: str | None = None) -> BPEStream:
        """For ids that come one by one; what they stand for does not depend on what is before them."""
        return BPEStream(self)

    def files(self) -> dict[str, bytes]:
        """`encoder.json` and `vocab.bpe`, as OpenAI's are; if those cannot say it, the same two as transformers has
        them, with a third of the special tokens."""
        lines = ["#version: 0.2", *(f"{left} {right}" for left, right in self.merges()), ""]
        merges, pieces = "\n".join(lines).encode("utf-8"), json.dumps(self.ids_of).encode("ascii")
        if self.is_as_openai():
            return {ENCODER_FILE: pieces, MERGES_FILE: merges}
        special: dict[str, Any] = {"eos_token": self.end_token} if self.end_token in self.ids_of else {}
        special["additional_special_tokens"] = sorted(self.special - {self.end_token})
        return {PAIR_MERGES_FILE: merges, SPECIAL_FILE: json.dumps(special).encode("ascii"), PAIR_PIECES_FILE: pieces}

    def is_as_openai(self) -> bool:
        """Whether OpenAI's two files can say it: all bytes are there, and what is special looks so."""
        return (
            self.end_token == END_OF_TEXT
            and self.ids_of.keys() >= set(self.characters.values())
            and len(self.ids_of) == self.n_vocab
            and all(map(_is_special, self.special))
        )


class BPEStream:
    """Ids in, text out, holding an incomplete character back; all its text together is what `decode` gives."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, ids: Iterable[int]) -> str:
        """The text that is complete with these ids."""
        return self.utf8.decode(self.encoder.decode_bytes(ids))

    def finish(self) -> str:
        """What is left at the end: U+FFFD for a character that was never completed."""
        return self.utf8.decode(b"", final=True)


def read_merges(path: Path, ids_of: dict[str, int]) -> list[tuple[str, str]]:
    """The pairs of `vocab.bpe`, below its version line, made of the strings that are in memory as pieces already."""
    lines = files.read_text(path).split("\n")
    has_version = lines[0].startswith("#version")
    pairs = list(map(str.split, lines[has_version:]))
    if not set(map(len, pairs)) <= {0, 2}:
        wrong = next(at for at, pair in enumerate(pairs) if len(pair) not in (0, 2)) + has_version
        raise DamagedFileError(path, f"line {wrong + 1} should be two pieces, not {lines[wrong][:40]!r}", AGAIN)
    same = dict(zip(ids_of, ids_of)).get
    return [(same(left, left), same(right, right)) for left, right in filter(None, pairs)]


@contextlib.contextmanager
def _nothing_collected() -> Iterator[None]:
    """Python looks for garbage whenever so many objects are new: in a vocabulary in vain, for a tenth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_nothing_collected()
def load_encoder(directory: Path) -> Encoder:
    """The vocabulary of a model directory.

    Raises GPT2Error, naming the file, if one cannot be read or is damaged, a cut-off list of merges included.
    """
    path = directory / ENCODER_FILE
    ids_of = files.read_json(path)
    check_pieces(ids_of, path)
    _check_all_are_there(ids_of, path)
    path = directory / MERGES_FILE
    merges = read_merges(path, ids_of)
    return Encoder(ids_of, merges, special=check_merges(merges, ids_of, path))


def check_pieces(ids_of: Any, path: Path) -> None:
    """Raises Damaged for what does not map pieces to ids, each to one of its own."""
    if not isinstance(ids_of, dict) or not ids_of or set(map(type, ids_of.values())) != {int}:
        raise DamagedFileError(path, "it should map pieces of text to ids", AGAIN)
    if len(set(ids_of.values())) < len(ids_of):
        raise DamagedFileError(path, "it gives one id to several pieces", AGAIN)
    try:
        "".join(ids_of).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DamagedFileError(path, "a piece holds an unpaired surrogate, which no text does", AGAIN) from error


def _check_all_are_there(ids_of: dict[str, int], path: Path) -> None:
    """Raises Damaged if a byte or an id is missing, as none is in OpenAI's vocabulary and in those made here."""
    if missing := set(byte_characters().values()) - ids_of.keys():
        raise DamagedFileError(path, f"it lacks {len(missing)} of the 256 bytes", AGAIN)
    if (min(ids_of.values()), max(ids_of.values())) != (0, len(ids_of) - 1):
        raise DamagedFileError(path, f"the ids of its {len(ids_of)} pieces should be 0 to {len(ids_of) - 1}", AGAIN)


def check_merges(
    merges: list[tuple[str, str]],
    ids_of: dict[str, int],
    path: Path,
    named: str = ENCODER_FILE,
    special: Collection[str] = (),
) -> set[str]:
    """The pieces that merges do not make, and need not. Raises GPT2Error, naming the file of merges, for others.

    named: the file of the pieces. special: which of them are so, beside those that look so.
    """
    made = pieces_from_merges(merges)
    found = {piece for piece in ids_of if piece not in made}
    if unmade := sorted(piece for piece in found.difference(special) if not _is_special(piece)):
        raise GPT2Error(
            f"{path} is cut off: it has {len(merges)} merges, and none of them makes"
            f" {unmade[0]!r} and {len(unmade) - 1} other pieces of {named}; {AGAIN}"
        )
    if unknown := made - ids_of.keys() - set(byte_characters().values()):
        raise GPT2Error(f"{path} is of another vocabulary: {named} lacks its piece {min(unknown)!r}; {AGAIN}")
    return found


def _is_special(piece: str) -> bool:
    return piece.startswith("<") and piece.endswith(">")
