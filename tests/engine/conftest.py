"""Fixtures: folders for compiled libraries, and compilers that compile nothing."""

from __future__ import annotations

import tempfile

import pytest
from fake_compiler import FakeCompiler

from gpt2.engine.native import cache_folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return the folder for compiled libraries, which does not exist yet."""
    monkeypatch.delenv(cache_folder.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / cache_folder.USER_FOLDER


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    fake = FakeCompiler(tmp_path / "cxx")
    monkeypatch.setenv("CXX", str(fake.path))
    return fake


@pytest.fixture
def copier(native, compiler):
    """Return a compiler whose output is the library that other tests use."""
    compiler.set_script(f'cp {native._name} "$out"')
    return compiler


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Return the folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def no_cache(tmp_path, monkeypatch, temporary):
    """Make all cache folders impossible, and return the folder for temporary files."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file/cache"))
    monkeypatch.setenv(cache_folder.FOLDER_VARIABLE, str(tmp_path / "file/folder"))
    cache_folder._new_private_folder.cache_clear()
    yield temporary
    cache_folder._new_private_folder.cache_clear()
