"""Reader of protocol buffers: varints and the fields of a message, without a schema or the package protobuf.

The encoding is described at https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterator

from gpt2.formats.malformed import MalformedFileError

# How a field's value is encoded: the lowest three bits of its tag.
VARINT = 0
FIXED64 = 1
LENGTH_DELIMITED = 2
FIXED32 = 5
FIXED_BYTES = {FIXED64: 8, FIXED32: 4}


def read_varint(data: bytes, offset: int) -> tuple[int, int]:
    """Decode a varint, an unsigned integer with 7 bits in each byte, lowest bits first.

    Args:
        data: Bytes that hold the varint.
        offset: Index of the varint's first byte.

    Returns:
        The integer, and the index of the byte after it.

    Raises:
        MalformedFileError: The varint is cut off or longer than 64 bits.
    """
    value = 0
    for shift in range(0, 64, 7):
        if offset >= len(data):
            raise MalformedFileError("a number is cut off")
        value |= (data[offset] & 127) << shift
        offset += 1
        if data[offset - 1] < 128:
            return value, offset
    raise MalformedFileError("a number is longer than 64 bits")


def read_fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a message in the order of the file.

    Args:
        message: The bytes of one message, without the length prefix of a nested message.

    Yields:
        The field's number and its value: an integer, or bytes for text and nested messages.

    Raises:
        MalformedFileError: A field is cut off or has an unknown wire type.
    """
    offset = 0
    while offset < len(message):
        tag, offset = read_varint(message, offset)
        number = tag >> 3
        wire_type = tag & 7
        if wire_type == VARINT:
            value, offset = read_varint(message, offset)
            yield number, value
            continue
        if wire_type == LENGTH_DELIMITED:
            size, offset = read_varint(message, offset)
        elif wire_type in FIXED_BYTES:
            size = FIXED_BYTES[wire_type]
        else:
            raise MalformedFileError(f"a field has the unknown type {wire_type}")
        content = message[offset : offset + size]
        offset += size
        if offset > len(message):
            raise MalformedFileError("a field is cut off")
        yield number, content if wire_type == LENGTH_DELIMITED else int.from_bytes(content, "little")
