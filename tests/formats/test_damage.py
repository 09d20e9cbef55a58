"""Checkpoints damaged in thousands of ways: one line each, in bounded memory, and no changed weight goes unnoticed."""

import random
import shutil
import tracemalloc

import google_crc32c
import numpy as np
import pytest
import tiny

from gpt2.errors import GPT2Error
from gpt2.formats.malformed import MalformedFileError
from gpt2.formats.model_dir import open_model_dir
from gpt2.formats.openai import checkpoint
from gpt2.formats.openai.checkpoint_files import TABLE_MAGIC
from gpt2.formats.openai.leveldb_table import mask_crc, read_table
from gpt2.formats.protobuf import read_fields, read_varint
from gpt2.formats.weights import flatten

INDEX, DATA = "model.ckpt.index", "model.ckpt.data-00000-of-00001"
MEMORY = 8_000_000  # bytes; the model has 140,000


def number(n):
    """A varint."""
    n &= (1 << 64) - 1
    groups = []
    while True:
        groups.append(n & 127 | (128 if n > 127 else 0))
        n >>= 7
        if not n:
            return bytes(groups)


def block(entries, restarts=(0,)):
    """A block of (key, value) with a right checksum, no key sharing its beginning with the one before."""
    content = b"".join(b"\0" + number(len(key)) + number(len(value)) + key + value for key, value in entries)
    content += b"".join(at.to_bytes(4, "little") for at in restarts) + len(restarts).to_bytes(4, "little")
    return sealed(content)


def sealed(content, compression=b"\0"):
    return content + compression + mask_crc(google_crc32c.value(content + compression)).to_bytes(4, "little")


def table(*blocks, handles=None):
    """A table of these data blocks; handles: what its index says of where they are, instead of the truth."""
    data, true = b"", []
    for one in blocks:
        true.append((len(data), len(one) - 5))
        data += one
    said = [number(offset) + number(size) for offset, size in (handles(true, len(data)) if handles else true)]
    index = block([(bytes([i + 1]), handle) for i, handle in enumerate(said)])
    footer = number(0) + number(0) + number(len(data)) + number(len(index) - 5)
    return data + index + footer.ljust(40, b"\0") + TABLE_MAGIC


def message(**changes):
    """A BundleEntryProto: {1: type, 2: shape, 3: shard, 4: offset, 5: size, 6: checksum}."""
    out = b""
    for name, value in changes.items():
        field = int(name[1:])
        if field == 2:
            shape = b"".join(b"\x12" + number(len(d)) + d for d in (b"\x08" + number(n) for n in value))
            out += b"\x12" + number(len(shape)) + shape
        elif field == 6:
            out += b"\x35" + value.to_bytes(4, "little")
        elif value:
            out += number(field << 3) + number(value)
    return out


def rebuilt(index, change):
    """The index with each entry's fields passed through `change(name, fields)`, all checksums right."""
    entries = []
    for key, value in read_table(index):
        said = {}
        for field, content in read_fields(value):
            said[f"_{field}"] = shape_of(content) if key and field == 2 else content
        if key:
            value = message(**change(key.decode(), said))
        entries.append((key, value))
    return table(block(entries))


def shape_of(content):
    return [dict(read_fields(dimension)).get(1, 0) for _, dimension in read_fields(content)]


def lies(rng):
    """A change of one entry that a checksum does not show."""
    huge = rng.choice([1 << 31, 1 << 40, 1 << 62, (1 << 64) - 1])
    return rng.choice(
        [
            lambda said: {**said, "_2": [huge, *said["_2"][1:]]},
            lambda said: {**said, "_2": [n * 2 for n in said["_2"]]},
            lambda said: {**said, "_2": [huge] * 30},
            lambda said: {**said, "_2": [1 << 39] * 2, "_5": 1 << 62},
            lambda said: {**said, "_5": huge},
            lambda said: {**said, "_5": said["_5"] // 2},
            lambda said: {**said, "_4": huge},
            lambda said: {**said, "_4": said.get("_4", 0) + 4},
            lambda said: {**said, "_4": said.get("_4", 0) // 2 + 8},
            lambda said: {**said, "_3": huge},
            lambda said: {**said, "_3": 1},
            lambda said: {**said, "_1": rng.choice([0, 2, 3, 7, 19, 23, 200])},
            lambda said: {**said, "_6": said["_6"] ^ 1 << rng.randrange(32)},
            lambda said: {**said, "_7": 1},
        ]
    )


def damage(rng, files):
    """One of the two files changed, as its name, its content and whether it may still be the same model."""
    index, data = files[INDEX], files[DATA]
    name = rng.choice([INDEX, DATA])
    content = bytearray(files[name])
    kind = rng.randrange(6)
    if kind == 0:
        for _ in range(rng.choice([1, 1, 1, 2, 8])):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del content[rng.randrange(len(content)) :]
    elif kind == 2:
        start = rng.randrange(len(content))
        size = rng.randrange(1, 64)
        content[start : start + size] = rng.randbytes(size)
    elif kind == 3:
        name, content = INDEX, rebuilt(index, one_entry(rng, index))
    elif kind == 4:
        name, content = INDEX, odd_table(rng, index)
    else:
        start = rng.randrange(0, len(content) - 8, 4)
        content[start : start + 4] = data[start + 4 : start + 8] if name == DATA else b"\xff" * 4
    return name, bytes(content)


def one_entry(rng, index):
    victim = rng.choice([key.decode() for key, _ in read_table(index) if key])
    lie = lies(rng)
    return lambda name, said: lie(said) if name == victim else said


def odd_table(rng, index):
    """Tables whose blocks have right checksums and do not fit together."""
    entries = list(read_table(index))
    half = len(entries) // 2
    first, second = block(entries[:half]), block(entries[half:])
    return rng.choice(
        [
            lambda: table(first, second, handles=lambda true, end: [true[0]] * 50),  # one block again and again
            lambda: table(first, second, handles=lambda true, end: true[::-1]),
            lambda: table(first, second, handles=lambda true, end: [(end, 9), *true]),  # the index itself
            lambda: table(first, second, handles=lambda true, end: [true[0], (true[1][0] - 3, true[1][1])]),
            lambda: table(first, second, handles=lambda true, end: [(0, 1 << 62)]),
            lambda: table(second, first),
            lambda: table(block([*entries[:half], *entries[:half]])),
            lambda: table(block(entries, restarts=[0xFFFFFFFF] * 3)[:-9] + b"\xff" * 9),
            lambda: table(sealed(b"\xff" * rng.randrange(3, 40))),
            lambda: table(sealed(first[:-5], compression=b"\1"), second),
            lambda: table(sealed(b"\x05\x05\x00hello" + b"\0\0\0\0\1\0\0\0")),  # shares what is not there
            lambda: table(block([(b"x" * 100_000, b"")])),
            lambda: table(block(entries[1:])),  # no header
            lambda: table(block([(b"", b"\x08\xff\xff\xff\x7f"), *entries[1:]])),
            lambda: table(block([(b"", b"\x08\x01\x10\x01"), *entries[1:]])),  # big-endian
            lambda: table(),
        ]
    )()


@pytest.mark.parametrize("cases", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_damage_is_said_in_one_line_or_changes_nothing(tmp_path, tiny_dir, cases):
    folder = shutil.copytree(tiny_dir, tmp_path / "model")
    hparams = open_model_dir(folder).hparams
    files = {name: (folder / name).read_bytes() for name in (INDEX, DATA)}
    expected = dict(flatten(tiny.read_model(folder)))
    rng = random.Random(1)
    same = 0
    for case in range(cases):
        name, content = damage(rng, files)
        (folder / name).write_bytes(content)
        tracemalloc.start()
        try:
            found = dict(flatten(tiny.read(folder / "model.ckpt", hparams)))
        except GPT2Error as error:
            assert "\n" not in str(error) and "model.ckpt" in str(error), (case, str(error))
        else:
            same += 1
            assert content == files[name] or name == INDEX, case  # such as the unused bytes of its footer
            for weight, value in expected.items():
                np.testing.assert_array_equal(found[weight], value, err_msg=f"case {case}")
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < MEMORY, case
        (folder / name).write_bytes(files[name])
    assert same < cases / 10


def test_every_bit_of_a_weight_counts(tmp_path, tiny_dir):
    """The first and the last bit of each variable."""
    folder = shutil.copytree(tiny_dir, tmp_path / "model")
    hparams = open_model_dir(folder).hparams
    data = (folder / DATA).read_bytes()
    for name, entry in checkpoint.Checkpoint(folder / "model.ckpt").entries.items():
        for at, bit in ((entry.offset, 1), (entry.offset + entry.size - 1, 128)):
            flipped = bytearray(data)
            flipped[at] ^= bit
            (folder / DATA).write_bytes(flipped)
            with pytest.raises(GPT2Error, match=f"the checksum of {name} does not match; delete it and fetch it"):
                tiny.read(folder / "model.ckpt", hparams)


def test_what_cannot_be_read_is_not_called_damaged(tmp_path, tiny_dir, monkeypatch):
    folder = shutil.copytree(tiny_dir, tmp_path / "model")
    hparams = open_model_dir(folder).hparams
    for name in (INDEX, DATA):
        (folder / name).rename(folder / "away")
        (folder / name).mkdir()  # root may read everything but this
        with pytest.raises(GPT2Error, match=f"{name} cannot be read: Is a directory$"):
            tiny.read(folder / "model.ckpt", hparams)
        (folder / name).rmdir()
        (folder / "away").rename(folder / name)
    monkeypatch.setattr(checkpoint.np, "empty", no_memory)
    with pytest.raises(MemoryError):
        tiny.read(folder / "model.ckpt", hparams)


def no_memory(*_, **__):
    raise MemoryError


def test_sizes_of_another_model_are_refused_before_anything_is_allocated(tiny_dir):
    """Thousands of layers, and an embedding of a hundred gigabytes."""
    hparams = open_model_dir(tiny_dir).hparams
    for change, said in (
        ({"n_layer": 9999}, "holds 2 layers, but its hparams.json says n_layer 9999"),
        ({"n_vocab": 10**9}, "model/wte has the shape"),
    ):
        with pytest.raises(GPT2Error, match=said):
            checkpoint.read_weights(tiny_dir / "model.ckpt", type(hparams)(**{**vars(hparams), **change}))


@pytest.mark.parametrize("n", [0, 1, 127, 128, 300, (1 << 63) - 1])
def test_numbers(n):
    assert read_varint(b"x" + number(n), 1) == (n, 1 + len(number(n)))


@pytest.mark.parametrize("data, said", [(b"", "cut off"), (b"\x80", "cut off"), (b"\xff" * 20, "does not end")])
def test_numbers_that_are_none(data, said):
    with pytest.raises(MalformedFileError, match=said):
        read_varint(data, 0)
