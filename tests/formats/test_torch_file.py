"""PyTorch's files without PyTorch: their content is read, and they can neither run code nor exhaust the memory."""

import os
import pickle
import struct
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
from torch_files import (
    Call,
    Name,
    Persistent,
    Raw,
    TensorView,
    bfloat16,
    code,
    dumps,
    state_dict,
    stream,
    write_stream,
    write_zip,
    write_zip_of_pickle,
)

from gpt2.errors import DamagedFileError, GPT2Error
from gpt2.formats import stored_tensor
from gpt2.formats.pytorch import pickle_interpreter, torch_file

NUMBERS = np.arange(12, dtype="<f4").reshape(3, 4) / 3 - 1
MEMORY = 100_000_000  # bytes; the limit for the largest pickle that is accepted
FORMS = {"zip": write_zip, "stream": write_stream}


def whole(tensor):
    """Return all numbers of a stored tensor, in its shape."""
    return np.concatenate([piece.reshape(-1) for piece in tensor.pieces()] or [np.empty(0)]).reshape(tensor.shape)


@pytest.fixture(params=FORMS)
def write(request, tmp_path):
    """Return a function that writes a file in one of the two forms and returns its path."""

    def write_file(value, storages):
        FORMS[request.param](tmp_path / "model.pt", value, storages)
        return tmp_path / "model.pt"

    return write_file


def test_containers_and_tensors(write):
    arrays = {
        "a": NUMBERS,
        "vector": NUMBERS[0],
        "scalar": np.float32(2.5).reshape(()),
        "none": np.empty((0, 4), "<f4"),
    }
    views, storages = state_dict(arrays)
    value = {
        "weights": views,
        "step": 7,
        "lr": 1e-3,
        "big": 1 << 60,
        "names": ["ä", ("x", None, True)],
        b"k": b"\0\xff",
    }
    loaded = torch_file.read(write(value, storages))
    assert {key: item for key, item in loaded.items() if key != "weights"} == {
        key: item for key, item in value.items() if key != "weights"
    }
    for name, array in arrays.items():
        assert (loaded["weights"][name].shape, loaded["weights"][name].dtype) == (array.shape, "float32")
        np.testing.assert_array_equal(whole(loaded["weights"][name]), array)


@pytest.mark.parametrize("stored", [NUMBERS.astype("<f8"), NUMBERS, NUMBERS.astype("<f2"), bfloat16(NUMBERS)])
def test_types_of_numbers(write, stored):
    loaded = torch_file.read(write(*state_dict({"w": stored})))["w"]
    expected = (stored.astype("<u4") << 16).view("<f4") if stored.dtype == "<u2" else stored.astype("f4")
    assert loaded.dtype == ("bfloat16" if stored.dtype == "<u2" else stored.dtype.name)
    assert all(piece.dtype == np.float32 for piece in loaded.pieces())
    np.testing.assert_array_equal(whole(loaded), expected)


def test_integer_tensors_are_listed_but_cannot_be_read(write):
    path = write(*state_dict({"bias": np.tri(3, dtype=bool), "n": np.arange(2)}))
    loaded = torch_file.read(path)
    assert (loaded["bias"].dtype, loaded["bias"].shape, loaded["n"].dtype) == ("bool", (3, 3), "int64")
    with pytest.raises(GPT2Error, match="model.pt: storage '0' is bool, but weights must be floating-point"):
        next(loaded["bias"].pieces())


def test_views_of_one_storage(write, monkeypatch):
    monkeypatch.setattr(stored_tensor, "PIECE_BYTES", 16)
    views = {
        "all": TensorView("0", "Float", 12, 0, (3, 4), (4, 1)),
        "transposed": TensorView("0", "Float", 12, 0, (4, 3), (1, 4)),
        "row": TensorView("0", "Float", 12, 4, (4,), (1,)),
        "column": TensorView("0", "Float", 12, 1, (3,), (4,)),
        "corner": TensorView("0", "Float", 12, 5, (2, 2), (4, 1)),
        "same": TensorView("0", "Float", 12, 3, (2, 3), (0, 0)),
    }
    loaded = torch_file.read(write(views, {"0": NUMBERS.ravel()}))
    expected = {"all": NUMBERS, "transposed": NUMBERS.T, "row": NUMBERS[1], "column": NUMBERS[:, 1]}
    expected |= {"corner": NUMBERS[1:, 1:3], "same": np.full((2, 3), NUMBERS[0, 3])}
    for name, array in expected.items():
        np.testing.assert_array_equal(whole(loaded[name]), array, err_msg=name)
    assert len(list(loaded["all"].pieces())) == 3  # one row per piece


def test_big_endian_numbers(tmp_path):
    views, _ = state_dict({"w": NUMBERS})
    write_zip(tmp_path / "x.pt", views, {"0": NUMBERS.astype(">f4")}, order="big")
    np.testing.assert_array_equal(whole(torch_file.read(tmp_path / "x.pt")["w"]), NUMBERS)


@pytest.mark.parametrize("name, order", [("model", None), ("pytorch_model", "little"), ("archive", "little")])
def test_names_of_records_vary(tmp_path, name, order):
    views, storages = state_dict({"w": NUMBERS})
    write_zip(tmp_path / "x.pt", views, storages, name, order)
    np.testing.assert_array_equal(whole(torch_file.read(tmp_path / "x.pt")["w"]), NUMBERS)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_protocols(tmp_path, protocol):
    """From protocol 4, names come from the stack, instructions are in frames, and memo entries are not numbered."""
    pickled = dumps(state_dict({"w": NUMBERS})[0])[2:]
    if protocol >= 4:
        for module, name in (("torch._utils", "_rebuild_tensor_v2"), ("torch", "FloatStorage")):
            by_stack = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() + b"\x94" for text in (module, name))
            pickled = pickled.replace(f"c{module}\n{name}\n".encode(), by_stack + b"\x93\x94")
        pickled = b"\x95" + struct.pack("<Q", len(pickled)) + pickled
    write_zip_of_pickle(tmp_path / "x.pt", bytes([0x80, protocol]) + pickled, {"0": NUMBERS})
    np.testing.assert_array_equal(whole(torch_file.read(tmp_path / "x.pt")["w"]), NUMBERS)


def test_other_types_that_torch_save_writes(write):
    views, storages = state_dict({"w": NUMBERS})
    hooks = Call("collections OrderedDict")
    value = {
        "parameter": Call("torch._utils _rebuild_parameter", (views["w"], True, hooks)),
        "old": Call("torch._utils _rebuild_tensor", (Persistent(STORAGE), 0, (12,), (1,))),
        "size": Call("torch Size", ((3, 4),)),
        "dtype": Name("torch bfloat16"),
        "device": Call("torch device", ("cuda", 0)),
        "bytes": Call("_codecs encode", ("\xff\0", "latin1")),
        "state": Raw(code(hooks) + code({"_metadata": {"": 1}}) + b"b"),
    }
    loaded = torch_file.read(write(value, storages))
    np.testing.assert_array_equal(whole(loaded.pop("parameter")), NUMBERS)
    np.testing.assert_array_equal(whole(loaded.pop("old")), NUMBERS.ravel())
    assert loaded == {"size": (3, 4), "dtype": "bfloat16", "device": "cuda", "bytes": b"\xff\0", "state": {}}


STORAGE = ("storage", Name("torch FloatStorage"), "0", "cpu", 12)


def calls(name, *arguments):
    return code(Call(name, arguments))


# Attacks that were found in such files, and variants of them; each function gets a shell command.
ATTACKS = {
    "posix.system": lambda command: calls("posix system", command),
    "nt.system": lambda command: calls("nt system", command),
    "os.system": lambda command: calls("os system", command),
    "subprocess.Popen": lambda command: calls("subprocess Popen", ["sh", "-c", command]),
    "builtins.eval": lambda command: calls("builtins eval", f"__import__('os').system({command!r})"),
    "builtins.exec": lambda command: calls("builtins exec", f"import os; os.system({command!r})"),
    "__builtin__.eval": lambda command: calls("__builtin__ eval", f"__import__('os').system({command!r})"),
    "builtins.getattr": lambda command: calls("builtins getattr", Call("builtins __import__", ("os",)), "system"),
    "builtins.__import__": lambda command: calls("builtins __import__", "this"),
    "functools.partial": lambda command: calls("functools partial", Name("os system"), command),
    "runpy._run_code": lambda command: calls("runpy _run_code", command),
    "webbrowser.open": lambda command: calls("webbrowser open", command),
    "torch.load": lambda command: calls("torch load", command),
    "torch.hub.load": lambda command: calls("torch.hub load", command),
    "torch.storage._load_from_bytes": lambda command: calls("torch.storage _load_from_bytes", b"x"),
    "torch._utils._rebuild_tensor_v3": lambda command: calls("torch._utils _rebuild_tensor_v3"),
    "numpy.core.multiarray._reconstruct": lambda command: calls(
        "numpy.core.multiarray _reconstruct", Name("numpy ndarray"), (0,), b"b"
    ),
    "numpy.load": lambda command: calls("numpy load", command),
    "copyreg._reconstructor": lambda command: calls(
        "copyreg _reconstructor", Name("os _wrap_close"), Name("x y"), None
    ),
    "copyreg.add_extension": lambda command: calls("copyreg add_extension", "os", "system", 240),
    "collections.Counter": lambda command: calls("collections Counter"),
    "collections.OrderedDict.fromkeys": lambda command: calls("collections OrderedDict.fromkeys", ("x",)),
    "_codecs.lookup": lambda command: calls("_codecs lookup", "x"),
    "gpt2.files.read_text": lambda command: calls("gpt2.files read_text", command),
    "transformers.models.gpt2.modeling_gpt2.GPT2LMHeadModel": lambda command: (
        b"ctransformers.models.gpt2.modeling_gpt2\nGPT2LMHeadModel\n)\x81}b"
    ),
    "the instruction EXT1": lambda command: b"\x82\xf0",
    "the instruction EXT2": lambda command: b"\x83\xf0\xf0",
    "the instruction EXT4": lambda command: b"\x84\xf0\xf0\xf0\xf0",
    "the instruction PERSID": lambda command: b"Pos.system\n",
    "the instruction NEWOBJ": lambda command: b"ccollections\nOrderedDict\n)\x81",
    "the instruction NEWOBJ_EX": lambda command: b"ccollections\nOrderedDict\n)}\x92",
    "the instruction OBJ": lambda command: b"(ccollections\nOrderedDict\no",
    "the instruction INST": lambda command: b"(icollections\nOrderedDict\n",
    "the instruction UNICODE": lambda command: b"Vtext\n",
    "the instruction NEXT_BUFFER": lambda command: b"\x97",
}
ATTACKS["posix.system "] = lambda command: b"(" + code(command) + b"iposix\nsystem\n"  # INST: look-up and call in one
ATTACKS["os.system "] = lambda command: (
    b"\x8c\x02os\x8c\x06system\x93" + code((command,)) + b"R"
)  # the name comes from the stack
ATTACKS["os.system  "] = lambda command: calls(
    "collections OrderedDict", Call("os system", (command,))
)  # in the arguments of an allowed call
ATTACKS["os.system   "] = lambda command: code({"w": [({"x": Call("os system", (command,))},)]})  # nested in containers


@pytest.mark.parametrize("name", ATTACKS)
def test_other_functions_are_rejected_by_name_and_not_called(write, tmp_path, name):
    path = write({"weights": Raw(ATTACKS[name](f"touch {tmp_path}/canary"))}, {})
    loaded = set(sys.modules)
    with pytest.raises(
        GPT2Error, match=rf"model.pt requests {name.strip()}, which is not allowed: PyTorch files may hold"
    ):
        torch_file.read(path)
    assert os.listdir(tmp_path) == ["model.pt"]
    assert not {"this", "webbrowser", "runpy", "torch", "transformers"} & (set(sys.modules) - loaded)


def test_the_header_of_a_stream_is_checked_in_the_same_way(tmp_path):
    (tmp_path / "x.pt").write_bytes(
        stream(b"", {}).replace(b"X\x10\0\0\0protocol_version", b"cos\nsystem\nX\1\0\0\0x\x85R")
    )
    with pytest.raises(GPT2Error, match="requests os.system"):
        torch_file.read(tmp_path / "x.pt")


def test_odd_names_do_not_break_the_message(write):
    for name, message in (("os\r sys", r"requests 'os\\r.sys'"), ("o" * 900 + " x", "requests o{100}\\.\\.\\.,")):
        with pytest.raises(GPT2Error, match=message):
            torch_file.read(write(Name(name), {}))


BILLION = 10**9
IMPOSSIBLE = {
    "a storage of a billion numbers": (TensorView("0", "Float", BILLION, 0, (BILLION,), (1,)), "should have"),
    "a tensor beyond its storage": (TensorView("0", "Float", 12, 0, (3, 5), (5, 1)), "larger than its 12 numbers"),
    "an offset beyond it": (TensorView("0", "Float", 12, 9, (4,), (1,)), "larger than its 12"),
    "a stride beyond it": (TensorView("0", "Float", 12, 0, (2,), (12,)), "larger than its 12"),
    "a billion times the same number": (TensorView("0", "Float", 12, 0, (BILLION,), (0,)), "larger than its 12"),
    "a size beyond 64 bits": (TensorView("0", "Float", 12, 0, (1 << 62, 1 << 62), (0, 0)), "larger than its 12"),
    "a negative stride": (TensorView("0", "Float", 12, 0, (2,), (-1,)), "an impossible shape"),
    "a negative offset": (TensorView("0", "Float", 12, -1, (2,), (1,)), "an impossible shape"),
    "a negative size": (TensorView("0", "Float", 12, 0, (-2, -3), (3, 1)), "an impossible shape"),
    "fewer strides": (TensorView("0", "Float", 12, 0, (3, 4), (4,)), "an impossible shape"),
    "a thousand dimensions": (TensorView("0", "Float", 12, 0, (1,) * 1000, (1,) * 1000), "an impossible shape"),
    "a size that is not a number": (
        TensorView("0", "Float", 12, 0, ("3",), (1,)),
        "a tensor is not built from a storage",
    ),
    "another type of numbers": (TensorView("0", "Double", 12, 0, (12,), (1,)), "should have|is cut off|before the end"),
    "no such storage": (TensorView("1", "Float", 12, 0, (12,), (1,)), "is missing|do not match"),
    "a storage of negative size": (TensorView("0", "Float", -12, 0, (0,), (1,)), "not a storage of numbers"),
    "two sizes of a storage": (
        [TensorView("0", "Float", n, 0, (1,), (1,)) for n in (12, 11)],
        "two sizes or types for storage '0'",
    ),
    "a view of another storage": (Persistent((*STORAGE, ("0", 0, 4))), "not a storage of numbers"),
    "a storage type that is text": (Persistent(("storage", "Float", "0", "cpu", 12)), "not a storage of numbers"),
    "a module": (Persistent(("module", Name("torch Size"), "x.py", "import os")), "not a storage of numbers"),
    "a storage of containers": (
        Call("torch._utils _rebuild_tensor_v2", ([], 0, (1,), (1,))),
        "not built from a storage",
    ),
    "a parameter of text": (
        Call("torch._utils _rebuild_parameter", ("x", True)),
        "a parameter is not built from a tensor",
    ),
    "a filled dictionary": (Call("collections OrderedDict", ([("a", 1)],)), "an OrderedDict has arguments"),
    "a call of text": (Raw(code("x") + b")R"), "calls something that is not a function"),
    "a call of a type": (Raw(code(Name("torch float32")) + b")R"), "calls something that is not a function"),
    "a call with a list": (Raw(code(Name("torch Size")) + b"]R"), "calls something that is not a function"),
    "attributes of a list": (Raw(b"]}b"), "attributes of an object without attributes"),
    "attributes of a tensor": (
        Raw(code(TensorView("0", "Float", 12, 0, (12,), (1,))) + b"}b"),
        "attributes of an object without attributes",
    ),
    "items of a tuple": (Raw(b"(" + code(1) + code(2) + b"tK\1K\2s"), "items of something that is not a dictionary"),
    "half an item": (Raw(b"}(K\1u"), "items of something that is not a dictionary"),
    "appended to a dictionary": (Raw(b"}K\1a"), "appends to something that is not a list"),
    "a list as a key": (Raw(b"}]K\1s"), "a key of the type list; keys must be text or 64-bit numbers"),
    "a large number as a key": (
        Raw(b"}" + code(1 << 100) + b"K\1s"),
        "a key of the type int; keys must be text or 64-bit numbers",
    ),
    "a number of a kilobyte": (Raw(code(1 << 2000)), "one of its integers is far too large"),
    "a text of a billion bytes": (Raw(b"X" + struct.pack("<I", BILLION)), "far too large for the description"),
    "a text of 2^62 bytes": (Raw(b"\x8d" + struct.pack("<Q", 1 << 62)), "far too large for the description"),
    "bytes of 2^62": (Raw(b"\x8e" + struct.pack("<Q", 1 << 62)), "far too large for the description"),
    "a number of 2^31 bytes": (Raw(b"\x8b" + struct.pack("<i", (1 << 31) - 1)), "requests the instruction LONG4"),
    "a text that is not UTF-8": (Raw(b"X\2\0\0\0\xff\xff"), "one of its texts is not valid UTF-8"),
    "a name that does not end": (Raw(b"c" + b"x" * 2000), "one of its names is cut off or longer than 1024 bytes"),
    "a name that is a number": (Raw(code(1) + code("x") + b"\x93"), "looks up a name that is not text"),
    "an empty stack": (Raw(b"a"), "takes a value from an empty stack"),
    "no mark": (Raw(b"t" * 9), "takes values from an empty stack"),
    "an unknown memo entry": (Raw(b"h\xff"), "refers to a value that it has not built"),
    "an unknown instruction": (Raw(b"\xff"), "the byte ff is not a pickle instruction"),
    "a future protocol": (Raw(b"\x80\x09"), "its pickle protocol is 9, but the newest is 5"),
    "too many instructions": (Raw(b"N" * ((1 << 19) + 1)), "more than 524288 instructions"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_claims_are_rejected(write, name):
    value, message = IMPOSSIBLE[name]
    path = write({"w": value}, {"0": NUMBERS.ravel()})
    tracemalloc.start()
    try:
        with pytest.raises(GPT2Error, match=message) as raised:
            torch_file.read(path)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    assert "\n" not in str(raised.value) and "model.pt" in str(raised.value)


# 2^15 calls with the same large argument, which each call would look at or copy.
CALLS = 1 << 15
SHARED_ARGUMENTS = {
    "text": (code("x" * 100_000), code(Name("_codecs encode")), code("latin1")),
    "numbers": (b"(" + b"K\1" * 50_000 + b"t", code(Name("torch Size")), b""),
}


@pytest.mark.parametrize("name", SHARED_ARGUMENTS)
def test_a_large_argument_of_many_calls_is_rejected(write, name):
    argument, function, extra = SHARED_ARGUMENTS[name]
    call = b"h\1(h\0" + (b"h\2" if extra else b"") + b"tR"
    memo = argument + b"q\0" + function + b"q\1" + (extra + b"q\2" if extra else b"")
    value = Raw(b"](" + memo + call * CALLS + b"e")
    tracemalloc.start()
    try:
        with pytest.raises(DamagedFileError, match="far too large for the description of a model"):
            torch_file.read(write({"w": value}, {}))
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


def test_nested_shared_lists_stay_as_small_as_their_pickle(write):
    """Fifty lists, each of which holds the previous one twice: 2^50 entries if they were copied."""
    value = Raw(b"](]q\0" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(50)) + b"e")
    loaded = torch_file.read(write({"w": value}, {}))["w"][-1]
    for _ in range(50):
        loaded = loaded[0]
    assert loaded == []


def test_deep_nesting(write):
    """Objects nested deeper than Python's recursion limit are built and freed without recursion."""
    torch_file.read(write({"w": Raw(b"]" * 100_000 + b"a" * 99_999)}, {}))
    torch_file.read(write({"w": Raw(b")" + b"\x85" * 100_000)}, {}))


def test_a_large_pickle_is_rejected(tmp_path, monkeypatch):
    write_zip(tmp_path / "x.pt", {"w": "x" * 1000}, {})
    monkeypatch.setattr(pickle_interpreter, "MAX_PICKLE_BYTES", 999)
    with pytest.raises(DamagedFileError, match="archive/data.pkl is far too large for the description of a model"):
        torch_file.read(tmp_path / "x.pt")


def test_compressed_records_are_rejected(tmp_path):
    """Otherwise a zip bomb of one megabyte could expand to a gigabyte."""
    views, storages = state_dict({"w": np.zeros(100_000, "<f4")})
    write_zip_of_pickle(tmp_path / "x.pt", dumps(views), storages, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(DamagedFileError, match="'archive/data.pkl' is compressed or encrypted"):
        torch_file.read(tmp_path / "x.pt")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "not a file that torch.save wrote"),
        (b"PK\x03\x04", "the end of its central directory is missing"),
        (b"PK\x03\x04" + b"PK\x05\x06" + b"\xff" * 18, "central directory is not at its recorded position"),
        (pickle.dumps({"w": 1}), "not a file that torch.save wrote"),
        (b"\x93NUMPY" + b"\0" * 100, "not a file that torch.save wrote"),
        (stream(b"", {})[:20], "it is cut off"),
        (stream(dumps({}), {}).replace(b"M\xe9\x03.", b"M\xea\x03.", 1), "does not start as files of torch.save do"),
    ],
)
def test_other_files_are_rejected(tmp_path, content, message):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(DamagedFileError, match=f"x.pt is damaged: .*{message}"):
        torch_file.read(tmp_path / "x.pt")


def test_another_zip_file_is_rejected(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as file:
        file.writestr("data.pkl", b"")
    with pytest.raises(DamagedFileError, match="torch.save did not write it: it should have exactly one data.pkl"):
        torch_file.read(tmp_path / "x.pt")


@pytest.mark.parametrize("form", FORMS)
def test_every_truncated_file_is_damaged(tmp_path, form):
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
    start = content.index(NUMBERS.tobytes())
    path.write_bytes(content[: start + 5] + b"\x77" + content[start + 6 :])
    loaded = torch_file.read(path)
    with pytest.raises(
        DamagedFileError, match="the checksum of storage '0' does not match; delete it and fetch it again"
    ):
        list(loaded["w"].pieces())
    np.testing.assert_array_equal(whole(loaded["t"]), NUMBERS.T)


def test_a_file_without_checksums(tmp_path):
    """torch.serialization.set_crc32_options(False) makes torch.save write 0 as the checksum."""
    path = tmp_path / "x.pt"
    write_zip(path, *state_dict({"w": NUMBERS}))
    content = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        for record in file.infolist():
            content = content.replace(struct.pack("<I", record.CRC), bytes(4))
    path.write_bytes(content)
    np.testing.assert_array_equal(whole(torch_file.read(path)["w"]), NUMBERS)


def test_a_file_that_is_truncated_while_it_is_read(write):
    path = write(*state_dict({"w": NUMBERS}))
    loaded = torch_file.read(path)["w"]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DamagedFileError, match="it ends before the end of storage '0'"):
        list(loaded.pieces())
