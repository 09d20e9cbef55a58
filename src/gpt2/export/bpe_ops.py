"""Byte-level BPE in TensorFlow's own ops, for models that are served without this library: what `encoder.py` computes.

TensorFlow's regular expressions have no lookahead and an older Unicode, so that pieces are cut by the classes of
characters, from a table that the library's own pattern made. All pieces are merged side by side.

Shapes: C characters, N bytes and then symbols, M merges.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from gpt2.encoder import Encoder, byte_characters

LETTER, NUMBER, SPACE = 1, 2, 3  # and 0 for what is none of them
PATTERNS = {LETTER: r"\p{L}+", NUMBER: r"\p{N}+", SPACE: r"\s+"}
CODE_POINTS = 0x110000
NO_MERGE = np.iinfo(np.int32).max


def classes() -> np.ndarray:
    """The class of each code point, uint8, as the encoder's pattern has them."""
    import regex

    table = np.zeros(CODE_POINTS, np.uint8)
    everything = "".join(map(chr, range(CODE_POINTS)))
    for number, pattern in PATTERNS.items():
        for found in regex.finditer(pattern, everything):
            table[found.start() : found.end()] = number
    return table


class GraphEncoder:
    """What `encode` of an encoder gives, as a function of a graph."""

    def __init__(self, encoder: Encoder) -> None:
        ids_of, n_vocab = encoder.ids_of, encoder.n_vocab
        merges = [
            (ids_of[left] * n_vocab + ids_of[right], rank, ids_of[left + right])
            for (left, right), rank in encoder.ranks.items()
            if left in ids_of and right in ids_of
        ]
        rows = np.array(sorted(merges), np.int64).reshape(-1, 3)
        none = [[n_vocab**2, NO_MERGE, 0]]  # so that there is one
        self.pairs, ranks, made = np.concatenate([rows, none]).T.copy()  # [M] each; pairs rise
        self.ranks, self.made = ranks.astype(np.int32), made.astype(np.int32)
        characters = byte_characters()
        self.bytes = np.array([ids_of[characters[byte]] for byte in range(256)], np.int32)
        self.n_vocab, self.classes = n_vocab, classes()

    def __call__(self, text: tf.Tensor) -> tf.Tensor:
        """text [] string -> ids [N] int32; bytes that are not UTF-8 become U+FFFD."""
        points = tf.strings.unicode_decode(text, "UTF-8", errors="replace")  # [C]
        text = tf.strings.unicode_encode(points, "UTF-8")
        sizes = 1 + sum(tf.cast(points >= first, tf.int32) for first in (0x80, 0x800, 0x10000))
        pieces = tf.repeat(tf.cumsum(tf.cast(self._begins(points), tf.int32)), sizes)
        return self._merged(tf.gather(self.bytes, tf.cast(tf.io.decode_raw(text, tf.uint8), tf.int32)), pieces)

    def _begins(self, points: tf.Tensor) -> tf.Tensor:
        """points [C] -> whether each begins a piece [C] bool."""
        kind = tf.cast(tf.gather(self.classes, points), tf.int32)
        before, after = _moved(kind, 1, -1), _moved(kind, -1, SPACE)
        blank = _moved(points, 1, -1) == ord(" ")
        is_space = kind == SPACE
        of_spaces = (before != SPACE) | (after != SPACE)  # the last one of many goes with what follows
        of_others = ~blank & (kind != before)
        length = self._contraction(points, before, blank)
        inside = (_moved(length, 1, 0) > 1) | (_moved(length, 2, 0) > 2)
        follows = (_moved(length, 2, 0) == 2) | (_moved(length, 3, 0) == 3)
        return (tf.where(is_space, of_spaces, of_others) | follows) & ~inside

    def _contraction(self, points: tf.Tensor, before: tf.Tensor, blank: tf.Tensor) -> tf.Tensor:
        """How many characters of 's, 't, 'm, 'd, 're, 've, 'll begin here, 0 where none does [C]."""
        one, other = _moved(points, -1, 0), _moved(points, -2, 0)
        short = tf.reduce_any([one == ord(letter) for letter in "stmd"], axis=0)
        long = tf.reduce_any([(one == ord(a)) & (other == ord(b)) for a, b in ("re", "ve", "ll")], axis=0)
        here = (points == ord("'")) & (before != 0) & ~blank
        return tf.where(here & short, 2, tf.where(here & long, 3, 0))

    def _merged(self, symbols: tf.Tensor, pieces: tf.Tensor) -> tf.Tensor:
        """Ids of bytes [N] and the number of each one's piece, which rises -> ids of what merging makes of them."""

        def step(symbols: tf.Tensor, pieces: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, ...]:
            """In each piece the pairs of lowest rank, all of them from left to right."""
            ranks, made = self._pairs(symbols, pieces)
            lowest = tf.math.unsorted_segment_min(ranks, pieces[:-1], pieces[-1] + 1)
            found = (ranks < NO_MERGE) & (ranks == tf.gather(lowest, pieces[:-1]))
            taken = found & (_place_in_run(found) % 2 == 0)  # of three alike, the first two
            symbols = tf.concat([tf.where(taken, made, symbols[:-1]), symbols[-1:]], 0)
            kept = tf.concat([[True], ~taken], 0)
            return tf.boolean_mask(symbols, kept), tf.boolean_mask(pieces, kept), tf.reduce_any(taken)

        open_shapes = (tf.TensorShape([None]), tf.TensorShape([None]), tf.TensorShape([]))
        state = (symbols, pieces, tf.size(symbols) > 1)
        return tf.while_loop(lambda *state: state[2], step, state, shape_invariants=open_shapes)[0]

    def _pairs(self, symbols: tf.Tensor, pieces: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """For each two neighbours [N - 1] the rank of their merge, NO_MERGE if there is none, and what it makes."""
        wide = tf.cast(symbols, tf.int64)
        pairs = wide[:-1] * self.n_vocab + wide[1:]
        places = tf.searchsorted(self.pairs, pairs)
        there = (tf.gather(self.pairs, places) == pairs) & (pieces[:-1] == pieces[1:])
        return tf.where(there, tf.gather(self.ranks, places), NO_MERGE), tf.gather(self.made, places)


def _moved(values: tf.Tensor, by: int, beyond: int) -> tf.Tensor:
    """values [C] -> those that stand so many places before, or behind if negative; `beyond` where there is none."""
    n = tf.minimum(abs(by), tf.size(values))
    filled = tf.fill([n], tf.cast(beyond, values.dtype))
    return tf.concat([filled, values[: tf.size(values) - n]] if by > 0 else [values[n:], filled], 0)


def _place_in_run(found: tf.Tensor) -> tf.Tensor:
    """found [N] bool -> the place of each that is true among the true ones without a gap before it, from 0."""
    runs = tf.cumsum(tf.cast(~found, tf.int32))
    places = tf.range(tf.size(found))
    first = tf.math.unsorted_segment_min(places, runs, tf.size(found) + 1)
    return places - tf.gather(first, runs) - tf.cast(runs > 0, tf.int32)
