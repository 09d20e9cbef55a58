"""GGUF files damaged in thousands of ways: one line each, in bounded time and memory."""

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

MEMORY = 8_000_000  # bytes; the file has 170,000
SECONDS = 5  # that no file may take; most take a hundredth
HUGE = (1 << 31, 1 << 33, 1 << 40, 1 << 62, (1 << 64) - 1)


@pytest.fixture(scope="module")
def contents(tmp_path_factory, tiny_dir):
    """Small valid files in several types."""
    found = open_model_dir(tiny_dir)
    weights, encoder = dict(flatten(tiny.read_model(tiny_dir))), load_vocabulary(found)
    folder = tmp_path_factory.mktemp("gguf")
    kinds = ("F32", "F16", "Q8_0", "Q4_0")
    paths = [gguf_layout.write(folder / kind, weights, encoder, found.hparams, kind=kind) for kind in kinds]
    return [path.read_bytes() for path in paths]


class Walk:
    """Over a valid header: where its numbers are, counts and lengths first of all, and where it ends."""

    SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes, by type

    def __init__(self, content):
        self.content, self.at, self.places = content, 4, []
        self.number(4)
        n_tensors, n_keys = self.number(8), self.number(8)
        for _ in range(n_keys):
            self.text()
            self.value(self.number(4))
        for _ in range(n_tensors):
            self.text()
            for _ in range(self.number(4)):
                self.number(8)
            self.number(4)
            self.number(8)

    def number(self, size):
        self.places.append((self.at, size))
        self.at += size
        return int.from_bytes(self.content[self.at - size : self.at], "little")

    def text(self):
        size = self.number(8)
        self.at += size

    def value(self, kind):
        if kind == 8:
            self.text()
        elif kind == 9:
            of, count = self.number(4), self.number(8)
            if of == 8:
                before = len(self.places)
                for _ in range(count):
                    self.text()
                del self.places[before + 8 :]  # the first few stand for all
            else:
                self.at += count * self.SIZES[of]
        else:
            self.number(self.SIZES[kind])


def damage(rng, content):
    walk = Walk(content)
    places, end, content = walk.places, walk.at, bytearray(content)
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
        for place, size in rng.sample(places, rng.choice([1, 1, 1, 2])):
            before = int.from_bytes(content[place : place + size], "little")
            lies = [*HUGE, 0, 1, 2, 3, 8, 9, 12, before + 1, before - 1, before * 2, rng.randrange(40)]
            content[place : place + size] = (rng.choice(lies) % (1 << 8 * size)).to_bytes(size, "little")
    return bytes(content)


def used(path):
    found = open_model_dir(path)
    for weight in found.read().values():
        assert weight.array().shape == weight.shape
    vocabulary = load_vocabulary(found)
    vocabulary.decode(vocabulary.encode("the cat sat, as ever"))


@pytest.mark.parametrize("cases", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_damage_is_said_in_one_line_or_harmless(tmp_path, contents, cases):
    rng = random.Random(1)
    path, refused = tmp_path / "model.gguf", 0
    used(_with(path, contents[0]))  # what is imported and kept for good is not counted
    for case in range(cases):
        _with(path, damage(rng, rng.choice(contents)))
        tracemalloc.start()
        start = time.monotonic()
        try:
            used(path)
        except GPT2Error as error:
            refused += 1
            assert "\n" not in str(error) and "model.gguf" in str(error), (case, str(error))
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < MEMORY, case
        assert time.monotonic() - start < SECONDS, case
    assert refused > cases / 2


def _with(path, content):
    path.write_bytes(content)
    return path


def header(*keys, n_tensors=0, n_keys=None):
    """A header with these values: (name, type, bytes)."""
    body = b"".join(
        len(name).to_bytes(8, "little") + name + struct.pack("<I", kind) + rest for name, kind, rest in keys
    )
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, len(keys) if n_keys is None else n_keys) + body


@pytest.mark.parametrize(
    "content, said",
    [
        (header(n_keys=1 << 60), "it is cut off"),
        (header(n_tensors=1 << 60), "it is cut off"),
        (header((b"a", 9, struct.pack("<IQ", 0, 1 << 60))), "it is cut off"),  # keeps the package's reader for good
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
def test_lies(tmp_path, content, said):
    path = _with(tmp_path / "model.gguf", content)
    tracemalloc.start()
    with pytest.raises(GPT2Error, match=rf"model\.gguf is damaged: {said}.*; delete it and fetch it again"):
        read_header(path)
    assert tracemalloc.get_traced_memory()[1] < MAX_HEADER_BYTES / 8
    tracemalloc.stop()


def test_tensors_that_share_their_bytes(tmp_path, contents):
    """All are of the first one's."""
    content = bytearray(contents[0])
    tensors = gguf.GGUFReader(_with(tmp_path / "model.gguf", contents[0])).tensors
    for tensor in tensors:
        place = tensor.field.offset + sum(part.nbytes for part in tensor.field.parts) - 8
        content[place : place + 8] = bytes(8)
    with pytest.raises(GPT2Error, match=r"is damaged: .* overlaps .*; fetch or copy it again"):
        open_model_dir(_with(tmp_path / "model.gguf", bytes(content)))


def test_numbers_that_are_none(tmp_path, contents):
    path = _with(tmp_path / "model.gguf", contents[0])
    tensor = gguf.GGUFReader(path).tensors[0]
    content = bytearray(contents[0])
    content[tensor.data_offset + 400 : tensor.data_offset + 404] = np.float32(np.nan).tobytes()
    found = open_model_dir(_with(path, bytes(content)))
    with pytest.raises(GPT2Error, match=f"{tensor.name} holds NaN or infinity; fetch or copy it again"):
        for weight in found.read().values():
            weight.array()
