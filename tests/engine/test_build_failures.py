"""Failures of compilers: which are recorded, and what their messages say."""

import contextlib
import errno
import os

import pytest

from gpt2 import files
from gpt2.engine.native import build, build_failures, calls

AGAIN = "; the next start tries again"


def say(message):
    return f"cat >&2 <<'END'\n{message}\nEND\nexit 1"


# What the compiler does, and the cause in the error message.
PASSING = {
    "kill -9 $$": "killed by SIGKILL",
    "kill -TERM $$": "killed by SIGTERM",
    "echo 'x.h: note: half of a' >&2; kill -XFSZ $$": "killed by SIGXFSZ: x.h: note: half of a",
    "exit 137": "killed by SIGKILL",
    "exit 1": "exit status 1 without a message",
    "exec sleep 20": "timed out after 0.1 seconds",
    **{
        say(f"In file included from library.cc:5:\n{line}\ncompilation terminated."): line
        for line in (
            "c++: fatal error: Killed signal terminated program cc1plus",
            "c++: internal compiler error: Killed (program cc1plus)",
            "collect2: fatal error: ld terminated with signal 11 [Segmentation fault], core dumped",
            "clang++: error: unable to execute command: Killed",
            "clang++: error: clang frontend command failed due to signal (use -v to see invocation)",
            "error: out of memory allocating 65536 bytes after a total of 1572864 bytes",
            "error: virtual memory exhausted: Cannot allocate memory",
            "x.h:1: fatal error: cannot open x: Too many open files",
            "library.cc:3:10: fatal error: algorithm: No such file or directory",
            "c++: fatal error: cannot execute 'cc1plus': execvp: No such file or directory",
            "c++: error: vfork: Resource temporarily unavailable",
            "c++: error: /tmp/ccx.s: Permission denied",
            "ld: error: input file: Input/output error",
            "error: unable to build: OutOfMemory",
        )
    },
}
FULL_DISK = [
    "/tmp/ccx.s: fatal error: error writing to /tmp/ccx.s: No space left on device",
    "library.cc:1: fatal error: error closing /tmp/ccx.s: Disk quota exceeded",
    "ld: error: final link failed: No space left on device",
    "c++: fatal error: cannot create /tmp/ccx.s: Read-only file system",
    "error: unable to write: NoSpaceLeft",
]
LASTING = [
    "x.h:1:2: error: no such thing",
    "c++: error: unrecognized command-line option '-std=c++17'",
    "vectors.h:34:1: error: 'Vec' does not name a type",
    "clang++: error: unknown argument: '-ffp-contract=off'",
    "x.h:9: internal compiler error: in convert_move, at expr.cc:220",
]


def records(folder):
    return list(folder.glob("*.failed"))


@pytest.mark.parametrize("script, cause", PASSING.items())
def test_a_failure_that_may_pass_is_tried_again(cache, copier, monkeypatch, native, script, cause):
    monkeypatch.setattr(build, "COMPILER_TIMEOUT", 0.1 if "sleep" in script else 60)
    copier.set_script(script)
    for runs in (1, 2):
        with pytest.raises(build.NoLibraryError) as error:
            build.find()
        assert str(error.value) == f"{copier.path} failed: {cause}{AGAIN}" and copier.runs == runs
        assert not records(cache)
    copier.set_script(f'cp {native._name} "$out"')
    for _ in range(2):
        assert calls.library_int(build.find(), "gpt2_width") > 0
    assert copier.runs == 3


@pytest.mark.parametrize("line", FULL_DISK)
def test_on_a_full_disk_another_folder_is_tried(cache, temporary, copier, native, line):
    copier.set_script(say(line))
    with pytest.raises(build.NoLibraryError) as error:
        build.find()
    assert str(error.value) == f"{copier.path} failed: {line}{AGAIN}" and copier.runs == 2
    (private,) = temporary.iterdir()
    assert not records(cache) and not records(private)
    copier.set_script(f'case "$out" in {cache}/*) echo "{line}" >&2; exit 1;; esac', f'cp {native._name} "$out"')
    for _ in range(2):
        assert calls.library_int(build.find(), "gpt2_width") > 0
    assert copier.runs == 4 and len(list(private.glob("*.so"))) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_folder_without_space_is_named(cache, temporary, copier, monkeypatch, number):
    atomic_write_many = files.atomic_write_many
    full = [cache]

    def write_many(folder, last):
        if folder in full:
            raise OSError(number, os.strerror(number), str(folder / "x"))
        return atomic_write_many(folder, last)

    monkeypatch.setattr(files, "atomic_write_many", write_many)
    assert calls.library_int(build.find(), "gpt2_width") > 0
    (private,) = temporary.iterdir()
    for path in private.iterdir():
        path.unlink()
    full.append(private)
    with pytest.raises(build.NoLibraryError) as error:
        build.find()
    assert str(error.value) == f"the library cannot be compiled: {os.strerror(number)} ({cache}/x){AGAIN}"


@pytest.mark.parametrize("line", LASTING)
def test_an_error_in_the_sources_is_recorded(cache, copier, line):
    cache.mkdir(mode=0o700, parents=True)
    (cache / "native-0123456789abcdef-01234567.failed").write_text("of an older version")
    copier.set_script(say(line))
    for _ in range(2):
        with pytest.raises(build.NoLibraryError) as error:
            build.find()
        (record,) = records(cache)
        assert str(error.value) == f"{copier.path} failed: {line}; to try again, delete {record}"
    assert copier.runs == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "c++ failed: c++: fatal error: Killed signal terminated program cc1plus",
        "c++ failed: Command '['c++', '-O3']' died with <Signals.SIGKILL: 9>.",
        "c++ failed: Command '['c++', '-O3']' timed out after 1800 seconds",
        "c++ failed: /tmp/ccx.s: fatal error: error writing to /tmp/ccx.s: No space left on device",
        "c++ failed: library.cc:3:10: fatal error: algorithm: No such file or directory",
    ],
)
def test_older_records_of_failures_that_may_pass_are_removed(cache, copier, native, tmp_path, text):
    copier.set_script(f'[ -e {tmp_path}/space ] && exec cp {native._name} "$out"', say(LASTING[0]))
    with pytest.raises(build.NoLibraryError):
        build.find()
    records(cache)[0].write_text(text)
    (tmp_path / "space").touch()
    assert calls.library_int(build.find(), "gpt2_width") > 0
    assert not records(cache) and copier.runs == 2


def test_a_record_that_cannot_be_written_does_not_hide_the_cause(cache, copier, monkeypatch):
    @contextlib.contextmanager
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield

    monkeypatch.setattr(files, "temporary_file", fail)
    copier.set_script(say(LASTING[0]))
    with pytest.raises(build.NoLibraryError, match=f"failed: {LASTING[0]}; "):
        build.find()
    assert not records(cache)


def test_messages_in_other_languages_and_bytes_are_readable(cache, copier, monkeypatch):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    copier.set_script(r"printf 'x.h:1: error: %s \377\n' $LC_ALL >&2", "exit 1")
    with pytest.raises(build.NoLibraryError, match="x.h:1: error: C \ufffd; to try again"):
        build.find()


def test_a_library_that_cannot_be_loaded_for_lack_of_memory(cache, copier, monkeypatch):
    load_library = build.ctypes.CDLL

    def load(path):
        if path is None:
            return load_library(None)
        raise OSError(f"{path}: failed to map segment from shared object: {os.strerror(errno.ENOMEM)}")

    monkeypatch.setattr(build.ctypes, "CDLL", load)
    with pytest.raises(build.NoLibraryError, match=f"cannot be loaded: .*{os.strerror(errno.ENOMEM)}{AGAIN}"):
        build.find()
    assert not records(cache)


def test_causes_of_failures():
    assert build_failures.names_full_disk("No space left on device") and not build_failures.names_full_disk("error")
    assert not any(build_failures.names_passing_cause(line) for line in LASTING)
