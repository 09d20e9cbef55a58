"""Byte-level BPE in TensorFlow operations, for models that are served without this library.

`GraphEncoder` computes the same ids as `Encoder.encode`. TensorFlow's regular expressions do not support lookahead, and
they use an older Unicode version. Therefore text is split by character classes. A table of these classes is computed
with the encoder's pattern. All pieces are merged in parallel.

Shapes: C characters; N bytes or, later, symbols; M merges.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from gpt2.encoder import Encoder, byte_characters

OTHER, LETTER, NUMBER, SPACE = range(4)  # character classes
CLASS_PATTERNS = {LETTER: r"\p{L}+", NUMBER: r"\p{N}+", SPACE: r"\s+"}
CODE_POINTS = 0x110000
NO_MERGE = np.iinfo(np.int32).max


def character_classes() -> np.ndarray:
    """Return the class of each code point in the encoder's pattern [CODE_POINTS], uint8."""
    import regex

    table = np.zeros(CODE_POINTS, np.uint8)
    all_characters = "".join(map(chr, range(CODE_POINTS)))
    for character_class, pattern in CLASS_PATTERNS.items():
        for match in regex.finditer(pattern, all_characters):
            table[match.start() : match.end()] = character_class
    return table


class GraphEncoder:
    """A TensorFlow function that computes an encoder's `encode` in graphs."""

    def __init__(self, encoder: Encoder) -> None:
        """Build the lookup tables.

        Args:
            encoder: The encoder that provides merges and ids.
        """
        ids_of = encoder.ids_of
        n_vocab = encoder.n_vocab
        merges = [
            (ids_of[left] * n_vocab + ids_of[right], rank, ids_of[left + right])
            for (left, right), rank in encoder.ranks.items()
            if left in ids_of and right in ids_of
        ]
        rows = np.array(sorted(merges), np.int64).reshape(-1, 3)
        sentinel = [[n_vocab**2, NO_MERGE, 0]]  # ensures that each search has a matching row
        self.pairs, ranks, merged_ids = np.concatenate([rows, sentinel]).T.copy()  # [M] each; pairs ascend
        self.ranks = ranks.astype(np.int32)
        self.merged_ids = merged_ids.astype(np.int32)
        characters = byte_characters()
        self.byte_ids = np.array([ids_of[characters[byte]] for byte in range(256)], np.int32)
        self.n_vocab = n_vocab
        self.classes = character_classes()

    def __call__(self, text: tf.Tensor) -> tf.Tensor:
        """Encode a text.

        Args:
            text: The text [], a string; bytes that are not UTF-8 become U+FFFD.

        Returns:
            The ids [N], int32.
        """
        points = tf.strings.unicode_decode(text, "UTF-8", errors="replace")  # [C]
        text = tf.strings.unicode_encode(points, "UTF-8")
        sizes = 1 + sum(tf.cast(points >= first, tf.int32) for first in (0x80, 0x800, 0x10000))
        pieces = tf.repeat(tf.cumsum(tf.cast(self._piece_starts(points), tf.int32)), sizes)
        text_bytes = tf.cast(tf.io.decode_raw(text, tf.uint8), tf.int32)
        return self._merge(tf.gather(self.byte_ids, text_bytes), pieces)

    def _piece_starts(self, points: tf.Tensor) -> tf.Tensor:
        """Return for each of the code points [C] whether it starts a piece [C], bool."""
        kind = tf.cast(tf.gather(self.classes, points), tf.int32)
        before = _shift(kind, 1, -1)
        after = _shift(kind, -1, SPACE)
        after_blank = _shift(points, 1, -1) == ord(" ")
        space_starts = (before != SPACE) | (after != SPACE)  # the last of several spaces belongs to the next piece
        other_starts = ~after_blank & (kind != before)
        length = self._contraction_lengths(points, before, after_blank)
        in_contraction = (_shift(length, 1, 0) > 1) | (_shift(length, 2, 0) > 2)
        after_contraction = (_shift(length, 2, 0) == 2) | (_shift(length, 3, 0) == 3)
        return (tf.where(kind == SPACE, space_starts, other_starts) | after_contraction) & ~in_contraction

    def _contraction_lengths(self, points: tf.Tensor, before: tf.Tensor, after_blank: tf.Tensor) -> tf.Tensor:
        """Return the length of the contraction, such as 's or 're, that starts at each code point, or 0 [C]."""
        first = _shift(points, -1, 0)
        second = _shift(points, -2, 0)
        one_letter = tf.reduce_any([first == ord(letter) for letter in "stmd"], axis=0)
        two_letters = tf.reduce_any([(first == ord(a)) & (second == ord(b)) for a, b in ("re", "ve", "ll")], axis=0)
        starts = (points == ord("'")) & (before != OTHER) & ~after_blank
        return tf.where(starts & one_letter, 2, tf.where(starts & two_letters, 3, 0))

    def _merge(self, symbols: tf.Tensor, pieces: tf.Tensor) -> tf.Tensor:
        """Merge all pieces.

        Args:
            symbols: Ids of the bytes [N].
            pieces: The number of each byte's piece [N], in ascending order.

        Returns:
            The ids after all merges.
        """

        def step(symbols: tf.Tensor, pieces: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, ...]:
            """Merge the pairs with the lowest rank in each piece, from left to right."""
            ranks, merged_ids = self._find_merges(symbols, pieces)
            lowest = tf.math.unsorted_segment_min(ranks, pieces[:-1], pieces[-1] + 1)
            candidates = (ranks < NO_MERGE) & (ranks == tf.gather(lowest, pieces[:-1]))
            merged = candidates & (_index_in_run(candidates) % 2 == 0)  # three equal symbols: merge the first two
            symbols = tf.concat([tf.where(merged, merged_ids, symbols[:-1]), symbols[-1:]], 0)
            remains = tf.concat([[True], ~merged], 0)
            return tf.boolean_mask(symbols, remains), tf.boolean_mask(pieces, remains), tf.reduce_any(merged)

        any_length = (tf.TensorShape([None]), tf.TensorShape([None]), tf.TensorShape([]))
        state = (symbols, pieces, tf.size(symbols) > 1)
        return tf.while_loop(lambda *state: state[2], step, state, shape_invariants=any_length)[0]

    def _find_merges(self, symbols: tf.Tensor, pieces: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return ranks (NO_MERGE if there is no merge) and ids of the merges of neighboring symbols, [N - 1] each."""
        wide = tf.cast(symbols, tf.int64)
        pairs = wide[:-1] * self.n_vocab + wide[1:]
        rows = tf.searchsorted(self.pairs, pairs)
        exists = (tf.gather(self.pairs, rows) == pairs) & (pieces[:-1] == pieces[1:])
        return tf.where(exists, tf.gather(self.ranks, rows), NO_MERGE), tf.gather(self.merged_ids, rows)


def _shift(values: tf.Tensor, by: int, fill: int) -> tf.Tensor:
    """Shift values [C] to the right, or to the left if `by` is negative, and fill the gap with `fill`."""
    n = tf.minimum(abs(by), tf.size(values))
    gap = tf.fill([n], tf.cast(fill, values.dtype))
    return tf.concat([gap, values[: tf.size(values) - n]] if by > 0 else [values[n:], gap], 0)


def _index_in_run(mask: tf.Tensor) -> tf.Tensor:
    """Return for each true value of a mask [N] its index in its run of true values, from 0."""
    runs = tf.cumsum(tf.cast(~mask, tf.int32))
    indices = tf.range(tf.size(mask))
    first = tf.math.unsorted_segment_min(indices, runs, tf.size(mask) + 1)
    return indices - tf.gather(first, runs) - tf.cast(runs > 0, tf.int32)
