"""What the native library's functions and numbers are to Python."""

from __future__ import annotations

import ctypes

NO_MEMORY = b"no memory"  # as library.cc says it


def check(wrong: bytes | None) -> None:
    """Raises what a function of the library returned, if it did."""
    if wrong == NO_MEMORY:
        raise MemoryError
    if wrong:
        raise ValueError(wrong.decode())


def library_int(library: ctypes.CDLL, name: str) -> int:
    return ctypes.c_int.in_dll(library, name).value


def panel_width(library: ctypes.CDLL) -> int:
    """WIDTH in vectors.h, which depends on the processor."""
    return library_int(library, "gpt2_width")
