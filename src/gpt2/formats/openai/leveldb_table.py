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

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER, TRAILER = 48, 5  # bytes: two handles and the magic number; a block's compression and checksum
LONGEST_KEY = 1 << 12
MASK = 0xA282EAD8  # what LevelDB adds, so that a checksum of data that holds checksums is a good one


class MalformedFileError(ValueError):
    """Why these bytes are no table, or no protocol buffer."""


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


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first -> the number and where it ends. Raises Broken."""
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            raise MalformedFileError("a number is cut off")
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise MalformedFileError("a number does not end")


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
    offset, at = varint(data, at)
    size, at = varint(data, at)
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
        shared, at = varint(block, at)
        unshared, at = varint(block, at)
        size, at = varint(block, at)
        if shared > len(key) or shared + unshared > LONGEST_KEY or at + unshared + size > end:
            raise MalformedFileError("an entry reaches beyond its block")
        key = key[:shared] + block[at : at + unshared]
        at += unshared + size
        yield key, block[at - size : at]


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protocol buffer: their numbers, and whole numbers or bytes. Raises Broken."""
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        number, wire = tag >> 3, tag & 7
        value: int | bytes
        if wire == 0:
            value, at = varint(message, at)
        elif wire in (1, 2, 5):
            size, at = varint(message, at) if wire == 2 else ({1: 8, 5: 4}[wire], at)
            value, at = message[at : at + size], at + size
            if at > len(message):
                raise MalformedFileError("a field is cut off")
            if wire != 2:
                value = int.from_bytes(value, "little")
        else:
            raise MalformedFileError(f"a field has the unknown type {wire}")
        yield number, value
