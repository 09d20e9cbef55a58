"""Damages checkpoints in thousands of ways: each error is one line, memory is bounded, no changed weight is missed."""

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
MAX_MEMORY_BYTES = 8_000_000  # the model has 140,000


def varint(n):
    """Encode a number as a varint."""
    n &= (1 << 64) - 1
    groups = []
    while True:
        groups.append(n & 127 | (128 if n > 127 else 0))
        n >>= 7
        if not n:
            return bytes(groups)


def block(entries, restarts=(0,)):
    """Return a block of the (key, value) pairs with a correct checksum; no key shares a prefix with the one before."""
    content = b"".join(b"\0" + varint(len(key)) + varint(len(value)) + key + value for key, value in entries)
    content += b"".join(offset.to_bytes(4, "little") for offset in restarts) + len(restarts).to_bytes(4, "little")
    return seal(content)


def seal(content, compression=b"\0"):
    return content + compression + mask_crc(google_crc32c.value(content + compression)).to_bytes(4, "little")


def table(*blocks, handles=None):
    """Return a table of these data blocks.

    handles: called with the true positions and the end of the blocks, returns the positions to put into the index.
    """
    data = b""
    positions = []
    for content in blocks:
        positions.append((len(data), len(content) - 5))
        data += content
    if handles:
        positions = handles(positions, len(data))
    encoded = [varint(offset) + varint(size) for offset, size in positions]
    index = block([(bytes([i + 1]), handle) for i, handle in enumerate(encoded)])
    footer = varint(0) + varint(0) + varint(len(data)) + varint(len(index) - 5)
    return data + index + footer.ljust(40, b"\0") + TABLE_MAGIC


def encode_entry(**changes):
    """Encode a BundleEntryProto with the fields _1 type, _2 shape, _3 shard, _4 offset, _5 size, _6 checksum."""
    encoded = b""
    for name, value in changes.items():
        field = int(name[1:])
        if field == 2:
            dimensions = (b"\x08" + varint(n) for n in value)
            shape = b"".join(b"\x12" + varint(len(dimension)) + dimension for dimension in dimensions)
            encoded += b"\x12" + varint(len(shape)) + shape
        elif field == 6:
            encoded += b"\x35" + value.to_bytes(4, "little")
        elif value:
            encoded += varint(field << 3) + varint(value)
    return encoded


def rebuild(index, change):
    """Return the index with each entry's fields passed through `change(name, fields)` and correct checksums."""
    entries = []
    for key, value in read_table(index):
        fields = {}
        for field, content in read_fields(value):
            fields[f"_{field}"] = shape_of(content) if key and field == 2 else content
        if key:
            value = encode_entry(**change(key.decode(), fields))
        entries.append((key, value))
    return table(block(entries))


def shape_of(content):
    return [dict(read_fields(dimension)).get(1, 0) for _, dimension in read_fields(content)]


def random_lie(rng):
    """Return a function that makes an entry's fields false in a way that no checksum reveals."""
    huge = rng.choice([1 << 31, 1 << 40, 1 << 62, (1 << 64) - 1])
    return rng.choice(
        [
            lambda fields: {**fields, "_2": [huge, *fields["_2"][1:]]},
            lambda fields: {**fields, "_2": [n * 2 for n in fields["_2"]]},
            lambda fields: {**fields, "_2": [huge] * 30},
            lambda fields: {**fields, "_2": [1 << 39] * 2, "_5": 1 << 62},
            lambda fields: {**fields, "_5": huge},
            lambda fields: {**fields, "_5": fields["_5"] // 2},
            lambda fields: {**fields, "_4": huge},
            lambda fields: {**fields, "_4": fields.get("_4", 0) + 4},
            lambda fields: {**fields, "_4": fields.get("_4", 0) // 2 + 8},
            lambda fields: {**fields, "_3": huge},
            lambda fields: {**fields, "_3": 1},
            lambda fields: {**fields, "_1": rng.choice([0, 2, 3, 7, 19, 23, 200])},
            lambda fields: {**fields, "_6": fields["_6"] ^ 1 << rng.randrange(32)},
            lambda fields: {**fields, "_7": 1},
        ]
    )


def damage(rng, files):
    """Change one of the two files, and return its name and its new content."""
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
        name, content = INDEX, rebuild(index, change_one_entry(rng, index))
    elif kind == 4:
        name, content = INDEX, odd_table(rng, index)
    else:
        start = rng.randrange(0, len(content) - 8, 4)
        content[start : start + 4] = data[start + 4 : start + 8] if name == DATA else b"\xff" * 4
    return name, bytes(content)


def change_one_entry(rng, index):
    victim = rng.choice([key.decode() for key, _ in read_table(index) if key])
    lie = random_lie(rng)
    return lambda name, fields: lie(fields) if name == victim else fields


def odd_table(rng, index):
    """Return a table whose blocks have correct checksums but do not fit together."""
    entries = list(read_table(index))
    half = len(entries) // 2
    first, second = block(entries[:half]), block(entries[half:])
    return rng.choice(
        [
            lambda: table(first, second, handles=lambda real, end: [real[0]] * 50),  # the same block many times
            lambda: table(first, second, handles=lambda real, end: real[::-1]),
            lambda: table(first, second, handles=lambda real, end: [(end, 9), *real]),  # the index itself
            lambda: table(first, second, handles=lambda real, end: [real[0], (real[1][0] - 3, real[1][1])]),
            lambda: table(first, second, handles=lambda real, end: [(0, 1 << 62)]),
            lambda: table(second, first),
            lambda: table(block([*entries[:half], *entries[:half]])),
            lambda: table(block(entries, restarts=[0xFFFFFFFF] * 3)[:-9] + b"\xff" * 9),
            lambda: table(seal(b"\xff" * rng.randrange(3, 40))),
            lambda: table(seal(first[:-5], compression=b"\1"), second),
            lambda: table(seal(b"\x05\x05\x00hello" + b"\0\0\0\0\1\0\0\0")),  # shares a prefix that does not exist
            lambda: table(block([(b"x" * 100_000, b"")])),
            lambda: table(block(entries[1:])),  # no header
            lambda: table(block([(b"", b"\x08\xff\xff\xff\x7f"), *entries[1:]])),
            lambda: table(block([(b"", b"\x08\x01\x10\x01"), *entries[1:]])),  # big-endian
            lambda: table(),
        ]
    )()


@pytest.mark.parametrize("cases", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_damage_is_reported_in_one_line_or_changes_nothing(tmp_path, tiny_dir, cases):
    folder = shutil.copytree(tiny_dir, tmp_path / "model")
    hparams = open_model_dir(folder).hparams
    files = {name: (folder / name).read_bytes() for name in (INDEX, DATA)}
    expected = dict(flatten(tiny.read_model(folder)))
    rng = random.Random(1)
    n_unchanged = 0
    for case in range(cases):
        name, content = damage(rng, files)
        (folder / name).write_bytes(content)
        tracemalloc.start()
        try:
            weights = dict(flatten(tiny.read(folder / "model.ckpt", hparams)))
        except GPT2Error as error:
            assert "\n" not in str(error) and "model.ckpt" in str(error), (case, str(error))
        else:
            n_unchanged += 1
            # The index has bytes that nobody reads, such as the padding of its footer.
            assert content == files[name] or name == INDEX, case
            for weight_name, value in expected.items():
                np.testing.assert_array_equal(weights[weight_name], value, err_msg=f"case {case}")
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < MAX_MEMORY_BYTES, case
        (folder / name).write_bytes(files[name])
    assert n_unchanged < cases / 10


def test_a_flipped_bit_is_detected_in_every_variable(tmp_path, tiny_dir):
    """Flips the first and the last bit of each variable."""
    folder = shutil.copytree(tiny_dir, tmp_path / "model")
    hparams = open_model_dir(folder).hparams
    data = (folder / DATA).read_bytes()
    for name, entry in checkpoint.Checkpoint(folder / "model.ckpt").entries.items():
        for offset, bit in ((entry.offset, 1), (entry.offset + entry.size - 1, 128)):
            flipped = bytearray(data)
            flipped[offset] ^= bit
            (folder / DATA).write_bytes(flipped)
            with pytest.raises(GPT2Error, match=f"the checksum of {name} does not match; delete it and fetch it"):
                tiny.read(folder / "model.ckpt", hparams)


def test_an_unreadable_file_is_not_called_damaged(tmp_path, tiny_dir, monkeypatch):
    folder = shutil.copytree(tiny_dir, tmp_path / "model")
    hparams = open_model_dir(folder).hparams
    for name in (INDEX, DATA):
        (folder / name).rename(folder / "away")
        (folder / name).mkdir()  # root can read any file, but not a folder
        with pytest.raises(GPT2Error, match=f"{name} cannot be read: Is a directory$"):
            tiny.read(folder / "model.ckpt", hparams)
        (folder / name).rmdir()
        (folder / "away").rename(folder / name)
    monkeypatch.setattr(checkpoint.np, "empty", no_memory)
    with pytest.raises(MemoryError):
        tiny.read(folder / "model.ckpt", hparams)


def no_memory(*_, **__):
    raise MemoryError


def test_sizes_of_another_model_are_rejected_before_anything_is_allocated(tiny_dir):
    """Asks for thousands of layers, and for an embedding of a hundred gigabytes."""
    hparams = open_model_dir(tiny_dir).hparams
    for change, message in (
        ({"n_layer": 9999}, "holds 2 layers, but its hparams.json has n_layer 9999"),
        ({"n_vocab": 10**9}, "model/wte has the shape"),
    ):
        with pytest.raises(GPT2Error, match=message):
            checkpoint.read_weights(tiny_dir / "model.ckpt", type(hparams)(**{**vars(hparams), **change}))


@pytest.mark.parametrize("n", [0, 1, 127, 128, 300, (1 << 63) - 1])
def test_varints(n):
    assert read_varint(b"x" + varint(n), 1) == (n, 1 + len(varint(n)))


@pytest.mark.parametrize(
    "data, message", [(b"", "cut off"), (b"\x80", "cut off"), (b"\xff" * 20, "longer than 64 bits")]
)
def test_invalid_varints(data, message):
    with pytest.raises(MalformedFileError, match=message):
        read_varint(data, 0)
