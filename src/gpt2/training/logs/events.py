"""TensorBoard event files, written as TFRecords of TensorFlow's own protocol buffers.

`tf.summary` is not used: it needs the tensorboard package, which TensorFlow no longer installs. `tf.io.TFRecordWriter`
is not used either: after a full disk it leaves a file that cannot be read past the damaged record.
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
    """A new event file in a folder, to which events are appended.

    Every method raises GPT2Error if the file cannot be written now; the event is then written together with a later
    one.
    """

    def __init__(self, folder: Path) -> None:
        """Create the file."""
        self.folder = folder
        self.file = self._create_file()

    def _create_file(self) -> AppendedFile:
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{time.time_ns() % 10**9}"
        header = tf.compat.v1.Event(wall_time=time.time(), file_version="brain.Event:2")
        return AppendedFile(self.folder / name, [_encode_record(header)])

    def restore(self) -> None:
        """Create another file if this one was removed, and write the pending events to it."""
        if not self.file.path.is_file():
            pending = self.file.pending
            self.file = self._create_file()
            self.file.add(pending)

    def add_scalars(self, step: int, **values: float) -> None:
        """Append one value for each tag."""
        self._add_summary(
            step, *(tf.compat.v1.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items())
        )

    def add_text(self, step: int, tag: str, text: str) -> None:
        """Append a text for TensorBoard's text plugin."""
        metadata = tf.compat.v1.SummaryMetadata()
        metadata.plugin_data.plugin_name = "text"
        tensor = tf.make_tensor_proto([text.encode("utf-8")], tf.string)
        self._add_summary(step, tf.compat.v1.Summary.Value(tag=tag, metadata=metadata, tensor=tensor))

    def _add_summary(self, step: int, *values: object) -> None:
        summary = tf.compat.v1.Summary(value=values)
        self.file.add(_encode_record(tf.compat.v1.Event(wall_time=time.time(), step=step, summary=summary)))


def _encode_record(event: Any) -> bytes:
    """Return a TFRecord: the length, its checksum, the event's bytes, their checksum."""
    data = event.SerializeToString()
    length = len(data).to_bytes(8, "little")
    return length + _checksum(length) + data + _checksum(data)


def _checksum(data: bytes) -> bytes:
    return mask_crc(google_crc32c.value(data)).to_bytes(4, "little")
