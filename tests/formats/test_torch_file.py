"""PyTorch's files without PyTorch: what they hold, and that they can hold nothing that is run or takes the memory."""

import os
import pickle
import struct
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
from torch_files import (
    Called,
    Name,
    Part,
    Persistent,
    Raw,
    bfloat16,
    code,
    dumps,
    state_dict,
    stream,
    write_stream,
    write_zip,
    write_zip_of,
)

from gpt2.errors import DamagedFileError, GPT2Error
from gpt2.formats import stored_tensor
from gpt2.formats.pytorch import pickle_interpreter, torch_file

NUMBERS = np.arange(12, dtype="<f4").reshape(3, 4) / 3 - 1
MEMORY = 100_000_000  # bytes; what the largest pickle that is read may take
FORMS = {"zip": write_zip, "stream": write_stream}


def whole(found):
    """All of a stored_tensor, of its shape."""
    return np.concatenate([piece.reshape(-1) for piece in found.pieces()] or [np.empty(0)]).reshape(found.shape)


@pytest.fixture(params=FORMS)
def write(request, tmp_path):
    """Writes a file in one of the two forms and returns its path."""

    def written(value, storages):
        FORMS[request.param](tmp_path / "model.pt", value, storages)
        return tmp_path / "model.pt"

    return written


def test_containers_and_tensors(write):
    arrays = {
        "a": NUMBERS,
        "vector": NUMBERS[0],
        "scalar": np.float32(2.5).reshape(()),
        "none": np.empty((0, 4), "<f4"),
    }
    parts, storages = state_dict(arrays)
    value = {
        "weights": parts,
        "step": 7,
        "lr": 1e-3,
        "big": 1 << 60,
        "names": ["ä", ("x", None, True)],
        b"k": b"\0\xff",
    }
    found = torch_file.read(write(value, storages))
    assert {key: item for key, item in found.items() if key != "weights"} == {
        key: item for key, item in value.items() if key != "weights"
    }
    for name, array in arrays.items():
        assert (found["weights"][name].shape, found["weights"][name].dtype) == (array.shape, "float32")
        np.testing.assert_array_equal(whole(found["weights"][name]), array)


@pytest.mark.parametrize("stored", [NUMBERS.astype("<f8"), NUMBERS, NUMBERS.astype("<f2"), bfloat16(NUMBERS)])
def test_types_of_numbers(write, stored):
    found = torch_file.read(write(*state_dict({"w": stored})))["w"]
    expected = (stored.astype("<u4") << 16).view("<f4") if stored.dtype == "<u2" else stored.astype("f4")
    assert found.dtype == ("bfloat16" if stored.dtype == "<u2" else stored.dtype.name)
    assert all(piece.dtype == np.float32 for piece in found.pieces())
    np.testing.assert_array_equal(whole(found), expected)


def test_numbers_that_are_no_weights_are_there_but_not_read(write):
    path = write(*state_dict({"bias": np.tri(3, dtype=bool), "n": np.arange(2)}))
    found = torch_file.read(path)
    assert (found["bias"].dtype, found["bias"].shape, found["n"].dtype) == ("bool", (3, 3), "int64")
    with pytest.raises(GPT2Error, match="model.pt: storage '0' is bool, and weights are floating-point"):
        next(found["bias"].pieces())


def test_views_of_one_storage(write, monkeypatch):
    monkeypatch.setattr(stored_tensor, "PIECE_BYTES", 16)
    parts = {
        "all": Part("0", "Float", 12, 0, (3, 4), (4, 1)),
        "transposed": Part("0", "Float", 12, 0, (4, 3), (1, 4)),
        "row": Part("0", "Float", 12, 4, (4,), (1,)),
        "column": Part("0", "Float", 12, 1, (3,), (4,)),
        "corner": Part("0", "Float", 12, 5, (2, 2), (4, 1)),
        "same": Part("0", "Float", 12, 3, (2, 3), (0, 0)),
    }
    found = torch_file.read(write(parts, {"0": NUMBERS.ravel()}))
    expected = {"all": NUMBERS, "transposed": NUMBERS.T, "row": NUMBERS[1], "column": NUMBERS[:, 1]}
    expected |= {"corner": NUMBERS[1:, 1:3], "same": np.full((2, 3), NUMBERS[0, 3])}
    for name, array in expected.items():
        np.testing.assert_array_equal(whole(found[name]), array, err_msg=name)
    assert len(list(found["all"].pieces())) == 3  # a row at a time


def test_big_endian_numbers(tmp_path):
    parts, _ = state_dict({"w": NUMBERS})
    write_zip(tmp_path / "x.pt", parts, {"0": NUMBERS.astype(">f4")}, order="big")
    np.testing.assert_array_equal(whole(torch_file.read(tmp_path / "x.pt")["w"]), NUMBERS)


@pytest.mark.parametrize("name, order", [("model", None), ("pytorch_model", "little"), ("archive", "little")])
def test_names_of_records_vary(tmp_path, name, order):
    parts, storages = state_dict({"w": NUMBERS})
    write_zip(tmp_path / "x.pt", parts, storages, name, order)
    np.testing.assert_array_equal(whole(torch_file.read(tmp_path / "x.pt")["w"]), NUMBERS)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_protocols(tmp_path, protocol):
    """From 4 on names are taken from the stack, instructions stand in frames, and what is remembered has no number."""
    described = dumps(state_dict({"w": NUMBERS})[0])[2:]
    if protocol >= 4:
        for module, name in (("torch._utils", "_rebuild_tensor_v2"), ("torch", "FloatStorage")):
            by_stack = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() + b"\x94" for text in (module, name))
            described = described.replace(f"c{module}\n{name}\n".encode(), by_stack + b"\x93\x94")
        described = b"\x95" + struct.pack("<Q", len(described)) + described
    write_zip_of(tmp_path / "x.pt", bytes([0x80, protocol]) + described, {"0": NUMBERS})
    np.testing.assert_array_equal(whole(torch_file.read(tmp_path / "x.pt")["w"]), NUMBERS)


def test_parameters_sizes_types_devices_and_what_a_dictionary_has_besides(write):
    parts, storages = state_dict({"w": NUMBERS})
    hooks = Called("collections OrderedDict")
    value = {
        "parameter": Called("torch._utils _rebuild_parameter", (parts["w"], True, hooks)),
        "old": Called("torch._utils _rebuild_tensor", (Persistent(STORAGE), 0, (12,), (1,))),
        "size": Called("torch Size", ((3, 4),)),
        "dtype": Name("torch bfloat16"),
        "device": Called("torch device", ("cuda", 0)),
        "bytes": Called("_codecs encode", ("\xff\0", "latin1")),
        "state": Raw(code(hooks) + code({"_metadata": {"": 1}}) + b"b"),
    }
    found = torch_file.read(write(value, storages))
    np.testing.assert_array_equal(whole(found.pop("parameter")), NUMBERS)
    np.testing.assert_array_equal(whole(found.pop("old")), NUMBERS.ravel())
    assert found == {"size": (3, 4), "dtype": "bfloat16", "device": "cuda", "bytes": b"\xff\0", "state": {}}


STORAGE = ("storage", Name("torch FloatStorage"), "0", "cpu", 12)


def calls(name, *arguments):
    return code(Called(name, arguments))


# What such files have been found to hold, and other ways to the same; each is given a shell command.
ATTACKS = {
    "posix.system": lambda c: calls("posix system", c),
    "nt.system": lambda c: calls("nt system", c),
    "os.system": lambda c: calls("os system", c),
    "subprocess.Popen": lambda c: calls("subprocess Popen", ["sh", "-c", c]),
    "builtins.eval": lambda c: calls("builtins eval", f"__import__('os').system({c!r})"),
    "builtins.exec": lambda c: calls("builtins exec", f"import os; os.system({c!r})"),
    "__builtin__.eval": lambda c: calls("__builtin__ eval", f"__import__('os').system({c!r})"),
    "builtins.getattr": lambda c: calls("builtins getattr", Called("builtins __import__", ("os",)), "system"),
    "builtins.__import__": lambda c: calls("builtins __import__", "this"),
    "functools.partial": lambda c: calls("functools partial", Name("os system"), c),
    "runpy._run_code": lambda c: calls("runpy _run_code", c),
    "webbrowser.open": lambda c: calls("webbrowser open", c),
    "torch.load": lambda c: calls("torch load", c),
    "torch.hub.load": lambda c: calls("torch.hub load", c),
    "torch.storage._load_from_bytes": lambda c: calls("torch.storage _load_from_bytes", b"x"),
    "torch._utils._rebuild_tensor_v3": lambda c: calls("torch._utils _rebuild_tensor_v3"),
    "numpy.core.multiarray._reconstruct": lambda c: calls(
        "numpy.core.multiarray _reconstruct", Name("numpy ndarray"), (0,), b"b"
    ),
    "numpy.load": lambda c: calls("numpy load", c),
    "copyreg._reconstructor": lambda c: calls("copyreg _reconstructor", Name("os _wrap_close"), Name("x y"), None),
    "copyreg.add_extension": lambda c: calls("copyreg add_extension", "os", "system", 240),
    "collections.Counter": lambda c: calls("collections Counter"),
    "collections.OrderedDict.fromkeys": lambda c: calls("collections OrderedDict.fromkeys", ("x",)),
    "_codecs.lookup": lambda c: calls("_codecs lookup", "x"),
    "gpt2.files.read_text": lambda c: calls("gpt2.files read_text", c),
    "transformers.models.gpt2.modeling_gpt2.GPT2LMHeadModel": lambda c: (
        b"ctransformers.models.gpt2.modeling_gpt2\nGPT2LMHeadModel\n)\x81}b"
    ),
    "the instruction EXT1": lambda c: b"\x82\xf0",
    "the instruction EXT2": lambda c: b"\x83\xf0\xf0",
    "the instruction EXT4": lambda c: b"\x84\xf0\xf0\xf0\xf0",
    "the instruction PERSID": lambda c: b"Pos.system\n",
    "the instruction NEWOBJ": lambda c: b"ccollections\nOrderedDict\n)\x81",
    "the instruction NEWOBJ_EX": lambda c: b"ccollections\nOrderedDict\n)}\x92",
    "the instruction OBJ": lambda c: b"(ccollections\nOrderedDict\no",
    "the instruction INST": lambda c: b"(icollections\nOrderedDict\n",
    "the instruction UNICODE": lambda c: b"Vtext\n",
    "the instruction NEXT_BUFFER": lambda c: b"\x97",
}
ATTACKS["posix.system "] = lambda c: b"(" + code(c) + b"iposix\nsystem\n"  # INST: name and call in one
ATTACKS["os.system "] = lambda c: b"\x8c\x02os\x8c\x06system\x93" + code((c,)) + b"R"  # by the stack
ATTACKS["os.system  "] = lambda c: calls("collections OrderedDict", Called("os system", (c,)))  # among arguments
ATTACKS["os.system   "] = lambda c: code({"w": [({"x": Called("os system", (c,))},)]})  # deep inside


@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_no_tensor_is_refused_by_name_and_nothing_is_called(write, tmp_path, name):
    path = write({"weights": Raw(ATTACKS[name](f"touch {tmp_path}/canary"))}, {})
    loaded = set(sys.modules)
    with pytest.raises(GPT2Error, match=rf"model.pt asks for {name.strip()}; of PyTorch's files only tensors and"):
        torch_file.read(path)
    assert os.listdir(tmp_path) == ["model.pt"]
    assert not {"this", "webbrowser", "runpy", "torch", "transformers"} & (set(sys.modules) - loaded)


def test_the_header_of_a_stream_is_read_with_the_same_care(tmp_path):
    (tmp_path / "x.pt").write_bytes(
        stream(b"", {}).replace(b"X\x10\0\0\0protocol_version", b"cos\nsystem\nX\1\0\0\0x\x85R")
    )
    with pytest.raises(GPT2Error, match="asks for os.system"):
        torch_file.read(tmp_path / "x.pt")


def test_names_that_would_break_the_message(write):
    for name, said in (("os\r sys", r"asks for 'os\\r.sys'"), ("o" * 900 + " x", "asks for o{100}\\.\\.\\.;")):
        with pytest.raises(GPT2Error, match=said):
            torch_file.read(write(Name(name), {}))


BILLION = 10**9
WRONG = {
    "a storage of a billion numbers": (Part("0", "Float", BILLION, 0, (BILLION,), (1,)), "should have"),
    "a tensor beyond its storage": (Part("0", "Float", 12, 0, (3, 5), (5, 1)), "larger than its 12 numbers"),
    "an offset beyond it": (Part("0", "Float", 12, 9, (4,), (1,)), "larger than its 12"),
    "a stride beyond it": (Part("0", "Float", 12, 0, (2,), (12,)), "larger than its 12"),
    "a billion times the same number": (Part("0", "Float", 12, 0, (BILLION,), (0,)), "larger than its 12"),
    "numbers beyond any": (Part("0", "Float", 12, 0, (1 << 62, 1 << 62), (0, 0)), "larger than its 12"),
    "a stride below 0": (Part("0", "Float", 12, 0, (2,), (-1,)), "a shape that cannot be"),
    "an offset below 0": (Part("0", "Float", 12, -1, (2,), (1,)), "a shape that cannot be"),
    "a size below 0": (Part("0", "Float", 12, 0, (-2, -3), (3, 1)), "a shape that cannot be"),
    "fewer strides": (Part("0", "Float", 12, 0, (3, 4), (4,)), "a shape that cannot be"),
    "a thousand dimensions": (Part("0", "Float", 12, 0, (1,) * 1000, (1,) * 1000), "a shape that cannot be"),
    "a size that is no number": (Part("0", "Float", 12, 0, ("3",), (1,)), "is made of what is no storage"),
    "another type of numbers": (Part("0", "Double", 12, 0, (12,), (1,)), "should have|is cut off|before the end"),
    "no such storage": (Part("1", "Float", 12, 0, (12,), (1,)), "is missing|do not belong together"),
    "a storage below 0": (Part("0", "Float", -12, 0, (0,), (1,)), "no storage of numbers"),
    "two sizes of a storage": (
        [Part("0", "Float", n, 0, (1,), (1,)) for n in (12, 11)],
        "two things about storage '0'",
    ),
    "a part of a storage": (Persistent((*STORAGE, ("0", 0, 4))), "no storage of numbers"),
    "no class of storages": (Persistent(("storage", "Float", "0", "cpu", 12)), "no storage of numbers"),
    "a module": (Persistent(("module", Name("torch Size"), "x.py", "import os")), "no storage of numbers"),
    "a storage of containers": (Called("torch._utils _rebuild_tensor_v2", ([], 0, (1,), (1,))), "no storage"),
    "a parameter of text": (Called("torch._utils _rebuild_parameter", ("x", True)), "made of what is no tensor"),
    "a filled dictionary": (Called("collections OrderedDict", ([("a", 1)],)), "a dictionary is made of something"),
    "a call of text": (Raw(code("x") + b")R"), "calls what is no function"),
    "a call of a type": (Raw(code(Name("torch float32")) + b")R"), "calls what is no function"),
    "a call with a list": (Raw(code(Name("torch Size")) + b"]R"), "calls what is no function"),
    "attributes of a list": (Raw(b"]}b"), "attributes to what has none"),
    "attributes of a tensor": (Raw(code(Part("0", "Float", 12, 0, (12,), (1,))) + b"}b"), "attributes to what has"),
    "items of a tuple": (Raw(b"(" + code(1) + code(2) + b"tK\1K\2s"), "items of what is no dictionary"),
    "half an item": (Raw(b"}(K\1u"), "items of what is no dictionary"),
    "appended to a dictionary": (Raw(b"}K\1a"), "appends to what is no list"),
    "a list as a key": (Raw(b"}]K\1s"), "a key that is no text or number, but list"),
    "a large number as a key": (Raw(b"}" + code(1 << 100) + b"K\1s"), "a key that is no text or number, but int"),
    "a number of a kilobyte": (Raw(code(1 << 2000)), "a number in it is far too large"),
    "a text of a billion bytes": (Raw(b"X" + struct.pack("<I", BILLION)), "far too large for the description"),
    "a text of 2^62 bytes": (Raw(b"\x8d" + struct.pack("<Q", 1 << 62)), "far too large for the description"),
    "bytes of 2^62": (Raw(b"\x8e" + struct.pack("<Q", 1 << 62)), "far too large for the description"),
    "a number of 2^31 bytes": (Raw(b"\x8b" + struct.pack("<i", (1 << 31) - 1)), "asks for the instruction LONG4"),
    "a text that is none": (Raw(b"X\2\0\0\0\xff\xff"), "a text in it is not UTF-8"),
    "a name that does not end": (Raw(b"c" + b"x" * 2000), "a name in it does not end"),
    "a name that is a number": (Raw(code(1) + code("x") + b"\x93"), "asks for what is no name"),
    "nothing to take": (Raw(b"a"), "takes more than it has built"),
    "no mark": (Raw(b"t" * 9), "takes more than it has built"),
    "what is not remembered": (Raw(b"h\xff"), "refers to what it has not built"),
    "no instruction": (Raw(b"\xff"), "ff is no instruction of a pickle"),
    "a protocol to come": (Raw(b"\x80\x09"), "of the protocol 9, and 5 is the newest"),
    "more instructions than any model": (Raw(b"N" * ((1 << 19) + 1)), "more than 524288 instructions"),
}


@pytest.mark.parametrize("name", WRONG)
def test_claims_that_cannot_be_true(write, name):
    value, said = WRONG[name]
    path = write({"w": value}, {"0": NUMBERS.ravel()})
    tracemalloc.start()
    try:
        with pytest.raises(GPT2Error, match=said) as raised:
            torch_file.read(path)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    assert "\n" not in str(raised.value) and "model.pt" in str(raised.value)


# 2^15 calls that each would look at or copy what one piece of the pickle holds.
MANY = 1 << 15
HELD = {
    "text": (code("x" * 100_000), code(Name("_codecs encode")), code("latin1")),
    "numbers": (b"(" + b"K\1" * 50_000 + b"t", code(Name("torch Size")), b""),
}


@pytest.mark.parametrize("name", HELD)
def test_one_thing_that_is_given_to_many_calls(write, name):
    held, function, besides = HELD[name]
    again = b"h\1(h\0" + (b"h\2" if besides else b"") + b"tR"
    kept = held + b"q\0" + function + b"q\1" + (besides + b"q\2" if besides else b"")
    value = Raw(b"](" + kept + again * MANY + b"e")
    tracemalloc.start()
    try:
        with pytest.raises(DamagedFileError, match="far too large for the description of a model"):
            torch_file.read(write({"w": value}, {}))
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


def test_lists_that_hold_one_another_twice_are_no_larger_than_their_pickle(write):
    """A list that holds twice the one before, fifty times: 2^50 entries for who walks through them."""
    value = Raw(b"](]q\0" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(50)) + b"e")
    found = torch_file.read(write({"w": value}, {}))["w"][-1]
    for _ in range(50):
        found = found[0]
    assert found == []


def test_depth(write):
    """Deeper than Python's recursion goes, and taken apart again without it."""
    torch_file.read(write({"w": Raw(b"]" * 100_000 + b"a" * 99_999)}, {}))
    torch_file.read(write({"w": Raw(b")" + b"\x85" * 100_000)}, {}))


def test_a_pickle_of_many_bytes_is_refused(tmp_path, monkeypatch):
    write_zip(tmp_path / "x.pt", {"w": "x" * 1000}, {})
    monkeypatch.setattr(pickle_interpreter, "LARGEST", 999)
    with pytest.raises(DamagedFileError, match="archive/data.pkl is far too large for the description of a model"):
        torch_file.read(tmp_path / "x.pt")


def test_compressed_records_are_refused(tmp_path):
    """A zip bomb: a gigabyte of zeros would be a megabyte."""
    parts, storages = state_dict({"w": np.zeros(100_000, "<f4")})
    write_zip_of(tmp_path / "x.pt", dumps(parts), storages, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(DamagedFileError, match="'archive/data.pkl' is compressed or encrypted"):
        torch_file.read(tmp_path / "x.pt")


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "no file that torch.save wrote"),
        (b"PK\x03\x04", "the end of its list of records is missing"),
        (b"PK\x03\x04" + b"PK\x05\x06" + b"\xff" * 18, "list of records is not where it should be"),
        (pickle.dumps({"w": 1}), "no file that torch.save wrote"),
        (b"\x93NUMPY" + b"\0" * 100, "no file that torch.save wrote"),
        (stream(b"", {})[:20], "it is cut off"),
        (stream(dumps({}), {}).replace(b"M\xe9\x03.", b"M\xea\x03.", 1), "does not begin as torch.save's files do"),
    ],
)
def test_other_files(tmp_path, content, said):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(DamagedFileError, match=f"x.pt is damaged: .*{said}"):
        torch_file.read(tmp_path / "x.pt")


def test_a_zip_file_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as file:
        file.writestr("data.pkl", b"")
    with pytest.raises(DamagedFileError, match="none that torch.save wrote: it should have one data.pkl"):
        torch_file.read(tmp_path / "x.pt")


@pytest.mark.parametrize("form", FORMS)
def test_every_shorter_file_is_damaged(tmp_path, form):
    path = tmp_path / "x.pt"
    FORMS[form](path, *state_dict({"w": NUMBERS, "b": NUMBERS[0]}))
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(DamagedFileError):
            list(torch_file.read(path)["w"].pieces())


def test_a_changed_weight_of_a_zip_file_is_noticed(tmp_path):
    path = tmp_path / "x.pt"
    write_zip(path, *state_dict({"w": NUMBERS, "t": NUMBERS.T}))
    content = path.read_bytes()
    at = content.index(NUMBERS.tobytes())
    path.write_bytes(content[: at + 5] + b"\x77" + content[at + 6 :])
    found = torch_file.read(path)
    with pytest.raises(
        DamagedFileError, match="storage '0' has another checksum than it should; delete it and fetch it again"
    ):
        list(found["w"].pieces())
    np.testing.assert_array_equal(whole(found["t"]), NUMBERS.T)


def test_a_file_without_checksums(tmp_path):
    """As after torch.serialization.set_crc32_options(False), which writes 0."""
    path = tmp_path / "x.pt"
    write_zip(path, *state_dict({"w": NUMBERS}))
    content = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        for record in file.infolist():
            content = content.replace(struct.pack("<I", record.CRC), bytes(4))
    path.write_bytes(content)
    np.testing.assert_array_equal(whole(torch_file.read(path)["w"]), NUMBERS)


def test_a_file_that_becomes_shorter_while_it_is_read(write):
    path = write(*state_dict({"w": NUMBERS}))
    found = torch_file.read(path)["w"]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DamagedFileError, match="it ends before the end of storage '0'"):
        list(found.pieces())
