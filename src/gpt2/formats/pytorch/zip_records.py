"""The positions of the uncompressed records of a zip file, as torch.save writes them.

The layout of a zip file is (PKWARE's APPNOTE.TXT, sections 4.3 and 4.5.3):

    local header, padding, bytes ... central directory, end of central directory

Files beyond 4 GiB keep their sizes in a second end record and in extra fields. Compressed records are rejected, so no
record can be larger than its file.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from gpt2 import files
from gpt2.errors import DamagedFileError
from gpt2.formats.malformed import MalformedFileError

MAGIC = b"PK\x03\x04"  # the start of a local header, and therefore of a zip file
CENTRAL_MAGIC = b"PK\x01\x02"
END_MAGIC = b"PK\x05\x06"
ZIP64_END_MAGIC = b"PK\x06\x06"
ZIP64_LOCATOR_MAGIC = b"PK\x06\x07"

LOCAL_HEADER = struct.Struct("<4s5H3I2H")
CENTRAL_HEADER = struct.Struct("<4s6H3I5H2I")
END = struct.Struct("<4s4H2IH")
ZIP64_LOCATOR = struct.Struct("<4sIQI")
ZIP64_END = struct.Struct("<4sQ2H2I4Q")
ZIP64_EXTRA_FIELD = 1  # the extra field with the numbers that need more than 32 bits
IN_ZIP64_FIELD = 0xFFFFFFFF  # the marker for a number that is stored in that extra field
ENCRYPTED = 1  # a bit of a record's flags

MAX_COMMENT_BYTES = 0xFFFF
MAX_DIRECTORY_BYTES = 1 << 22  # the directory of the model 1558M has 60,000


class ZipRecord(NamedTuple):
    """The position of a record's bytes.

    Attributes:
        start: The offset of the first byte in the file.
        size: The number of bytes.
        crc: The CRC-32 of the bytes, or None if the file has 0, which PyTorch writes if checksums are disabled.
    """

    start: int
    size: int
    crc: int | None


def read_records(path: Path) -> dict[str, ZipRecord]:
    """Return the records of a zip file by their names.

    Raises:
        UnreadableFileError: If the file cannot be read.
        DamagedFileError: If the file is not a zip file, is damaged, or has compressed records.
    """
    try:
        with files.reporting_read_errors(path), path.open("rb") as file:
            start, size = _find_directory(file)
            file.seek(start)
            return _parse_directory(file, file.read(size), start)
    except (MalformedFileError, struct.error) as error:
        reason = error if isinstance(error, MalformedFileError) else "it is cut off"
        raise DamagedFileError(path, str(reason)) from error


def _find_directory(file: BinaryIO) -> tuple[int, int]:
    """Return the offset of the central directory and its size in bytes."""
    file_size = os.fstat(file.fileno()).st_size
    tail_start = max(0, file_size - END.size - MAX_COMMENT_BYTES)
    file.seek(tail_start)
    tail = file.read(END.size + MAX_COMMENT_BYTES)
    end_in_tail = tail.rfind(END_MAGIC)
    if end_in_tail < 0:
        raise MalformedFileError("the end of its central directory is missing, so it is cut off")
    *_, size, start, _ = END.unpack_from(tail, end_in_tail)
    end = tail_start + end_in_tail
    file.seek(max(0, end - ZIP64_LOCATOR.size))
    locator = file.read(ZIP64_LOCATOR.size)
    if locator.startswith(ZIP64_LOCATOR_MAGIC):
        end = ZIP64_LOCATOR.unpack(locator)[2]
        file.seek(min(end, file_size))
        signature, *_, size, start = ZIP64_END.unpack(file.read(ZIP64_END.size))
        if signature != ZIP64_END_MAGIC:
            raise MalformedFileError("the end of its central directory is not at its recorded position")
    if start + size > end or size > MAX_DIRECTORY_BYTES:
        raise MalformedFileError("its central directory is not at its recorded position")
    return start, size


def _parse_directory(file: BinaryIO, directory: bytes, directory_start: int) -> dict[str, ZipRecord]:
    """Return the records in the central directory; all of them must end before the directory starts."""
    records: dict[str, ZipRecord] = {}
    offset = 0
    while offset < len(directory):
        header = CENTRAL_HEADER.unpack_from(directory, offset)
        signature, _, _, flags, compression, _, _, crc = header[:8]
        n_name, n_extra, n_comment = header[10:13]
        name_start = offset + CENTRAL_HEADER.size
        extra_start = name_start + n_name
        offset = extra_start + n_extra + n_comment
        name = directory[name_start:extra_start].decode("utf-8", errors="backslashreplace")
        extra = directory[extra_start : extra_start + n_extra]
        size, packed_size, local_header = _with_zip64(extra, [header[9], header[8], header[16]])
        if signature != CENTRAL_MAGIC or name in records or offset > len(directory):
            raise MalformedFileError("its central directory is damaged")
        if compression or size != packed_size or flags & ENCRYPTED:
            raise MalformedFileError(
                f"its record {name[:80]!r} is compressed or encrypted, which torch.save does not do"
            )
        start = _data_start(file, local_header, directory_start)
        if start + size > directory_start:
            raise MalformedFileError(f"its record {name[:80]!r} is cut off")
        records[name] = ZipRecord(start, size, crc or None)
    return records


def _with_zip64(extra: bytes, numbers: list[int]) -> list[int]:
    """Return the numbers, taking numbers of more than 32 bits from the extra fields."""
    offset = 0
    while offset + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, offset)
        if kind == ZIP64_EXTRA_FIELD:
            large_numbers = iter(struct.unpack_from(f"<{size // 8}Q", extra, offset + 4))
            return [next(large_numbers, n) if n == IN_ZIP64_FIELD else n for n in numbers]
        offset += 4 + size
    return numbers


def _data_start(file: BinaryIO, local_header: int, directory_start: int) -> int:
    """Return the offset of a record's bytes, which depends on the lengths in its local header."""
    if local_header + LOCAL_HEADER.size > directory_start:
        raise MalformedFileError("a record starts beyond the central directory")
    file.seek(local_header)
    signature, *_, n_name, n_extra = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
    if signature != MAGIC:
        raise MalformedFileError("a record is not at its recorded position")
    return local_header + LOCAL_HEADER.size + n_name + n_extra
