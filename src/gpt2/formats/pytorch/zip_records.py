"""Where the records of a zip file lie that are stored as they are, as torch.save writes them.

    local header, padding, bytes ... central directory, its end (PKWARE's APPNOTE.TXT, sections 4.3 and 4.5.3)

Files beyond 4 GiB say it in a second end and in extra fields. Compressed records are not read, so that no record is
larger than its file.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from gpt2 import files
from gpt2.errors import DamagedFileError

MAGIC = b"PK\x03\x04"
LOCAL, CENTRAL = struct.Struct("<4s5H3I2H"), struct.Struct("<4s6H3I5H2I")
END, LOCATOR, END_64 = struct.Struct("<4s4H2IH"), struct.Struct("<4sIQI"), struct.Struct("<4sQ2H2I4Q")
ZIP64 = 1  # the extra field with the numbers for which 32 bits are too few
TOO_LARGE = 0xFFFFFFFF
LONGEST_COMMENT = 0xFFFF
LARGEST_DIRECTORY = 1 << 22  # bytes; that of 1558M has 60,000


class Record(NamedTuple):
    """Where its bytes are; crc: their CRC-32, None where PyTorch was told to compute none, and wrote 0."""

    start: int
    size: int
    crc: int | None


def read_records(path: Path) -> dict[str, Record]:
    """The records of a zip file by their names. Raises Unreadable, and Damaged for what is none or is compressed."""
    try:
        with files.reporting_read_errors(path), path.open("rb") as file:
            start, size = _directory(file)
            file.seek(start)
            return _records(file, file.read(size), start)
    except (_Broken, struct.error) as error:
        said = error if isinstance(error, _Broken) else "it is cut off"
        raise DamagedFileError(path, str(said)) from error


class _Broken(ValueError):
    """Why these bytes are no zip file."""


def _directory(file: BinaryIO) -> tuple[int, int]:
    """Where the central directory starts, and its size."""
    length = os.fstat(file.fileno()).st_size
    before = max(0, length - END.size - LONGEST_COMMENT)
    file.seek(before)
    tail = file.read(END.size + LONGEST_COMMENT)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0:
        raise _Broken("the end of its list of records is missing, so it is cut off")
    *_, size, start, _ = END.unpack_from(tail, at)
    end = before + at
    file.seek(max(0, end - LOCATOR.size))
    locator = file.read(LOCATOR.size)
    if locator.startswith(b"PK\x06\x07"):
        end = LOCATOR.unpack(locator)[2]
        file.seek(min(end, length))
        signature, *_, size, start = END_64.unpack(file.read(END_64.size))
        if signature != b"PK\x06\x06":
            raise _Broken("the end of its list of records is not where it should be")
    if start + size > end or size > LARGEST_DIRECTORY:
        raise _Broken("its list of records is not where it should be")
    return start, size


def _records(file: BinaryIO, directory: bytes, end: int) -> dict[str, Record]:
    """What the central directory lists; `end`: where it starts, before which all records end."""
    found: dict[str, Record] = {}
    at = 0
    while at < len(directory):
        said = CENTRAL.unpack_from(directory, at)
        signature, compression, crc, packed, size, header = said[0], said[4], *said[7:10], said[16]
        n_name, n_extra, n_comment = said[10:13]
        at += CENTRAL.size
        name = directory[at : at + n_name].decode("utf-8", errors="backslashreplace")
        extra = directory[at + n_name : at + n_name + n_extra]
        at += n_name + n_extra + n_comment
        size, packed, header = _large_ones(extra, [size, packed, header])
        if signature != b"PK\x01\x02" or name in found or at > len(directory):
            raise _Broken("its list of records is not what it should be")
        if compression or size != packed or said[3] & 1:
            raise _Broken(f"its record {name[:80]!r} is compressed or encrypted, which torch.save does not do")
        start = _start(file, header, end)
        if start + size > end:
            raise _Broken(f"its record {name[:80]!r} is cut off")
        found[name] = Record(start, size, crc or None)
    return found


def _large_ones(extra: bytes, numbers: list[int]) -> list[int]:
    """The numbers, each that is too large for 32 bits taken from the extra field for such."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        if kind == ZIP64:
            large = iter(struct.unpack_from(f"<{size // 8}Q", extra, at + 4))
            return [next(large, n) if n == TOO_LARGE else n for n in numbers]
        at += 4 + size
    return numbers


def _start(file: BinaryIO, header: int, end: int) -> int:
    """Where a record's bytes start, which its own header says."""
    if header + LOCAL.size > end:
        raise _Broken("a record lies beyond its list of records")
    file.seek(header)
    said = LOCAL.unpack(file.read(LOCAL.size))
    if said[0] != MAGIC:
        raise _Broken("a record is not where it should be")
    return header + LOCAL.size + said[9] + said[10]
