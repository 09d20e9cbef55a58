"""TensorBoard's event files: TFRecords of what TensorFlow carries.

Its `tf.summary` needs the tensorboard package, which is no longer installed with it, and its writer of TFRecords leaves
a file that cannot be read any further where a disk was full.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import google_crc32c
import tensorflow as tf

from gpt2.formats.openai.leveldb_table import mask_crc
from gpt2.training.logs.appended_file import AppendedFile


class EventWriter:
    """Appends to a new event file in a folder. Raises GPT2Error if that does not work now; it is then made up for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = self._begun()

    def _begun(self) -> AppendedFile:
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{time.time_ns() % 10**9}"
        first = tf.compat.v1.Event(wall_time=time.time(), file_version="brain.Event:2")
        return AppendedFile(self.folder / name, _record(first))

    def restore(self) -> None:
        """Begins another file if this one was removed."""
        if not self.file.path.is_file():
            waiting, self.file = self.file.pending, self._begun()
            self.file.add(waiting)

    def scalars(self, step: int, **values: float) -> None:
        self._summary(step, *(tf.compat.v1.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()))

    def text(self, step: int, tag: str, text: str) -> None:
        metadata = tf.compat.v1.SummaryMetadata()
        metadata.plugin_data.plugin_name = "text"
        tensor = tf.make_tensor_proto([text.encode("utf-8")], tf.string)
        self._summary(step, tf.compat.v1.Summary.Value(tag=tag, metadata=metadata, tensor=tensor))

    def _summary(self, step: int, *values: object) -> None:
        summary = tf.compat.v1.Summary(value=values)
        self.file.add(_record(tf.compat.v1.Event(wall_time=time.time(), step=step, summary=summary)))


def _record(event: Any) -> bytes:
    """A TFRecord: the length, its checksum, the bytes, theirs."""
    data = event.SerializeToString()
    length = len(data).to_bytes(8, "little")
    return length + _checksum(length) + data + _checksum(data)


def _checksum(data: bytes) -> bytes:
    return mask_crc(google_crc32c.value(data)).to_bytes(4, "little")
