"""An interpreter for pickles of plain containers that never imports or calls anything named in a file.

A pickle is a program for a machine with a stack (described in pickletools.py of Python's library). This interpreter
knows the instructions that build None, numbers, text, bytes, tuples, lists and dictionaries. A name in the pickle is
looked up in the caller's table only. The first unknown name ends the load with an error.

Work and memory are limited by the size of a pickle and its number of instructions. Each length is checked before the
bytes are read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

from gpt2.errors import printable_name
from gpt2.formats.malformed import MalformedFileError

MAX_PICKLE_BYTES = 1 << 23  # the pickle of the model 1558M has 80,000
MAX_INSTRUCTIONS = 1 << 19  # an empty dictionary takes one byte in the pickle and 64 in memory
MAX_NAME_BYTES = 1 << 10
MAX_SHOWN_CHARACTERS = 100  # maximum length of a name in a message
MAX_INTEGER_BYTES = 16
NEWEST_PROTOCOL = 5


class MalformedPickleError(MalformedFileError):
    """The error for bytes that are not a pickle of plain containers."""


class ForbiddenPickleError(MalformedPickleError):
    """The error for a forbidden function, class or instruction in a pickle; the message names it."""


class AllowedFunction(NamedTuple):
    """The replacement of a function or class that a pickle may call.

    Attributes:
        build: Called with the tuple of arguments; returns the object. Raises MalformedPickleError for wrong arguments.
    """

    build: Callable[[tuple[Any, ...]], Any]


def reject_persistent_id(_: Any) -> Any:
    """Raise MalformedPickleError, since the pickle must not refer to objects outside of it."""
    raise MalformedPickleError("it refers to an object outside of the pickle")


class PickleInterpreter:
    """The state of loading one pickle: its stack, its memo and its remaining budget of bytes."""

    def __init__(
        self,
        file: BinaryIO,
        names: Mapping[str, Any],
        load_persistent: Callable[[Any], Any] = reject_persistent_id,
    ) -> None:
        """Prepare to load a pickle.

        Args:
            file: A file, positioned at the start of the pickle. After `load` it is positioned at the end of the pickle.
            names: The objects for each `module.name`. The pickle can call an AllowedFunction.
            load_persistent: Returns the object of a persistent id, or raises MalformedPickleError.
        """
        self.file = file
        self.names = names
        self.load_persistent = load_persistent
        self.bytes_left = MAX_PICKLE_BYTES
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def load(self) -> Any:
        """Return the object that the pickle describes.

        Raises:
            MalformedPickleError: If the pickle is damaged or too large.
            ForbiddenPickleError: If the pickle needs anything except plain containers and the known names.
        """
        for _ in range(MAX_INSTRUCTIONS):
            code = self.read(1)
            if code == b".":
                return self.pop()
            if code not in INSTRUCTIONS:
                raise _unknown_instruction(code)
            INSTRUCTIONS[code](self)
        raise MalformedPickleError(f"it has more than {MAX_INSTRUCTIONS} instructions")

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes of the pickle.

        Raises:
            MalformedPickleError: If the pickle is cut off or exceeds its budget.
        """
        self.spend(size)
        data = self.file.read(size)
        if len(data) < size:
            raise MalformedPickleError("it is cut off")
        return data

    def spend(self, size: int) -> None:
        """Subtract bytes that are read, or items that are passed to a call, from the budget.

        Raises:
            MalformedPickleError: If the budget is exceeded.
        """
        if size > self.bytes_left:
            raise MalformedPickleError("it is far too large for the description of a model")
        self.bytes_left -= size

    def read_number(self, layout: str) -> Any:
        """Return the next number of the pickle.

        Args:
            layout: The number's format for the module `struct`.
        """
        return struct.unpack(layout, self.read(struct.calcsize(layout)))[0]

    def read_line(self) -> str:
        """Return the next line of the pickle, without its newline."""
        line = self.file.readline(MAX_NAME_BYTES)
        if not line.endswith(b"\n"):
            raise MalformedPickleError(f"one of its names is cut off or longer than {MAX_NAME_BYTES} bytes")
        self.spend(len(line))
        return line[:-1].decode("utf-8", errors="backslashreplace")

    def push(self, value: Any) -> None:
        """Put a value on top of the stack."""
        self.stack.append(value)

    def pop(self) -> Any:
        """Remove and return the top of the stack.

        Raises:
            MalformedPickleError: If no value lies above the last mark.
        """
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise MalformedPickleError("it takes a value from an empty stack")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        """Remove the last mark, and remove and return all values above it in the order of the pushes.

        Raises:
            MalformedPickleError: If there is no mark.
        """
        if not self.marks:
            raise MalformedPickleError("it takes values from an empty stack")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def look_up(self, module: Any, name: Any) -> Any:
        """Return the object for a name in the pickle.

        Args:
            module: The name's module.
            name: The name in the module.

        Raises:
            ForbiddenPickleError: If the name is unknown.
            MalformedPickleError: If module or name are not text.
        """
        if not isinstance(module, str) or not isinstance(name, str):
            raise MalformedPickleError("it looks up a name that is not text")
        full_name = f"{module}.{name}"
        if full_name not in self.names:
            is_long = len(full_name) > MAX_SHOWN_CHARACTERS
            raise ForbiddenPickleError(
                printable_name(f"{full_name[:MAX_SHOWN_CHARACTERS]}..." if is_long else full_name)
            )
        return self.names[full_name]


def _unknown_instruction(code: bytes) -> MalformedPickleError:
    import pickletools  # imported here because only this message needs it

    names = {instruction.code: instruction.name for instruction in pickletools.opcodes}
    name = names.get(code.decode("latin-1"))
    if name:
        return ForbiddenPickleError(f"the instruction {name}")
    return MalformedPickleError(f"the byte {code.hex()} is not a pickle instruction")


def _read_text(interpreter: PickleInterpreter, length_layout: str) -> str:
    try:
        return interpreter.read(interpreter.read_number(length_layout)).decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedPickleError("one of its texts is not valid UTF-8") from error


def _read_long(interpreter: PickleInterpreter) -> int:
    size = interpreter.read_number("<B")
    if size > MAX_INTEGER_BYTES:
        raise MalformedPickleError("one of its integers is far too large")
    return int.from_bytes(interpreter.read(size), "little", signed=True)


def _inst(interpreter: PickleInterpreter) -> None:
    """Reject INST, an instruction to call a class; if the class is unknown, the error names it."""
    interpreter.look_up(interpreter.read_line(), interpreter.read_line())
    raise ForbiddenPickleError("the instruction INST")


def _stack_global(interpreter: PickleInterpreter) -> None:
    name = interpreter.pop()
    module = interpreter.pop()
    interpreter.push(interpreter.look_up(module, name))


def _reduce(interpreter: PickleInterpreter) -> None:
    arguments = interpreter.pop()
    function = interpreter.pop()
    if not isinstance(function, AllowedFunction) or not isinstance(arguments, tuple):
        raise MalformedPickleError("it calls something that is not a function")
    # A few bytes can pass the same large arguments to a function many times.
    interpreter.spend(len(arguments))
    interpreter.spend(sum(len(argument) for argument in arguments if isinstance(argument, (str, tuple))))
    interpreter.push(function.build(arguments))


def _build(interpreter: PickleInterpreter) -> None:
    """Ignore the attributes of an OrderedDict, such as the versions in a state dict."""
    interpreter.pop()
    if not isinstance(_top(interpreter), dict):
        raise MalformedPickleError("it sets attributes of an object without attributes")


def _top(interpreter: PickleInterpreter) -> Any:
    value = interpreter.pop()
    interpreter.push(value)
    return value


def _append(interpreter: PickleInterpreter, values: list[Any]) -> None:
    if not isinstance(target := _top(interpreter), list):
        raise MalformedPickleError("it appends to something that is not a list")
    target.extend(values)


def _set_items(interpreter: PickleInterpreter, items: list[Any]) -> None:
    target = _top(interpreter)
    if type(target) is not dict or len(items) % 2:
        raise MalformedPickleError("it sets items of something that is not a dictionary")
    for key, value in zip(items[::2], items[1::2]):
        # Only types whose hash is fast and rarely collides are accepted.
        is_small_integer = isinstance(key, int) and -1 << 63 <= key < 1 << 63
        if not is_small_integer and not isinstance(key, (str, bytes, float, type(None))):
            raise MalformedPickleError(
                f"one of its dictionaries has a key of the type {type(key).__name__};"
                " keys must be text or 64-bit numbers"
            )
        target[key] = value


def _pop_pair(interpreter: PickleInterpreter) -> list[Any]:
    value = interpreter.pop()
    key = interpreter.pop()
    return [key, value]


def _tuple(interpreter: PickleInterpreter, size: int) -> None:
    interpreter.push(tuple(reversed([interpreter.pop() for _ in range(size)])))


def _memoize(interpreter: PickleInterpreter, index: int) -> None:
    interpreter.memo[index] = _top(interpreter)


def _get(interpreter: PickleInterpreter, index: int) -> None:
    if index not in interpreter.memo:
        raise MalformedPickleError("it refers to a value that it has not built")
    interpreter.push(interpreter.memo[index])


def _protocol(interpreter: PickleInterpreter) -> None:
    if (protocol := interpreter.read_number("<B")) > NEWEST_PROTOCOL:
        raise MalformedPickleError(f"its pickle protocol is {protocol}, but the newest is {NEWEST_PROTOCOL}")


# Comments have the names in pickletools.py. Instructions that torch.save never writes are missing, for example the text
# forms of protocol 0.
INSTRUCTIONS: dict[bytes, Callable[[PickleInterpreter], Any]] = {
    b"\x80": _protocol,  # PROTO
    b"\x95": lambda i: i.read_number("<Q"),  # FRAME: the length of the next instructions, not needed
    b"(": lambda i: i.marks.append(len(i.stack)),  # MARK
    b"N": lambda i: i.push(None),  # NONE
    b"\x88": lambda i: i.push(True),  # NEWTRUE
    b"\x89": lambda i: i.push(False),  # NEWFALSE
    b"J": lambda i: i.push(i.read_number("<i")),  # BININT
    b"K": lambda i: i.push(i.read_number("<B")),  # BININT1
    b"M": lambda i: i.push(i.read_number("<H")),  # BININT2
    b"\x8a": lambda i: i.push(_read_long(i)),  # LONG1
    b"G": lambda i: i.push(i.read_number(">d")),  # BINFLOAT
    b"\x8c": lambda i: i.push(_read_text(i, "<B")),  # SHORT_BINUNICODE
    b"X": lambda i: i.push(_read_text(i, "<I")),  # BINUNICODE
    b"\x8d": lambda i: i.push(_read_text(i, "<Q")),  # BINUNICODE8
    b"C": lambda i: i.push(i.read(i.read_number("<B"))),  # SHORT_BINBYTES
    b"B": lambda i: i.push(i.read(i.read_number("<I"))),  # BINBYTES
    b"\x8e": lambda i: i.push(i.read(i.read_number("<Q"))),  # BINBYTES8
    b")": lambda i: i.push(()),  # EMPTY_TUPLE
    b"t": lambda i: i.push(tuple(i.pop_to_mark())),  # TUPLE
    b"\x85": lambda i: _tuple(i, 1),  # TUPLE1
    b"\x86": lambda i: _tuple(i, 2),  # TUPLE2
    b"\x87": lambda i: _tuple(i, 3),  # TUPLE3
    b"]": lambda i: i.push([]),  # EMPTY_LIST
    b"a": lambda i: _append(i, [i.pop()]),  # APPEND
    b"e": lambda i: _append(i, i.pop_to_mark()),  # APPENDS
    b"}": lambda i: i.push({}),  # EMPTY_DICT
    b"s": lambda i: _set_items(i, _pop_pair(i)),  # SETITEM
    b"u": lambda i: _set_items(i, i.pop_to_mark()),  # SETITEMS
    b"q": lambda i: _memoize(i, i.read_number("<B")),  # BINPUT
    b"r": lambda i: _memoize(i, i.read_number("<I")),  # LONG_BINPUT
    b"\x94": lambda i: _memoize(i, len(i.memo)),  # MEMOIZE
    b"h": lambda i: _get(i, i.read_number("<B")),  # BINGET
    b"j": lambda i: _get(i, i.read_number("<I")),  # LONG_BINGET
    b"c": lambda i: i.push(i.look_up(i.read_line(), i.read_line())),  # GLOBAL
    b"\x93": _stack_global,  # STACK_GLOBAL
    b"i": _inst,  # INST
    b"R": _reduce,  # REDUCE
    b"b": _build,  # BUILD
    b"Q": lambda i: i.push(i.load_persistent(i.pop())),  # BINPERSID
}
