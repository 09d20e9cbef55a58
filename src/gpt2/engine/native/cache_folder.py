"""Where compiled libraries are kept, and which of them may be loaded: whole ones that only this user or root can write.

What is loaded is run, and a damaged library ends the process; so a checksum lies beside each.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

NAMED = "GPT2_NATIVE_CACHE"  # an environment variable: a folder to be asked, and filled if it can be, before one's own
OWN = "gpt-2-tensorflow"  # in the user's cache
LIBRARY, CHECKSUM, FAILURE = ".so", ".sha256", ".failed"
OTHERS_WRITE = 0o022


class NoLibrary(Exception):
    """Why there is no native library."""


def libraries(name: str) -> Iterator[Path]:
    """Those of this name, or of all that match it, that may be loaded. Raises NoLibrary, OSError."""
    for folder in folders():
        if folder.exists():
            _check(folder)
            yield from (path for path in sorted(folder.glob(name + LIBRARY)) if _sound(path))


def trusted(name: str) -> Iterator[Path]:
    """Files of this name that nobody but this user and root could have put there. Raises NoLibrary, OSError."""
    for folder in folders():
        path = folder / name
        if path.exists() and not _danger(folder) and not _danger(path):
            yield path


def writable() -> Path:
    """The folder to put a library into, made if it is not there. Raises NoLibrary, OSError."""
    for folder in folders():
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            _check(folder)
            return folder
    raise NoLibrary(f"{folder} cannot be written; {NAMED} can name another folder")


def checksum(library: Path) -> bytes:
    """What is in the file beside it."""
    return hashlib.sha256(library.read_bytes()).hexdigest().encode()


def folders() -> list[Path]:
    """The one that GPT2_NATIVE_CACHE names, if it does, and the user's own. Raises NoLibrary if there is neither."""
    named = os.environ.get(NAMED, "")
    if named and not os.path.isabs(named):
        raise NoLibrary(f"{NAMED} must be a path from the root, not {named!r}")
    found = [Path(place) for place in (named, _own()) if place]
    if not found:
        raise NoLibrary(f"there is no home folder to keep the compiled step in; {NAMED} can name a folder")
    return found


def _own() -> str:
    """In $XDG_CACHE_HOME or ~/.cache; nothing where there is no home. Is closed to others if it is there."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):  # which its specification has ignored
        cache = os.path.expanduser("~/.cache")
    if not os.path.isabs(cache):
        return ""
    own = Path(cache, OWN)
    with contextlib.suppress(OSError):  # it is not there, or somebody else's
        if own.stat().st_mode & OTHERS_WRITE:
            own.chmod(0o700)
    return str(own)


def _check(folder: Path) -> None:
    if danger := _danger(folder):
        raise NoLibrary(f"{folder} {danger}, so that nothing in it is run; mend that, or let {NAMED} name another")


def _danger(path: Path) -> str:
    """How others could have made what is in this file or folder, if they could."""
    found = path.stat()
    if found.st_uid not in (0, os.geteuid()):
        return "belongs to another user"
    return "can be written by other users" if found.st_mode & OTHERS_WRITE else ""


def _sound(library: Path) -> bool:
    try:
        return not _danger(library) and library.with_suffix(CHECKSUM).read_bytes() == checksum(library)
    except OSError:
        return False
