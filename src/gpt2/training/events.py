"""TensorBoard's event files, written with what TensorFlow carries.

Its `tf.summary` needs the tensorboard package, which is no longer installed with it.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path

import tensorflow as tf


class EventWriter:
    """Appends to a new event file in a folder."""

    def __init__(self, folder: Path) -> None:
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{time.time_ns() % 10**9}"
        self.file = tf.io.TFRecordWriter(str(folder / name))
        self._write(tf.compat.v1.Event(wall_time=time.time(), file_version="brain.Event:2"))

    def scalars(self, step: int, **values: float) -> None:
        self._summary(step, *(tf.compat.v1.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()))

    def text(self, step: int, tag: str, text: str) -> None:
        metadata = tf.compat.v1.SummaryMetadata()
        metadata.plugin_data.plugin_name = "text"
        tensor = tf.make_tensor_proto([text.encode("utf-8")], tf.string)
        self._summary(step, tf.compat.v1.Summary.Value(tag=tag, metadata=metadata, tensor=tensor))

    def close(self) -> None:
        self.file.close()

    def _summary(self, step: int, *values: object) -> None:
        self._write(tf.compat.v1.Event(wall_time=time.time(), step=step, summary=tf.compat.v1.Summary(value=values)))

    def _write(self, event: object) -> None:
        self.file.write(event.SerializeToString())  # type: ignore[attr-defined]
        self.file.flush()
