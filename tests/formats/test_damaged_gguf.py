"""Damages GGUF files in thousands of ways: each error is one line, and time and memory are bounded."""

import random
import struct
import time
import tracemalloc

import gguf
import gguf_layout
import numpy as np
import pytest
import tiny

from gpt2.errors import GPT2Error
from gpt2.formats.gguf.header import MAX_HEADER_BYTES, read_header
from gpt2.formats.model_dir import load_vocabulary, open_model_dir
from gpt2.formats.weights import flatten

MAX_MEMORY_BYTES = 8_000_000  # the file has 170,000
MAX_SECONDS = 5  # most files take a hundredth of it
HUGE = (1 << 31, 1 << 33, 1 << 40, 1 << 62, (1 << 64) - 1)


@pytest.fixture(scope="module")
def contents(tmp_path_factory, tiny_dir):
    """Return the bytes of small valid files in several types."""
    model = open_model_dir(tiny_dir)
    weights, encoder = dict(flatten(tiny.read_model(tiny_dir))), load_vocabulary(model)
    folder = tmp_path_factory.mktemp("gguf")
    kinds = ("F32", "F16", "Q8_0", "Q4_0")
    paths = [gguf_layout.write(folder / kind, weights, encoder, model.hparams, kind=kind) for kind in kinds]
    return [path.read_bytes() for path in paths]


class HeaderMap:
    """Finds the numbers in a valid header.

    Attributes:
        numbers: The position and size in bytes of each number: counts, lengths, types and values.
        position: The end of the header, once everything has been read.
    """

    NUMBER_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # by type

    def __init__(self, content):
        self.content = content
        self.position = 4
        self.numbers = []
        self.number(4)
        n_tensors, n_keys = self.number(8), self.number(8)
        for _ in range(n_keys):
            self.string()
            self.value(self.number(4))
        for _ in range(n_tensors):
            self.string()
            for _ in range(self.number(4)):
                self.number(8)
            self.number(4)
            self.number(8)

    def number(self, size):
        self.numbers.append((self.position, size))
        self.position += size
        return int.from_bytes(self.content[self.position - size : self.position], "little")

    def string(self):
        size = self.number(8)
        self.position += size

    def value(self, value_type):
        if value_type == 8:
            self.string()
        elif value_type == 9:
            item_type, count = self.number(4), self.number(8)
            if item_type == 8:
                before = len(self.numbers)
                for _ in range(count):
                    self.string()
                del self.numbers[before + 8 :]  # the first few strings are enough
            else:
                self.position += count * self.NUMBER_BYTES[item_type]
        else:
            self.number(self.NUMBER_BYTES[value_type])


def damage(rng, content):
    """Damage the header or the numbers of a file in a random way."""
    header_map = HeaderMap(content)
    end = header_map.position
    content = bytearray(content)
    kind = rng.randrange(8)
    if kind == 0:
        for _ in range(rng.choice([1, 1, 2, 8])):
            content[rng.randrange(end)] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del content[rng.choice([rng.randrange(end), rng.randrange(len(content))]) :]
    elif kind == 2:
        start, size = rng.randrange(end), rng.randrange(1, 64)
        content[start : start + size] = rng.randbytes(size)
    elif kind == 3:
        start = rng.randrange(end)
        del content[start : start + rng.choice([1, 4, 8, 100])]
    elif kind == 4:
        start = rng.randrange(end)
        content[start:start] = rng.randbytes(rng.choice([1, 4, 8, 100]))
    elif kind == 5:
        content[rng.randrange(end, len(content))] ^= 1 << rng.randrange(8)
    else:
        for position, size in rng.sample(header_map.numbers, rng.choice([1, 1, 1, 2])):
            before = int.from_bytes(content[position : position + size], "little")
            lies = [*HUGE, 0, 1, 2, 3, 8, 9, 12, before + 1, before - 1, before * 2, rng.randrange(40)]
            content[position : position + size] = (rng.choice(lies) % (1 << 8 * size)).to_bytes(size, "little")
    return bytes(content)


def use_model(path):
    """Read all weights and use the vocabulary."""
    model = open_model_dir(path)
    for weight in model.read().values():
        assert weight.array().shape == weight.shape
    vocabulary = load_vocabulary(model)
    vocabulary.decode(vocabulary.encode("the cat sat, as ever"))


@pytest.mark.parametrize("cases", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_damage_is_reported_in_one_line_or_harmless(tmp_path, contents, cases):
    rng = random.Random(1)
    path = tmp_path / "model.gguf"
    n_rejected = 0
    use_model(write_file(path, contents[0]))  # the memory of imported modules must not count
    for case in range(cases):
        write_file(path, damage(rng, rng.choice(contents)))
        tracemalloc.start()
        start = time.monotonic()
        try:
            use_model(path)
        except GPT2Error as error:
            n_rejected += 1
            assert "\n" not in str(error) and "model.gguf" in str(error), (case, str(error))
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < MAX_MEMORY_BYTES, case
        assert time.monotonic() - start < MAX_SECONDS, case
    assert n_rejected > cases / 2


def write_file(path, content):
    path.write_bytes(content)
    return path


def header(*keys, n_tensors=0, n_keys=None):
    """Return a header with these metadata, given as (name, type, bytes)."""
    body = b"".join(
        len(name).to_bytes(8, "little") + name + struct.pack("<I", value_type) + value
        for name, value_type, value in keys
    )
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, len(keys) if n_keys is None else n_keys) + body


@pytest.mark.parametrize(
    "content, message",
    [
        (header(n_keys=1 << 60), "it is cut off"),
        (header(n_tensors=1 << 60), "it is cut off"),
        (
            header((b"a", 9, struct.pack("<IQ", 0, 1 << 60))),
            "it is cut off",
        ),  # the package's own reader would never finish
        (header((b"a", 9, struct.pack("<IQ", 8, 1 << 60))), "an array is longer than the rest of the file"),
        (header((b"a", 9, struct.pack("<IQ", 9, 1 << 60))), "an array has the unknown type 9"),
        (header((b"a", 8, struct.pack("<Q", 1 << 60))), "it is cut off"),
        (header((b"a", 99, b"")), "a value has the unknown type 99"),
        (header((b"a", 0, b"1"), (b"a", 0, b"1")), "the key a appears twice"),
        (header((b"a\n", 0, b"1")), "it contains an invalid name"),
        (header((b"\xff", 0, b"1")), "a string in it is not UTF-8"),
        (header((b"a", 9, struct.pack("<IQ", 0, 1 << 26) + bytes(1 << 26))), "its header is far too long"),
        (b"GGUF" + bytes(20), "its version is 0; only versions 2 and 3 can be read"),
        (b"GGUF\0\0\0\3" + bytes(16), "its version is 50331648"),  # big-endian
    ],
)
def test_impossible_headers_are_rejected(tmp_path, content, message):
    path = write_file(tmp_path / "model.gguf", content)
    tracemalloc.start()
    with pytest.raises(GPT2Error, match=rf"model\.gguf is damaged: {message}.*; delete it and fetch it again"):
        read_header(path)
    assert tracemalloc.get_traced_memory()[1] < MAX_HEADER_BYTES / 8
    tracemalloc.stop()


def test_overlapping_tensors_are_rejected(tmp_path, contents):
    """Moves all tensors to the first byte."""
    content = bytearray(contents[0])
    tensors = gguf.GGUFReader(write_file(tmp_path / "model.gguf", contents[0])).tensors
    for tensor in tensors:
        position = tensor.field.offset + sum(part.nbytes for part in tensor.field.parts) - 8
        content[position : position + 8] = bytes(8)
    with pytest.raises(GPT2Error, match=r"is damaged: .* overlaps .*; fetch or copy it again"):
        open_model_dir(write_file(tmp_path / "model.gguf", bytes(content)))


def test_nan_is_rejected(tmp_path, contents):
    path = write_file(tmp_path / "model.gguf", contents[0])
    tensor = gguf.GGUFReader(path).tensors[0]
    content = bytearray(contents[0])
    content[tensor.data_offset + 400 : tensor.data_offset + 404] = np.float32(np.nan).tobytes()
    model = open_model_dir(write_file(path, bytes(content)))
    with pytest.raises(GPT2Error, match=f"{tensor.name} holds NaN; use an earlier checkpoint, or fetch"):
        for weight in model.read().values():
            weight.array()
