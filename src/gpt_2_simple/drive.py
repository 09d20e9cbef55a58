"""Copies to and from Google Drive, for notebooks in Google Colaboratory."""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
from pathlib import Path

from gpt2 import files
from gpt2.errors import GPT2Error
from gpt2.formats.model_dir import STATE_FILE

MOUNTED = Path("/content/drive")
MY_DRIVE = "MyDrive"
RUNS = "checkpoint"


def mount_gdrive() -> None:
    """Mounts the user's Google Drive in Colaboratory. Raises GPT2Error elsewhere."""
    if "google.colab" not in sys.modules:
        raise GPT2Error("You must be in Colaboratory to mount your Google Drive")
    from google.colab import drive

    drive.mount(str(MOUNTED))


def is_mounted() -> None:
    """Raises GPT2Error if the Google Drive is not mounted."""
    if not MOUNTED.is_dir():
        raise GPT2Error("You must mount first using mount_gdrive()")


def get_tarfile_name(checkpoint_folder: str) -> str:
    """A folder's path -> the name of an archive: checkpoint/run1 -> checkpoint_run1.tar."""
    return checkpoint_folder.replace(os.path.sep, "_") + ".tar"


def copy_checkpoint_to_gdrive(
    run_name: str = "run1", copy_folder: bool = False, *, checkpoint_folder: str | None = None
) -> None:
    """Copies a run's folder to a mounted Google Drive, as an archive or as a folder.

    A folder that is there already is brought up to date. checkpoint_folder: the path of the run's folder, as version
    0.4 named it. Raises GPT2Error if the run or the Drive is not there.
    """
    folder = _run_folder(run_name, checkpoint_folder)
    if not folder.is_dir():
        raise GPT2Error(f"there is no run {folder} to copy")
    if copy_folder:
        mirror(folder, in_drive(str(folder)))
        return
    archive = Path(get_tarfile_name(str(folder)))
    target = in_drive(archive.name)
    with tarfile.open(archive, "w") as tar:
        tar.add(folder)
    _copy(archive, target)


def copy_checkpoint_from_gdrive(
    run_name: str = "run1", copy_folder: bool = False, *, checkpoint_folder: str | None = None
) -> None:
    """Copies a run's folder, or the archive of it, from a mounted Google Drive into the working directory.

    Raises GPT2Error if it is not there.
    """
    folder = _run_folder(run_name, checkpoint_folder)
    if copy_folder:
        mirror(in_drive(str(folder)), folder)
        return
    archive = Path(get_tarfile_name(str(folder)))
    _copy(in_drive(archive.name), archive)
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):  # Python 3.12, 3.11.4, 3.10.12
            tar.extractall(filter="data")
        else:
            tar.extractall()


def copy_file_to_gdrive(file_path: str) -> None:
    """Copies a file to a mounted Google Drive."""
    _copy(Path(file_path), in_drive(file_path))


def copy_file_from_gdrive(file_path: str) -> None:
    """Copies a file from a mounted Google Drive."""
    _copy(in_drive(file_path), Path(file_path))


def mirror(source: Path, target: Path) -> None:
    """Makes the folder `target` hold what `source` holds: what is there already and unchanged is left alone.

    The file that names the current checkpoint comes last, and what `source` no longer has goes after it, so that a copy
    that breaks off leaves a folder that can be used. Raises GPT2Error if `source` is not there.
    """
    if not source.is_dir():
        raise GPT2Error(f"there is no folder {source} to copy")
    files = [path.relative_to(source) for path in sorted(source.rglob("*")) if path.is_file()]
    for name in sorted(files, key=lambda name: name.name == STATE_FILE):
        _copy_if_changed(source / name, target / name)
    for path in [*target.rglob("*")]:
        if path.is_file() and path.relative_to(target) not in files:
            path.unlink()


def _copy_if_changed(source: Path, target: Path) -> None:
    new = source.stat()
    if target.is_file():
        old = target.stat()
        if old.st_size == new.st_size and old.st_mtime >= new.st_mtime:
            return
    _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    if not source.is_file():
        raise GPT2Error(f"there is no file {source} to copy")
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.written_aside(target) as part:
        shutil.copyfile(source, part)


def _run_folder(run_name: str, checkpoint_folder: str | None) -> Path:
    return Path(checkpoint_folder) if checkpoint_folder else Path(RUNS, run_name)


def in_drive(path: str) -> Path:
    """Raises GPT2Error if there is no Drive."""
    is_mounted()
    return MOUNTED / MY_DRIVE / Path(path).relative_to(Path(path).anchor)
