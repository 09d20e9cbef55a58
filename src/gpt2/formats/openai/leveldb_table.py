"""Reads a LevelDB table, the file format of a TensorFlow checkpoint's `.index`: sorted keys and their values.

    data block ... meta blocks ... index block, footer

A block is entries whose keys share a beginning with the one before, then the offsets at which none is shared, then one
byte that names its compression and a masked CRC32C of all of it. The index block holds where the data blocks are; the
footer where the index block is. (LevelDB's doc/table_format.md; TensorFlow's core/lib/io/format.cc.)

Nothing in a table is believed: blocks must follow one another and keys must rise, so that work and memory are bounded
by the file's size whatever is in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import google_crc32c

from gpt2.formats.malformed import MalformedFileError
from gpt2.formats.protobuf import read_varint

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER, TRAILER = 48, 5  # bytes: two handles and the magic number; a block's compression and checksum
LONGEST_KEY = 1 << 12
MASK = 0xA282EAD8  # what LevelDB adds, so that a checksum of data that holds checksums is a good one


class Handle(NamedTuple):
    """Where a block is, in bytes; the trailer comes after it."""

    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.size + TRAILER


def mask_crc(crc: int) -> int:
    """A CRC32C as tables and checkpoints store it: rotated, and a constant added."""
    return ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF


def read_table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a table that is all of `data`, in order. Raises Broken."""
    if data[-len(MAGIC) :] != MAGIC or len(data) < FOOTER:
        raise MalformedFileError("it does not end as a table does")
    _, at = _handle(data[-FOOTER:], 0)  # of blocks that say things about the others
    index, _ = _handle(data[-FOOTER:], at)
    end = 0
    last: bytes | None = None
    for _, value in _entries(_block(data, index)):
        handle, _ = _handle(value, 0)
        if handle.offset < end or handle.end > index.offset:
            raise MalformedFileError(f"the block at {handle.offset} lies over another one")
        end = handle.end
        for key, entry in _entries(_block(data, handle)):
            if last is not None and key <= last:
                raise MalformedFileError("its keys do not rise")
            last = key
            yield key, entry


def _handle(data: bytes, at: int) -> tuple[Handle, int]:
    offset, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return Handle(offset, size), at


def _block(data: bytes, handle: Handle) -> bytes:
    """A block's content, once its checksum is found right."""
    if handle.end > len(data) - FOOTER:
        raise MalformedFileError(f"the block at {handle.offset} is cut off")
    content, trailer = data[handle.offset : handle.end - TRAILER], data[handle.end - TRAILER : handle.end]
    if mask_crc(google_crc32c.value(content + trailer[:1])) != int.from_bytes(trailer[1:], "little"):
        raise MalformedFileError(f"the block at {handle.offset} has another checksum than it should")
    if trailer[0]:
        raise MalformedFileError(f"the block at {handle.offset} is compressed, which TensorFlow's checkpoints are not")
    return content


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(block) < 4:
        raise MalformedFileError("a block is cut off")
    end = len(block) - 4 * (1 + int.from_bytes(block[-4:], "little"))  # before the offsets and their count
    if end < 0:
        raise MalformedFileError("a block is cut off")
    key, at = b"", 0
    while at < end:
        shared, at = read_varint(block, at)
        unshared, at = read_varint(block, at)
        size, at = read_varint(block, at)
        if shared > len(key) or shared + unshared > LONGEST_KEY or at + unshared + size > end:
            raise MalformedFileError("an entry reaches beyond its block")
        key = key[:shared] + block[at : at + unshared]
        at += unshared + size
        yield key, block[at - size : at]
