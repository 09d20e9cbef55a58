"""A check that the rows that a job has read are still the same when it resumes."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from gpt2.bulk.row_queue import RowNumberSet
from gpt2.bulk.rows import InputRecord
from gpt2.errors import UsageError


class InputCheck:
    """The checksum of all rows that have been read, which is compared with the journal's when the job resumes.

    It covers the rows themselves, so it works for any format and for stdin, and rows may be added at the end.

    Attributes:
        rows: Number of rows that have been read in this run.
        crc: CRC-32 of these rows.
        expected_rows: Number of rows that earlier runs have read.
        expected_crc: CRC-32 of the rows that earlier runs have read.
        problem: The message if they differ, with the advice.
    """

    def __init__(self) -> None:
        """Start before the first row of a new job."""
        self.rows = 0
        self.crc = 0
        self.expected_rows = 0
        self.expected_crc = 0
        self.problem = "the input is not the one that the output was started with"

    def unfinished(self, records: Iterable[InputRecord], finished_numbers: RowNumberSet) -> Iterator[InputRecord]:
        """Yield the rows that are not finished, the first one only after all rows of earlier runs have been compared.

        Args:
            records: All rows of the input.
            finished_numbers: The numbers of the rows that earlier runs have finished.

        Raises:
            UsageError: The rows of earlier runs have changed or are missing.
        """
        waiting: list[InputRecord] = []  # few: the queue bounds how far reading is ahead of the first unfinished row
        for record in records:
            self._add(record)
            if record.number not in finished_numbers:
                waiting.append(record)
            if self.rows == self.expected_rows and self.crc != self.expected_crc:
                raise UsageError(self.problem)
            if self.rows >= self.expected_rows:
                yield from waiting
                waiting.clear()
        if self.rows < self.expected_rows:
            raise UsageError(self.problem)

    def _add(self, record: InputRecord) -> None:
        # Not the error itself, whose words may change with Python's version.
        row = (record.number, dict(record.values), record.has_settings, record.content)
        try:
            content = ascii(row)  # does not depend on the locale or on Python's version of Unicode
        except RecursionError:  # the parser can read a little deeper nesting
            content = "nested too deeply"
        self.crc = zlib.crc32(content.encode("ascii"), self.crc)
        self.rows += 1
