"""Data sets: downloaded once, resumed, checked by size and SHA-256; read from archives, folders and files."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from file_server import other_content, serve, short_body, status

from gpt2.errors import GPT2Error
from gpt2.evaluation import datasets
from gpt2.evaluation.datasets import DataFile, open_data

CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with serve({"a/data.bin": CONTENT, "b/data.bin": CONTENT}) as server:
        yield server


def data_file(server, content=CONTENT, **changes):
    urls = (f"{server.url}/a/data.bin", f"{server.url}/b/data.bin")
    sha256 = hashlib.sha256(content).hexdigest()
    return DataFile("data.bin", urls, len(content), sha256)._replace(**changes)


def test_downloaded_once(server, tmp_path):
    reports = []
    data = data_file(server)
    folder = tmp_path / "new" / "folder"
    path = datasets.download(data, folder, lambda *report: reports.append(report))
    assert path.read_bytes() == CONTENT and [child.name for child in folder.iterdir()] == ["data.bin"]
    assert reports[-1] == ("data.bin", len(CONTENT), len(CONTENT))
    assert datasets.download(data, folder) == path and len(server.requests) == 1


def test_a_broken_download_resumes_and_another_url_is_tried(server, tmp_path):
    server.faults = {"a/data.bin": [short_body(100_000, server)]}
    datasets.download(data_file(server), tmp_path)
    assert [requested_range for _, requested_range in server.requests] == [None, "bytes=65536-"]
    (tmp_path / "data.bin").unlink()
    server.faults = {"a/data.bin": [status(404)]}
    datasets.download(data_file(server), tmp_path)
    assert server.requests[-1][0] == "b/data.bin"


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"x" + content[1:]])
def test_a_file_with_other_content_is_not_kept(server, tmp_path, damage):
    server.faults = {f"{folder}/data.bin": [other_content(damage(CONTENT))] * 9 for folder in "ab"}
    with pytest.raises(GPT2Error, match=r"data.bin could not be downloaded: .*(bytes instead of|SHA-256 is not)"):
        datasets.download(data_file(server), tmp_path / "folder")
    assert not list(tmp_path.glob("folder/data.bin"))
    (tmp_path / "data.bin").write_bytes(damage(CONTENT))
    server.faults = {}
    assert datasets.download(data_file(server), tmp_path).read_bytes() == CONTENT


def test_a_failed_download_says_what_to_do_and_leaves_no_folder(server, tmp_path):
    server.files.clear()
    with pytest.raises(GPT2Error, match="404 Not Found.*; download it by other means and give its path"):
        datasets.download(data_file(server), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_the_known_files_are_fully_described():
    for data in vars(datasets).values():
        if isinstance(data, DataFile):
            assert len(bytes.fromhex(data.sha256)) == 32 and data.size > 0 and data.urls
            assert data.urls[0].startswith("http") and "/" not in data.name


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert datasets.default_folder() == tmp_path / "gpt-2-tensorflow" / "data"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert datasets.default_folder() == tmp_path / ".cache" / "gpt-2-tensorflow" / "data"


def make_archive(path: Path) -> Path:
    """Write an archive of the type that the suffix names."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as zipped:
            zipped.writestr("inner/other.txt", "no")
            zipped.writestr("inner/text.txt", "yes")
    else:
        with tarfile.open(path, f"w:{path.suffix[1:].replace('tar', '')}") as packed:
            for name, content in (("./inner/other.txt", b"no"), ("./inner/text.txt", b"yes")):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                packed.addfile(info, io.BytesIO(content))
    return path


def read(path: Path, member: str = "inner/text.txt") -> bytes:
    with open_data(path, member) as file:
        return file.read()


@pytest.mark.parametrize("name", ["data.zip", "data.tar", "data.gz"])
def test_archives_are_recognized_by_content_not_by_name(tmp_path, name):
    path = make_archive(tmp_path / name)
    assert read(path) == b"yes" and read(path.rename(tmp_path / "renamed")) == b"yes"
    with pytest.raises(GPT2Error, match="holds no inner/missing.txt"):
        read(tmp_path / "renamed", "inner/missing.txt")
    data = (tmp_path / "renamed").read_bytes()
    for cut in range(10, len(data), 37):
        (tmp_path / "cut").write_bytes(data[:cut])
        try:
            read(tmp_path / "cut")
        except GPT2Error as error:
            assert str(tmp_path / "cut") in str(error)


def test_an_unpacked_folder_and_a_file(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "text.txt").write_text("deep")
    assert read(tmp_path) == b"deep" and read(tmp_path / "inner") == b"deep"
    assert read(tmp_path / "inner" / "text.txt") == b"deep" and read(tmp_path / "inner" / "text.txt", "") == b"deep"
    with pytest.raises(GPT2Error, match="holds no other.txt"):
        read(tmp_path, "inner/other.txt")
    with pytest.raises(GPT2Error, match="gone cannot be read: No such file"):
        read(tmp_path / "gone")


def test_an_implausibly_large_member_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "MAX_MEMBER_BYTES", 2)
    for name in ("data.zip", "data.tar"):
        with pytest.raises(GPT2Error, match="its inner/text.txt would have 3 bytes"):
            read(make_archive(tmp_path / name))
