"""When the native library is compiled, where it is cached, and which cached libraries are loaded."""

import ctypes
import hashlib
import os
import platform
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import amx
import pytest
from fake_compiler import FakeCompiler
from one_by_one import generate_ids

from gpt2 import devices
from gpt2.cli import diagnostics
from gpt2.engine import load
from gpt2.engine.native import build, cache_folder, calls
from gpt2.engine.native.backend import NativeBackend
from gpt2.engine.token_sequence import TokenSequence
from gpt2.formats.model_dir import open_model_dir
from gpt2.formats.openai import checkpoint
from gpt2.request import BFLOAT16, Sampling


def remove_compilers(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(build, "COMPILERS", ())
    monkeypatch.setattr(build, "ZIG", "no_such_package")


def test_without_a_compiler_tensorflow_computes(cache, monkeypatch, tiny_dir):
    monkeypatch.setattr(build, "load", build.find)
    remove_compilers(monkeypatch)
    for _ in range(2):
        with pytest.raises(
            build.NoLibraryError, match="^there is no C.. compiler; install one with: pip install ziglang$"
        ) as error:
            build.load()
    backend = load.load_backend(open_model_dir(tiny_dir))
    assert backend.name == f"TensorFlow: {error.value}"
    assert generate_ids(backend, [TokenSequence([1], Sampling(temperature=0))], 3)


def test_a_failing_compiler_is_named_and_not_tried_again(cache, compiler, monkeypatch):
    """The next process does not try it either."""
    build._find_once.cache_clear()
    compiler.set_script("echo 'x.h:1: error: no such thing' >&2", "exit 1")
    for _ in range(2):
        with pytest.raises(
            build.NoLibraryError, match=r"cxx failed: x.h:1: error: no such thing; .* delete .*\.failed$"
        ):
            build.find()
    assert compiler.runs == 1
    next(cache.glob("*.failed")).unlink()
    for _ in range(2):
        with pytest.raises(build.NoLibraryError, match="no such thing"):
            build.load()
    assert compiler.runs == 2
    build.forget_failures()  # as the doctor does
    with pytest.raises(build.NoLibraryError, match="no such thing"):
        build.load()
    os.utime(compiler.path, (2, 2))  # another version of it
    with pytest.raises(build.NoLibraryError, match="no such thing"):
        build.find()
    assert compiler.runs == 4
    build.forget_failures()
    monkeypatch.setenv(build.SWITCH_VARIABLE, "0")
    with pytest.raises(build.NoLibraryError, match="GPT2_NATIVE=0"):
        build.find()


@pytest.fixture
def zig(tmp_path, monkeypatch, native):
    """Return the only compiler: a package in place of Zig's, whose output is the library that other tests use."""
    remove_compilers(monkeypatch)
    monkeypatch.setattr(build, "ZIG", "a_compiler_in_a_package")
    monkeypatch.delenv(build.ZIG_CACHE_VARIABLE, raising=False)
    package = tmp_path / "packages" / build.ZIG
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(package.parent))
    fake = FakeCompiler(package / "zig")
    fake.set_script('[ "$1" = c++ ] || exit 1', f"touch ${build.ZIG_CACHE_VARIABLE}/$$", f'cp {native._name} "$out"')
    return fake


def test_zig_compiles_if_there_is_no_other_compiler(cache, zig):
    messages = []
    for _ in range(2):
        assert calls.library_int(build.find(messages.append), "gpt2_width") > 0
    assert zig.runs == 1 and [line[-16:] for line in messages] == ["a minute or more"]
    assert {path.suffix for path in cache.iterdir()} == {".so", ".sha256"}  # nothing of Zig's own cache


def test_the_next_compiler_is_tried_if_one_fails(cache, zig, tmp_path, monkeypatch):
    failing = [FakeCompiler(tmp_path / name) for name in ("one", "two")]
    for compiler in failing:
        compiler.set_script("echo 'error: too old' >&2", "exit 1")
    (tmp_path / "one_again").symlink_to(failing[0].path)
    paths = [str(failing[0].path), str(tmp_path / "one_again"), str(failing[1].path)]
    monkeypatch.setattr(build, "COMPILERS", paths)
    for _ in range(2):
        assert calls.library_int(build.find(), "gpt2_width") > 0
    assert [compiler.runs for compiler in (*failing, zig)] == [1, 1, 1]
    monkeypatch.setattr(build, "ZIG", "no_such_package")
    with pytest.raises(build.NoLibraryError, match="one failed: error: too old; to try again, delete"):
        build.find()


def test_a_library_that_cannot_be_loaded_counts_as_a_failure(cache, compiler):
    compiler.set_script('echo nonsense > "$out"')
    for _ in range(2):
        with pytest.raises(
            build.NoLibraryError, match="the library that .*cxx compiled cannot be loaded: .*; to try again, delete"
        ):
            build.find()
    assert compiler.runs == 1


def test_a_library_is_written_atomically(tmp_path, monkeypatch):
    outputs = []

    def compiler(command, **_):
        outputs.append(Path(command[command.index("-o") + 1]))
        outputs[-1].touch()
        assert not (tmp_path / "native.so").exists() or len(outputs) == 2

    monkeypatch.setattr(subprocess, "run", compiler)
    build.compile_library("c++", tmp_path / "native.so")
    build.compile_library("c++", tmp_path / "native.so")  # as a slower second process does
    assert {path.name for path in tmp_path.iterdir()} == {"native.so", "native.sha256"}
    assert not any(path.exists() for path in outputs)


def replace_file(path, content):
    """Put a new file in place of one that may be in use."""
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda library: replace_file(library, b""),
        lambda library: replace_file(library, library.read_bytes()[:60_000]),  # would end the process with SIGBUS
        lambda library: replace_file(library, library.read_bytes()[:-1] + b"!"),
        lambda library: library.with_suffix(".sha256").unlink(),
        lambda library: replace_file(library.with_suffix(".sha256"), b"\xff"),
    ],
)
def test_a_damaged_library_is_compiled_again(cache, copier, damage):
    build.find()
    damage(*cache.glob("*.so"))
    for _ in range(2):
        assert calls.library_int(build.find(), "gpt2_width") > 0
    assert copier.runs == 2


def test_an_undamaged_library_that_does_not_load_is_compiled_again(cache, copier, tmp_path, monkeypatch):
    build.find()
    # A library is loaded only once from each path.
    moved = shutil.copytree(cache, tmp_path / "moved" / cache_folder.USER_FOLDER)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "moved"))
    (library,) = moved.glob("*.so")
    replace_file(library, b"for a machine of another kind")
    library.with_suffix(".sha256").write_text(hashlib.sha256(library.read_bytes()).hexdigest())
    for _ in range(2):
        assert calls.library_int(build.find(), "gpt2_width") > 0
    assert copier.runs == 2


def test_a_library_belongs_to_a_compiler_and_a_c_library(cache, copier, monkeypatch):
    for _ in range(2):
        build.find()
    os.utime(copier.path, (3, 3))
    build.find()
    assert copier.runs == len(list(cache.glob("*.so"))) == 2
    remove_compilers(monkeypatch)
    assert calls.library_int(build.find(), "gpt2_width") > 0  # from either compiler
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "1.0"))
    with pytest.raises(build.NoLibraryError, match="there is no C.. compiler"):
        build.find()


def test_the_own_folder_is_closed_to_other_users(cache, copier):
    build.find()
    assert cache.stat().st_mode & 0o777 == 0o700
    (library,) = cache.glob("*.so")
    cache.chmod(0o777)
    library.chmod(0o777)  # another user may have written to it
    build.find()
    assert cache.stat().st_mode & 0o777 == 0o700 and copier.runs == 2


def test_a_folder_that_other_users_can_write_is_not_trusted(tmp_path, cache, copier, monkeypatch):
    writable = tmp_path / "open"
    writable.mkdir()
    writable.chmod(0o777)
    monkeypatch.setenv(cache_folder.FOLDER_VARIABLE, str(writable))
    with pytest.raises(
        build.NoLibraryError, match=f"{writable} can be written by other users, .* set GPT2_NATIVE_CACHE"
    ):
        build.find()
    assert copier.runs == 0 and not cache.exists()


def test_a_folder_of_another_user_is_not_trusted(cache, copier, monkeypatch):
    build.find()
    if os.geteuid() == 0:
        os.chown(cache, 4321, -1)
    else:
        user = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.raises(build.NoLibraryError, match=f"{cache} belongs to another user, so nothing in it is executed"):
        build.find()


def test_the_folder_of_the_environment_variable_comes_first(tmp_path, cache, copier, monkeypatch):
    folder = tmp_path / "named"
    monkeypatch.setenv(cache_folder.FOLDER_VARIABLE, str(folder))
    build.find()
    assert len(list(folder.glob("*.so"))) == 1 and not cache.exists()
    (tmp_path / "file").touch()
    # A folder that cannot be created.
    monkeypatch.setenv(cache_folder.FOLDER_VARIABLE, str(tmp_path / "file/folder"))
    build.find()
    assert len(list(cache.glob("*.so"))) == 1
    monkeypatch.setenv(cache_folder.FOLDER_VARIABLE, "named")
    with pytest.raises(build.NoLibraryError, match="GPT2_NATIVE_CACHE must be an absolute path, not 'named'"):
        build.find()


def test_a_relative_cache_is_ignored_and_a_home_is_not_needed(tmp_path, monkeypatch, copier):
    monkeypatch.delenv(cache_folder.FOLDER_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    build.find()
    assert list(tmp_path.glob("home/.cache/gpt-2-tensorflow/*.so")) and not Path("relative").exists()

    def no_entry(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with pytest.raises(build.NoLibraryError, match="no temporary folder can be written: .*; set GPT2_NATIVE_CACHE to"):
        build.find()
    monkeypatch.setenv(cache_folder.FOLDER_VARIABLE, str(tmp_path / "named"))
    build.find()
    assert copier.runs == 2


@pytest.mark.parametrize("status, expected", [(0, []), (-1, [build.WITHOUT_TILES])])
def test_the_system_is_asked_to_permit_the_matrix_unit(monkeypatch, status, expected):
    requests = []

    class Library:
        def syscall(self, *numbers):
            requests.append(tuple(number.value for number in numbers))
            return status

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    monkeypatch.setattr(devices, "cpu_flags", lambda: {"avx2", devices.AMX_FLAG})
    monkeypatch.setattr(devices.sys, "platform", "linux")
    monkeypatch.setattr(devices.platform, "machine", lambda: "x86_64")
    assert build.compiler_options() == [*build.OPTIONS, *expected] and requests == [devices.REQUEST_AMX_SYSCALL]
    assert ("the system does not permit" in diagnostics.describe_processor()) == bool(expected)
    for name, machine in (("linux", "aarch64"), ("darwin", "x86_64")):  # no system call
        monkeypatch.setattr(devices.sys, "platform", name)
        monkeypatch.setattr(devices.platform, "machine", lambda machine=machine: machine)
        assert not devices.is_amx_permitted() and len(requests) == 2


@pytest.mark.slow
def test_a_library_for_the_matrix_unit_is_rejected_without_one(tmp_path, monkeypatch, tiny_dir):
    if devices.AMX_FLAG in devices.cpu_flags() or "avx512_bf16" not in devices.cpu_flags():
        pytest.skip("this processor has the matrix unit, or lacks the instructions that come with it")
    compiler = next(build.find_compilers())
    amx.require_compiler(build.compiler_command(compiler))
    monkeypatch.setattr(build, "OPTIONS", (*build.OPTIONS, *amx.OPTIONS))
    monkeypatch.setattr(devices, "is_amx_permitted", lambda: True)
    build.compile_library(compiler, tmp_path / "native.so")
    directory = open_model_dir(tiny_dir)
    weights = checkpoint.read_weights(directory.weights_path, directory.hparams)
    backend = NativeBackend(ctypes.CDLL(str(tmp_path / "native.so")), weights, directory.hparams, BFLOAT16)
    with pytest.raises(ValueError, match="the system does not permit AMX, for which this library was compiled"):
        generate_ids(backend, [TokenSequence([1], Sampling(temperature=0))], 1)
