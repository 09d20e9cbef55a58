"""Conversion of the native library's errors and exported numbers to Python."""

from __future__ import annotations

import ctypes

# Messages in library.cc.
NO_MEMORY = b"no memory"
NOT_FINITE = b"weights must be finite in the packed type"


def raise_library_error(message: bytes) -> None:
    """Raise a Python exception for the error message that a function of the library has returned.

    Raises:
        MemoryError: There was not enough memory.
        ValueError: An argument was out of range.
    """
    if message == NO_MEMORY:
        raise MemoryError
    raise ValueError(message.decode())


def library_int(library: ctypes.CDLL, name: str) -> int:
    """Return an integer that the library exports."""
    return ctypes.c_int.in_dll(library, name).value
