"""The identity of a model's weights, by which a resumed job recognizes them."""

from __future__ import annotations

import dataclasses
import hashlib
import zlib
from pathlib import Path
from typing import Any

from gpt2.files import reporting_read_errors
from gpt2.formats.directory import ModelDir
from gpt2.text.vocabulary import Vocabulary

MAX_HASHED_BYTES = 1 << 30  # of a file of weights; reading this much takes less than a second
BYTES_PER_READ = 1 << 20
FILES_KEY = "files"


def weights_identity(directory: ModelDir, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return what the texts of a model depend on, as JSON.

    The weights are identified by the checksums in their files, or by the content of files of up to MAX_HASHED_BYTES.
    These do not change if the model is copied. Larger files are identified by their sizes and modification times.

    Args:
        directory: The model's directory.
        vocabulary: The model's vocabulary.

    Raises:
        GPT2Error: The weights are damaged.
    """
    lines = []
    paths = set()
    for name, weight in sorted(directory.read().items()):
        lines.append(f"{name} {weight.shape} {weight.checksum}")
        if weight.checksum is None and weight.path is not None:
            paths.add(weight.path)
    files = {}
    for path in sorted(paths):
        with reporting_read_errors(path):
            status = path.stat()
        if status.st_size <= MAX_HASHED_BYTES:
            lines.append(f"{status.st_size} {_file_crc(path):x}")
        else:
            files[path.name] = [status.st_size, status.st_mtime_ns]
    sizes = {
        field.name: value
        for field in dataclasses.fields(directory.hparams)
        if (value := getattr(directory.hparams, field.name)) != field.default
    }
    return {
        "checksums": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        FILES_KEY: files,
        "hparams": sizes,
        "vocabulary": vocabulary.fingerprint,
    }


def _file_crc(path: Path) -> int:
    crc = 0
    with reporting_read_errors(path), path.open("rb", buffering=0) as file:
        while data := file.read(BYTES_PER_READ):
            crc = zlib.crc32(data, crc)
    return crc
