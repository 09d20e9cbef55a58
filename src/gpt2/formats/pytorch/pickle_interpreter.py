"""What a pickle of plain containers describes, by an interpreter that imports nothing and calls nothing of the file's.

A pickle is a program for a machine with a stack (pickletools.py in Python's library describes it). This machine has
the instructions that build None, numbers, text, bytes, tuples, lists and dictionaries. A name that the pickle asks for
is looked up in the table that the caller gives and nowhere else; the first that is not in it ends the reading, before
anything is built of it. Work and memory are bounded whatever a pickle claims: its size, the number of its instructions,
and each length before it is read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

from gpt2.errors import printable_name

LARGEST = 1 << 23  # bytes of a pickle; that of 1558M has 80,000
MOST_INSTRUCTIONS = 1 << 19  # an empty dictionary is one byte there and 64 in memory
LONGEST_NAME, LONGEST_SHOWN = 1 << 10, 100  # bytes, characters
LONGEST_NUMBER = 16  # bytes
NEWEST = 5  # protocol


class Broken(ValueError):
    """Why these bytes are no pickle of plain containers."""


class Refused(Broken):
    """It asks for something else than plain containers; the text is its name."""


class Builder(NamedTuple):
    """What stands for a function or class that a pickle may call; `build` is given the arguments, and raises Broken."""

    build: Callable[[tuple[Any, ...]], Any]


def no_persistent(_: Any) -> Any:
    raise Broken("it refers to something outside of it")


class Machine:
    """Reads one pickle from where a file stands; the file then stands after it.

    known: by the names `module.name`, what they stand for; a Builder is what may be called. persistent: gives what a
    persistent id stands for, and raises Broken for one that it does not know.
    """

    def __init__(
        self, file: BinaryIO, known: Mapping[str, Any], persistent: Callable[[Any], Any] = no_persistent
    ) -> None:
        self.file, self.known, self.persistent = file, known, persistent
        self.left = LARGEST
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def load(self) -> Any:
        """What the pickle describes. Raises Broken, and Refused for what builds anything but plain containers."""
        for _ in range(MOST_INSTRUCTIONS):
            code = self.take(1)
            if code == b".":
                return self.pop()
            if code not in INSTRUCTIONS:
                raise _not_known(code)
            INSTRUCTIONS[code](self)
        raise Broken(f"it has more than {MOST_INSTRUCTIONS} instructions")

    def take(self, size: int) -> bytes:
        self.spend(size)
        data = self.file.read(size)
        if len(data) < size:
            raise Broken("it is cut off")
        return data

    def spend(self, size: int) -> None:
        """Counts bytes that are read, or items that a call may look at."""
        if size > self.left:
            raise Broken("it is far too large for the description of a model")
        self.left -= size

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> str:
        line = self.file.readline(LONGEST_NAME)
        if not line.endswith(b"\n"):
            raise Broken("a name in it does not end")
        self.spend(len(line))
        return line[:-1].decode("utf-8", errors="backslashreplace")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Broken("it takes more than it has built")
        return self.stack.pop()

    def pop_many(self) -> list[Any]:
        """All since the last mark, which goes too."""
        if not self.marks:
            raise Broken("it takes more than it has built")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def find(self, module: Any, name: Any) -> Any:
        """What stands for a name of the pickle's. Raises Refused for one that is not known."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise Broken("it asks for what is no name")
        full = f"{module}.{name}"
        if full not in self.known:
            raise Refused(printable_name(full if len(full) <= LONGEST_SHOWN else f"{full[:LONGEST_SHOWN]}..."))
        return self.known[full]


def _not_known(code: bytes) -> Broken:
    import pickletools  # here, where it only serves to name what is refused

    names = {instruction.code: instruction.name for instruction in pickletools.opcodes}
    name = names.get(code.decode("latin-1"))
    return Refused(f"the instruction {name}") if name else Broken(f"{code.hex()} is no instruction of a pickle")


def _text(machine: Machine, layout: str) -> str:
    try:
        return machine.take(machine.number(layout)).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Broken("a text in it is not UTF-8") from error


def _long(machine: Machine) -> int:
    size = machine.number("<B")
    if size > LONGEST_NUMBER:
        raise Broken("a number in it is far too large")
    return int.from_bytes(machine.take(size), "little", signed=True)


def _instance(machine: Machine) -> None:
    """INST: a class by its name and a call in one."""
    machine.find(machine.line(), machine.line())
    raise Refused("the instruction INST")


def _global_by_stack(machine: Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push(machine.find(module, name))


def _call(machine: Machine) -> None:
    arguments, function = machine.pop(), machine.pop()
    if not isinstance(function, Builder) or not isinstance(arguments, tuple):
        raise Broken("it calls what is no function")
    machine.spend(len(arguments))  # for the same ones may be given to many calls
    machine.spend(sum(len(argument) for argument in arguments if isinstance(argument, (str, tuple))))
    machine.push(function.build(arguments))


def _set_state(machine: Machine) -> None:
    """Attributes of an OrderedDict, such as a state dict's versions, which are not kept."""
    machine.pop()
    if not isinstance(_top(machine), dict):
        raise Broken("it gives attributes to what has none")


def _top(machine: Machine) -> Any:
    value = machine.pop()
    machine.push(value)
    return value


def _append(machine: Machine, values: list[Any]) -> None:
    if not isinstance(target := _top(machine), list):
        raise Broken("it appends to what is no list")
    target.extend(values)


def _set_items(machine: Machine, items: list[Any]) -> None:
    target = _top(machine)
    if type(target) is not dict or len(items) % 2:
        raise Broken("it sets items of what is no dictionary")
    for key, value in zip(items[::2], items[1::2]):  # keys must be of kinds whose hashes take no time and differ
        is_number = isinstance(key, int) and -1 << 63 <= key < 1 << 63
        if not is_number and not isinstance(key, (str, bytes, float, type(None))):
            raise Broken(f"a dictionary in it has a key that is no text or number, but {type(key).__name__}")
        target[key] = value


def _two(machine: Machine) -> list[Any]:
    last, first = machine.pop(), machine.pop()
    return [first, last]


def _tuple(machine: Machine, size: int) -> None:
    machine.push(tuple(reversed([machine.pop() for _ in range(size)])))


def _remember(machine: Machine, number: int) -> None:
    machine.memo[number] = _top(machine)


def _recall(machine: Machine, number: int) -> None:
    if number not in machine.memo:
        raise Broken("it refers to what it has not built")
    machine.push(machine.memo[number])


def _protocol(machine: Machine) -> None:
    if (found := machine.number("<B")) > NEWEST:
        raise Broken(f"it is of the protocol {found}, and {NEWEST} is the newest")


# By the names of pickletools.py. What torch.save never writes, such as the text forms of protocol 0, is not here.
INSTRUCTIONS: dict[bytes, Callable[[Machine], Any]] = {
    b"\x80": _protocol,  # PROTO
    b"\x95": lambda m: m.number("<Q"),  # FRAME: a hint at what follows
    b"(": lambda m: m.marks.append(len(m.stack)),  # MARK
    b"N": lambda m: m.push(None),  # NONE
    b"\x88": lambda m: m.push(True),  # NEWTRUE
    b"\x89": lambda m: m.push(False),  # NEWFALSE
    b"J": lambda m: m.push(m.number("<i")),  # BININT
    b"K": lambda m: m.push(m.number("<B")),  # BININT1
    b"M": lambda m: m.push(m.number("<H")),  # BININT2
    b"\x8a": lambda m: m.push(_long(m)),  # LONG1
    b"G": lambda m: m.push(m.number(">d")),  # BINFLOAT
    b"\x8c": lambda m: m.push(_text(m, "<B")),  # SHORT_BINUNICODE
    b"X": lambda m: m.push(_text(m, "<I")),  # BINUNICODE
    b"\x8d": lambda m: m.push(_text(m, "<Q")),  # BINUNICODE8
    b"C": lambda m: m.push(m.take(m.number("<B"))),  # SHORT_BINBYTES
    b"B": lambda m: m.push(m.take(m.number("<I"))),  # BINBYTES
    b"\x8e": lambda m: m.push(m.take(m.number("<Q"))),  # BINBYTES8
    b")": lambda m: m.push(()),  # EMPTY_TUPLE
    b"t": lambda m: m.push(tuple(m.pop_many())),  # TUPLE
    b"\x85": lambda m: _tuple(m, 1),  # TUPLE1
    b"\x86": lambda m: _tuple(m, 2),  # TUPLE2
    b"\x87": lambda m: _tuple(m, 3),  # TUPLE3
    b"]": lambda m: m.push([]),  # EMPTY_LIST
    b"a": lambda m: _append(m, [m.pop()]),  # APPEND
    b"e": lambda m: _append(m, m.pop_many()),  # APPENDS
    b"}": lambda m: m.push({}),  # EMPTY_DICT
    b"s": lambda m: _set_items(m, _two(m)),  # SETITEM
    b"u": lambda m: _set_items(m, m.pop_many()),  # SETITEMS
    b"q": lambda m: _remember(m, m.number("<B")),  # BINPUT
    b"r": lambda m: _remember(m, m.number("<I")),  # LONG_BINPUT
    b"\x94": lambda m: _remember(m, len(m.memo)),  # MEMOIZE
    b"h": lambda m: _recall(m, m.number("<B")),  # BINGET
    b"j": lambda m: _recall(m, m.number("<I")),  # LONG_BINGET
    b"c": lambda m: m.push(m.find(m.line(), m.line())),  # GLOBAL
    b"\x93": _global_by_stack,  # STACK_GLOBAL
    b"i": _instance,  # INST
    b"R": _call,  # REDUCE
    b"b": _set_state,  # BUILD
    b"Q": lambda m: m.push(m.persistent(m.pop())),  # BINPERSID
}
