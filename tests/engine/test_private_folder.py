"""The private folder for the library without a cache that can be written."""

import os
import shutil
import stat

import pytest

from gpt2.engine import load
from gpt2.engine.native import build, cache_folder, calls, packed_store
from gpt2.formats.model_dir import open_model_dir

SHARED = f"{cache_folder.USER_FOLDER}-{os.geteuid()}"


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def width():
    return calls.library_int(build.find(), "gpt2_width")


def test_the_processes_of_a_user_share_it(no_cache, copier):
    for _ in range(3):
        assert width() > 0
    (folder,) = no_cache.iterdir()
    assert (folder.name, mode(folder), copier.runs) == (SHARED, 0o700, 1)
    assert {path.suffix for path in folder.iterdir()} == {".so", ".sha256"}


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
def test_the_umask_does_not_matter(no_cache, copier, umask):
    previous = os.umask(umask)
    try:
        assert width() > 0
    finally:
        os.umask(previous)
    for folder in no_cache.iterdir():
        assert not mode(folder) & cache_folder.ACCESSIBLE_BY_OTHERS


def take_name_open(path):
    path.mkdir()
    path.chmod(0o777)


def take_name_readable(path):
    path.mkdir()
    path.chmod(0o755)


def take_name_with_link(path):
    target = path.with_name("target")
    target.mkdir(mode=0o700)
    path.symlink_to(target)


def take_name_of_other_user(path):
    if os.geteuid():
        pytest.skip("only root can give a folder to another user")
    path.mkdir(mode=0o700)
    os.chown(path, 4321, -1)


def take_name_with_file(path):
    path.touch(mode=0o600)


@pytest.mark.parametrize(
    "take_name",
    [take_name_open, take_name_readable, take_name_with_link, take_name_of_other_user, take_name_with_file],
)
def test_nothing_is_executed_in_a_folder_that_another_user_prepared(no_cache, copier, tmp_path, monkeypatch, take_name):
    """The prepared folder holds a library with the right name and checksum."""
    assert width() > 0
    shutil.move(no_cache / SHARED, tmp_path / "kept")
    shared = no_cache / SHARED
    take_name(shared)
    if shared.is_dir():
        shutil.copytree(tmp_path / "kept", shared, dirs_exist_ok=True, copy_function=shutil.copy)
        shutil.copystat(shared, shared)
        take_mode = {take_name_open: 0o777, take_name_readable: 0o755}.get(take_name)
        if take_mode:
            shared.chmod(take_mode)
    before = sorted(shared.iterdir()) if shared.is_dir() else None
    at_exit = []
    monkeypatch.setattr(
        cache_folder.atexit, "register", lambda function, *args, **options: at_exit.append((function, args))
    )
    assert width() > 0 and copier.runs == 2
    (folder,) = {path for path in no_cache.iterdir() if path.name not in (SHARED, "target")}
    assert folder.name.startswith("gpt-2-tensorflow-") and mode(folder) == 0o700 and len(list(folder.glob("*.so"))) == 1
    assert before == (sorted(shared.iterdir()) if shared.is_dir() else None)
    ((function, arguments),) = at_exit
    function(*arguments)
    assert not folder.exists()


@pytest.mark.parametrize("change", [lambda path: path.chmod(0o777), lambda path: path.chmod(0o775)])
def test_temporary_files_that_others_can_replace_are_not_trusted(no_cache, copier, change):
    change(no_cache)
    with pytest.raises(
        build.NoLibraryError, match=f"other users can replace files in {no_cache}; set GPT2_NATIVE_CACHE"
    ):
        build.find()
    assert copier.runs == 0 and not list(no_cache.iterdir())
    no_cache.chmod(0o755)
    assert width() > 0


def test_a_temporary_folder_of_another_user_is_not_trusted(no_cache, copier):
    if os.geteuid():
        pytest.skip("only root can give a folder to another user")
    os.chown(no_cache, 4321, -1)
    with pytest.raises(build.NoLibraryError, match="other users can replace files"):
        build.find()
    assert copier.runs == 0


def test_libraries_in_it_are_checked(no_cache, copier):
    assert width() > 0
    (library,) = (no_cache / SHARED).glob("*.so")
    library.unlink()
    library.write_bytes(b"damaged")
    assert width() > 0 and copier.runs == 2


def test_without_a_home_folder(temporary, copier, monkeypatch):
    monkeypatch.delenv(cache_folder.FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(cache_folder, "_user_folder", lambda: "")
    for _ in range(2):
        assert width() > 0
    assert copier.runs == 1 and [path.name for path in temporary.iterdir()] == [SHARED]


def test_packed_weights_are_not_stored_in_it(native, no_cache, monkeypatch, tiny_dir):
    monkeypatch.setattr(packed_store, "MIN_BYTES", 0)
    assert load.load_backend(open_model_dir(tiny_dir)).name == "the native step"
    assert packed_store.list_files() == [] and not list(no_cache.rglob("*.packed"))


def test_a_cache_that_can_be_written_comes_first(cache, temporary, copier):
    assert width() > 0
    assert list(cache.glob("*.so")) and not list(temporary.iterdir())


def test_the_doctor_forgets_failures_in_it(no_cache, copier, native):
    copier.set_script("echo 'x.h:1: error: y' >&2", "exit 1")
    with pytest.raises(build.NoLibraryError):
        build.find()
    assert len(list((no_cache / SHARED).glob("*.failed"))) == 1
    build.forget_failures()
    assert not list((no_cache / SHARED).iterdir())
