"""Byte-level BPE between text and ids, identical to OpenAI's encoder for any text.

The method is from Radford et al. 2019, section 2.2. A regular expression splits text into pieces, and the UTF-8 bytes
of a piece are written as printable characters. Neighbors are then merged in the order of `vocab.bpe` until no merge
applies.

>>> from gpt2.formats.openai.vocabulary import load_encoder
>>> encoder = load_encoder(Path("models/124M"))
>>> encoder.encode("Hello, my name is")
[15496, 11, 616, 1438, 318]
>>> encoder.decode([15496, 11, 616, 1438, 318])
'Hello, my name is'
"""

from __future__ import annotations

import functools
import hashlib
import heapq
import json
import re
import sys
from array import array
from collections.abc import Callable, Collection, Iterable, Sequence, Set
from itertools import chain
from typing import Any

from gpt2.errors import GPT2Error
from gpt2.text import bpe_files
from gpt2.text.added_tokens import AddedToken, AddedTokens
from gpt2.text.byte_level import BPEStream, TokenBytes, byte_characters, looks_special, pieces_from_merges
from gpt2.text.undecodable import without_surrogates
from gpt2.text.vocabulary import type_code

END_OF_TEXT = "<|endoftext|>"

# Upper-case contractions ('S) are not split, because OpenAI forgot IGNORECASE. Adding it would change ids.
PIECE_PATTERN = r"'(?:[stmd]|re|ve|ll)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# The same for ASCII text, for which the standard library is twice as fast. Its \s would include U+001C to U+001F.
ASCII_PIECE_PATTERN = re.compile(
    r"'(?:[stmd]|re|ve|ll)| ?[A-Za-z]+| ?[0-9]+| ?[^\t-\r A-Za-z0-9]+|[\t-\r ]+(?![^\t-\r ])|[\t-\r ]+"
)
# Positions where a piece always ends, so that the parts of a text cut there have the ids of the whole. No piece
# continues from a non-space to white space, from a letter to a non-letter or from a digit to a non-digit. A piece that
# starts there does not depend on the characters before it, and the look-ahead of `\s+(?!\S)` never crosses it.
SAFE_CUT_PATTERN = r"(?<=\S)\s|(?<=\p{L})\P{L}|(?<=\p{N})\P{N}"
# The cache is cleared when it is full and skips pieces longer than any word, so that its memory is bounded.
MAX_CACHED_PIECES = 1 << 18
MAX_CACHED_PIECE_LENGTH = 64  # characters
LONG_PIECE_SYMBOLS = 128  # above this, merge_symbols is slower than merge_many_symbols
NO_MERGE = sys.maxsize


@functools.cache
def compiled_piece_pattern() -> Any:
    """Return PIECE_PATTERN, compiled on first use."""
    import regex  # imported late, so that commands report mistakes even where it is not installed

    return regex.compile(PIECE_PATTERN)


@functools.cache
def compiled_safe_cut_pattern() -> Any:
    """Return SAFE_CUT_PATTERN, compiled on first use to search from the end."""
    import regex

    return regex.compile(SAFE_CUT_PATTERN, regex.REVERSE)


def split_pieces(text: str) -> list[str]:
    """Split text into the pieces that are merged independently; unpaired surrogates become U+FFFD."""
    return split_valid_pieces(text if text.isascii() else without_surrogates(text))


def split_valid_pieces(text: str) -> list[str]:
    """Split text without unpaired surrogates like `split_pieces`."""
    return (ASCII_PIECE_PATTERN if text.isascii() else compiled_piece_pattern()).findall(text)


def last_safe_cut(text: str, limit: int = sys.maxsize) -> int:
    """Return the last index below `limit` at which a text can be cut without changing its ids, or 0 if there is none.

    The character before the index is not white space.
    """
    match = compiled_safe_cut_pattern().search(text, 0, max(0, limit))
    return match.start() if match else 0


def merge_symbols(symbols: Sequence[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Merge the neighbors of lowest rank, from left to right, until no merge applies.

    The time is quadratic in the number of symbols. It is short for words, because each scan of a short list runs in C.

    Args:
        symbols: The characters of a piece.
        ranks: The rank of each pair; pairs of lower rank are merged first.

    Returns:
        The merged symbols.
    """
    parts = list(symbols)
    rank_of = ranks.get
    pair_ranks = [rank_of(pair, NO_MERGE) for pair in zip(parts, parts[1:])]
    while pair_ranks and (lowest := min(pair_ranks)) != NO_MERGE:
        while lowest in pair_ranks:
            i = pair_ranks.index(lowest)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
            del pair_ranks[i]
            if i:
                pair_ranks[i - 1] = rank_of((parts[i - 1], parts[i]), NO_MERGE)
            if i < len(pair_ranks):
                pair_ranks[i] = rank_of((parts[i], parts[i + 1]), NO_MERGE)
    return parts


def merge_many_symbols(symbols: Sequence[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Merge symbols like `merge_symbols`, but in almost linear time, over a linked list.

    The pairs that may be merged wait in a list for each rank, so that only the ranks need a heap.
    """
    parts = list(symbols)  # a symbol that was merged into its left neighbor becomes empty
    after = [*range(1, len(parts)), -1]
    before = list(range(-1, len(parts) - 1))
    waiting: dict[int, list[int]] = {}  # for each rank, the index of the left symbol of each pair
    for i, pair in enumerate(zip(symbols, symbols[1:])):
        if pair in ranks:
            waiting.setdefault(ranks[pair], []).append(i)
    heap = list(waiting)
    heapq.heapify(heap)
    while heap:
        rank = heapq.heappop(heap)
        merged = []
        # All pairs of this rank are merged before new pairs are added, because a new pair may have a lower rank.
        for left in sorted(waiting.pop(rank)):
            right = after[left]
            if right < 0 or ranks.get((parts[left], parts[right])) != rank:
                continue  # one of the two has been merged with another neighbor
            parts[left] += parts[right]
            parts[right] = ""
            after[left] = after[right]
            if after[left] >= 0:
                before[after[left]] = left
            merged.append(left)
        for i in chain.from_iterable((before[left], left) for left in merged):
            new_rank = ranks.get((parts[i], parts[after[i]])) if i >= 0 and parts[i] and after[i] >= 0 else None
            if new_rank is None:
                continue
            if new_rank not in waiting:
                waiting[new_rank] = []
                heapq.heappush(heap, new_rank)
            waiting[new_rank].append(i)
    return [part for part in parts if part]


class PieceCache(dict[str, Any]):
    """A cache of encoded pieces, which is a dictionary because the inner loop of `encode` then runs in C."""

    def __init__(self, encode_piece: Callable[[str], Any]) -> None:
        """Cache the results of `encode_piece`."""
        self.encode_piece = encode_piece

    def __missing__(self, piece: str) -> Any:
        """Encode a piece and store the result."""
        ids = self.encode_piece(piece)
        if len(self) >= MAX_CACHED_PIECES:
            self.clear()
        if len(piece) <= MAX_CACHED_PIECE_LENGTH:
            self[piece] = ids
        return ids


class Encoder:
    """A byte-level BPE vocabulary; implements `gpt2.text.vocabulary.Vocabulary`.

    Args:
        ids_of: The id of each piece.
        merges: Pairs of pieces in the order of their ranks.
        end_token: The piece that separates documents.
        special: The pieces that no merge produces; None to compute them.
        added: The tokens that are matched in text before BPE.
        ending_ids: The ids that end a text, in addition to the id of `end_token`.
    """

    ends_lines = False

    def __init__(
        self,
        ids_of: dict[str, int],
        merges: Sequence[tuple[str, str]],
        end_token: str = END_OF_TEXT,
        special: Set[str] | None = None,
        added: Iterable[AddedToken] = (),
        ending_ids: Collection[int] = (),
    ) -> None:
        """Prepare the lookups; the caches start empty."""
        self.ids_of = ids_of
        self.end_token = end_token
        self.added = AddedTokens(added)
        self.ending_ids = frozenset(ending_ids) | {ids_of[token] for token in (end_token,) if token in ids_of}
        self.ranks = dict(zip(merges, range(len(merges))))
        self.characters = byte_characters()
        self.special = ids_of.keys() - pieces_from_merges(merges) if special is None else special
        self.bytes_of = TokenBytes(ids_of, self.special)
        self.cache = PieceCache(self.encode_piece)
        self.packed_cache = PieceCache(self.pack_piece)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the caches."""
        arguments = (self.ids_of, self.merges(), self.end_token, self.special, self.added.tokens, self.ending_ids)
        return Encoder, arguments

    def with_added_tokens(self, added: Iterable[AddedToken], ending_ids: Collection[int]) -> Encoder:
        """Return the vocabulary with other added tokens and ending ids."""
        return Encoder(self.ids_of, self.merges(), self.end_token, self.special, added, ending_ids)

    @functools.cached_property
    def n_vocab(self) -> int:
        """The size of the vocabulary: one more than the largest id."""
        return max(self.ids_of.values()) + 1

    @property
    def end_of_text(self) -> int:
        """The id of the token that separates documents.

        Raises:
            GPT2Error: The vocabulary has no such token.
        """
        if self.end_token not in self.ids_of:
            raise GPT2Error(f"this vocabulary has no {self.end_token} token; start from a prompt instead")
        return self.ids_of[self.end_token]

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of pieces, ids and merges in 16 hexadecimal digits, which names the vocabulary in token files."""
        pieces = sorted(self.ids_of, key=self.ids_of.__getitem__)
        content = [pieces, [self.ids_of[piece] for piece in pieces], self.merges()]
        content += [self.end_token] if self.end_token != END_OF_TEXT else []
        return hashlib.sha256(json.dumps(content).encode("ascii")).hexdigest()[:16]

    def merges(self) -> list[tuple[str, str]]:
        """Return the merges in the order of their ranks."""
        return sorted(self.ranks, key=self.ranks.__getitem__)

    def last_safe_cut(self, text: str) -> int:
        """Return the last index at which a text can be cut without changing its ids, or 0 if there is none."""
        return self.added.last_safe_cut(text, last_safe_cut) if self.added else last_safe_cut(text)

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Return the ids of a text of any length; unpaired surrogates become U+FFFD.

        Args:
            text: The text to encode.
            special: Whether the end-of-text token in the text becomes its id, even if it is not an added token.
                Otherwise it is ordinary text: `<|endoftext|>` becomes seven tokens.
        """
        if special and self.end_token in text and self.end_token not in self.added:
            documents = [self.encode(part) for part in text.split(self.end_token)]
            return list(chain(documents[0], *([self.end_of_text, *ids] for ids in documents[1:])))
        ids_of_piece = self.cache.__getitem__
        if not self.added:
            return list(chain.from_iterable(map(ids_of_piece, split_pieces(text))))
        parts = self._split_added(text)
        groups = ([(part,)] if isinstance(part, int) else map(ids_of_piece, split_valid_pieces(part)) for part in parts)
        return list(chain.from_iterable(chain.from_iterable(groups)))

    def _split_added(self, text: str) -> list[str | int]:
        """Split a text into ordinary texts without unpaired surrogates, and the ids of added tokens."""
        return self.added.split(text if text.isascii() else without_surrogates(text))

    def pack(self, text: str) -> bytes:
        """Return the ids of `encode` as the bytes of an array of type_code(n_vocab), faster and with less memory."""
        packed = self.packed_cache.__getitem__
        if not self.added:
            return b"".join(map(packed, split_pieces(text)))
        code = type_code(self.n_vocab)
        parts = (
            array(code, [part]).tobytes() if isinstance(part, int) else b"".join(map(packed, split_valid_pieces(part)))
            for part in self._split_added(text)
        )
        return b"".join(parts)

    def pack_piece(self, piece: str) -> bytes:
        """Return the ids of one piece as the bytes of an array of type_code(n_vocab)."""
        return array(type_code(self.n_vocab), self.encode_piece(piece)).tobytes()

    def encode_piece(self, piece: str) -> tuple[int, ...]:
        """Return the ids of one piece.

        Raises:
            GPT2Error: The vocabulary lacks a byte or a merged part of the piece.
        """
        symbols = [self.characters[byte] for byte in piece.encode("utf-8")]
        merge = merge_symbols if len(symbols) <= LONG_PIECE_SYMBOLS else merge_many_symbols
        try:
            return tuple([self.ids_of[part] for part in merge(symbols, self.ranks)])
        except KeyError as error:
            raise GPT2Error(f"this vocabulary cannot encode {piece[:40]!r}: it lacks the piece {error}") from error

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of ids.

        Raises:
            GPT2Error: The vocabulary does not have one of the ids.
        """
        try:
            return b"".join([self.bytes_of[int(i)] for i in ids])
        except KeyError as error:
            raise GPT2Error(f"this vocabulary has no id {error}; its ids are below {self.n_vocab}") from error

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def token_text(self, token: int) -> str:
        r"""Return the text of one id; bytes that are not UTF-8 are shown as `\xe4`."""
        return self.decode_bytes([token]).decode("utf-8", errors="backslashreplace")

    def stream(self, prompt: str | None = None) -> BPEStream:
        """Return a decoder for ids that arrive one by one; the prompt does not affect their text and is ignored."""
        return BPEStream(self.decode_bytes)

    def files(self) -> dict[str, bytes]:
        """Return the name and content of each of the vocabulary's files.

        They are OpenAI's `encoder.json` and `vocab.bpe`. If these two cannot represent the vocabulary, they are
        transformers' two files and its file of special tokens. Another file holds what neither of them can.
        """
        added = bpe_files.added_tokens_file(self.added.tokens, self.ending_ids)
        if not self.fits_openai_files():
            return added | bpe_files.hugging_face_files(self.ids_of, self.merges(), self.special, self.end_token)
        has_more = self.added or self.ending_ids - {self.ids_of.get(self.end_token)}
        return bpe_files.openai_files(self.ids_of, self.merges()) | (added if has_more else {})

    def fits_openai_files(self) -> bool:
        """Return whether OpenAI's two files can represent the vocabulary, and whether the old tools can decode its ids.

        It must have all bytes and all ids, and its special tokens must have the usual form or be added tokens of
        characters that stand for bytes.
        """
        characters = set(self.characters.values())
        unusual = (piece for piece in self.special if not looks_special(piece))
        return (
            self.end_token == END_OF_TEXT
            and self.ids_of.keys() >= characters
            and len(self.ids_of) == self.n_vocab
            and all(piece in self.added and characters.issuperset(piece) for piece in unusual)
        )
