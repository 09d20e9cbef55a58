"""Reader of a LevelDB table, the file format of a checkpoint's `.index`: sorted keys and their values.

The layout of a table is (LevelDB's doc/table_format.md; TensorFlow's core/lib/io/format.cc):

    data block ... meta blocks ... index block, footer

A block contains entries, then the offsets of the entries with complete keys, then one byte for the compression, then a
masked CRC32C of the block. Other entries share a prefix of their key with the entry before them. The index block holds
the positions of the data blocks, and the footer holds the position of the index block.

Blocks must be in order without overlaps, and keys must be in ascending order. These checks limit work and memory to the
file's size, even if the file is malicious.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import google_crc32c

from gpt2.formats.malformed import MalformedFileError
from gpt2.formats.openai.checkpoint_files import TABLE_MAGIC
from gpt2.formats.protobuf import read_varint

FOOTER_BYTES = 48  # the handles of the meta index and the index, padding, the magic number
TRAILER_BYTES = 5  # the compression and the checksum after a block
OFFSET_BYTES = 4  # the offset of an entry with a complete key, or the number of such offsets
MAX_KEY_BYTES = 1 << 12
MASK = 0xA282EAD8  # LevelDB masks checksums, because the CRC of data that contains CRCs is weak


class Handle(NamedTuple):
    """The position of a block, without its trailer.

    Attributes:
        offset: Index of its first byte in the file.
        size: Its size in bytes.
    """

    offset: int
    size: int

    @property
    def end(self) -> int:
        """Index of the byte after the block's trailer."""
        return self.offset + self.size + TRAILER_BYTES


def mask_crc(crc: int) -> int:
    """Return a CRC32C as LevelDB and TensorFlow store it: rotated, with a constant added."""
    return ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF


def read_table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a table in order.

    Args:
        data: The whole file.

    Raises:
        MalformedFileError: The file is not a table, or it is damaged.
    """
    if data[-len(TABLE_MAGIC) :] != TABLE_MAGIC or len(data) < FOOTER_BYTES:
        raise MalformedFileError("it does not end as a table does")
    footer = data[-FOOTER_BYTES:]
    _, offset = _read_handle(footer, 0)  # the handle of the meta index is not needed
    index, _ = _read_handle(footer, offset)
    previous_end = 0
    previous_key: bytes | None = None
    for _, value in _read_entries(_read_block(data, index)):
        handle, _ = _read_handle(value, 0)
        if handle.offset < previous_end or handle.end > index.offset:
            raise MalformedFileError(f"the block at {handle.offset} overlaps another block")
        previous_end = handle.end
        for key, entry in _read_entries(_read_block(data, handle)):
            if previous_key is not None and key <= previous_key:
                raise MalformedFileError("its keys are not in ascending order")
            previous_key = key
            yield key, entry


def _read_handle(data: bytes, offset: int) -> tuple[Handle, int]:
    """Return the handle at an offset, and the offset after the handle."""
    block_offset, offset = read_varint(data, offset)
    block_size, offset = read_varint(data, offset)
    return Handle(block_offset, block_size), offset


def _read_block(data: bytes, handle: Handle) -> bytes:
    """Return a block's content after checking its checksum."""
    if handle.end > len(data) - FOOTER_BYTES:
        raise MalformedFileError(f"the block at {handle.offset} is cut off")
    content = data[handle.offset : handle.end - TRAILER_BYTES]
    trailer = data[handle.end - TRAILER_BYTES : handle.end]
    if mask_crc(google_crc32c.value(content + trailer[:1])) != int.from_bytes(trailer[1:], "little"):
        raise MalformedFileError(f"the checksum of the block at {handle.offset} does not match")
    if trailer[0]:
        raise MalformedFileError(f"the block at {handle.offset} is compressed, but TensorFlow's checkpoints are not")
    return content


def _read_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a block."""
    if len(block) < OFFSET_BYTES:
        raise MalformedFileError("a block is cut off")
    n_offsets = int.from_bytes(block[-OFFSET_BYTES:], "little")
    end = len(block) - OFFSET_BYTES * (1 + n_offsets)
    if end < 0:
        raise MalformedFileError("a block is cut off")
    key = b""
    position = 0
    while position < end:
        n_shared, position = read_varint(block, position)
        n_unshared, position = read_varint(block, position)
        value_size, position = read_varint(block, position)
        entry_end = position + n_unshared + value_size
        if n_shared > len(key) or n_shared + n_unshared > MAX_KEY_BYTES or entry_end > end:
            raise MalformedFileError("an entry extends beyond its block")
        key = key[:n_shared] + block[position : position + n_unshared]
        yield key, block[position + n_unshared : entry_end]
        position = entry_end
