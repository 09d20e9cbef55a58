"""Copies to and from Google Drive, for notebooks in Google Colaboratory.

A copy of a run replaces an earlier state of the same run. A later state, or a different run of the same name, is moved
aside.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from gpt2 import files
from gpt2.errors import GPT2Error
from gpt2.formats.openai import checkpoint
from gpt2.formats.openai.checkpoint_files import STATE_FILE, current_checkpoint, index_file
from gpt2.training.checkpoints.run_folder import has_checkpoint, move_aside
from gpt2.training.checkpoints.run_lock import LOCK_FILE
from gpt2.training.logs.history import HISTORY_FILE

MOUNT_POINT = Path("/content/drive")
MY_DRIVE = "MyDrive"
CHECKPOINT_DIR = "checkpoint"
CHECKPOINT_FILE = re.compile(r"(?:model|training)-(\d+)\..+")
DATA_FILE = re.compile(r"(.+)\.data-\d{5}-of-\d{5}")


def mount_gdrive() -> None:
    """Mount the user's Google Drive in Colaboratory.

    Raises:
        GPT2Error: If the program does not run in Colaboratory.
    """
    if "google.colab" not in sys.modules:
        raise GPT2Error("You must be in Colaboratory to mount your Google Drive")
    from google.colab import drive

    drive.mount(str(MOUNT_POINT))


def is_mounted() -> None:
    """Check that the Google Drive is mounted.

    Raises:
        GPT2Error: If the drive is not mounted.
    """
    if not MOUNT_POINT.is_dir():
        raise GPT2Error("You must mount first using mount_gdrive()")


def get_tarfile_name(checkpoint_folder: str) -> str:
    """Return the name of a folder's archive: checkpoint_run1.tar for checkpoint/run1."""
    return checkpoint_folder.replace(os.path.sep, "_") + ".tar"


def copy_checkpoint_to_gdrive(
    run_name: str = "run1", copy_folder: bool = False, *, checkpoint_folder: str | None = None
) -> None:
    """Copy a run's folder to a mounted Google Drive.

    An earlier state of the run on the Drive is replaced. A later state, or a different run of the same name, is moved
    aside, and a warning names its new path.

    Args:
        run_name: Name of the run in the folder `checkpoint`.
        copy_folder: Whether to copy the folder itself instead of a `.tar` archive of it.
        checkpoint_folder: Path of the run's folder, which version 0.4 took instead of `run_name`.

    Raises:
        GPT2Error: If the run or the Drive is missing, if the run has no complete checkpoint, or if the copy fails.
    """
    folder = _run_folder(run_name, checkpoint_folder)
    if not files.is_folder(folder):
        raise GPT2Error(f"there is no run {folder} to copy; give the run_name of an existing run")
    if copy_folder:
        mirror_run(folder, drive_path(str(folder)))
        return
    archive = Path(get_tarfile_name(str(folder)))
    target = drive_path(archive.name)
    _check_complete(folder)
    with _reporting_copy_errors(folder, archive), files.temporary_file(archive) as part, tarfile.open(part, "w") as tar:
        tar.add(folder, filter=_exclude_lock)
    if target.is_file() and not _is_archive_of_earlier_state(target, folder):
        with _reporting_copy_errors(archive, target):
            move_aside(target, "the copy replaces it")
    _copy_file(archive, target)


def copy_checkpoint_from_gdrive(
    run_name: str = "run1", copy_folder: bool = False, *, checkpoint_folder: str | None = None
) -> None:
    """Copy a run's folder from a mounted Google Drive into the working directory.

    The Drive's checkpoint becomes the run's current checkpoint. A local run that is not an earlier state of the Drive's
    run is moved aside, and a warning names its new path.

    Args:
        run_name: Name of the run in the folder `checkpoint`.
        copy_folder: Whether to copy from a folder on the Drive instead of from a `.tar` archive.
        checkpoint_folder: Path of the run's folder, which version 0.4 took instead of `run_name`.

    Raises:
        GPT2Error: If the Drive or its copy of the run is missing, if that copy is incomplete, or if copying fails.
    """
    folder = _run_folder(run_name, checkpoint_folder)
    if copy_folder:
        copy_run(drive_path(str(folder)), folder)
        return
    archive = Path(get_tarfile_name(str(folder)))
    _copy_file(drive_path(archive.name), archive)
    with _extract_archive(archive, folder, lambda name: True) as extracted:
        copy_run(extracted, folder, _move_file)


def copy_file_to_gdrive(file_path: str) -> None:
    """Copy a file to a mounted Google Drive.

    Raises:
        GPT2Error: If the file or the Drive is missing, or if the copy fails.
    """
    _copy_file(Path(file_path), drive_path(file_path))


def copy_file_from_gdrive(file_path: str) -> None:
    """Copy a file from a mounted Google Drive.

    Raises:
        GPT2Error: If the file or the Drive is missing, or if the copy fails.
    """
    _copy_file(drive_path(file_path), Path(file_path))


def _exclude_lock(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if Path(member.name).name == LOCK_FILE else member


def mirror_run(source: Path, target: Path) -> None:
    """Copy a run with `copy_run`, then delete checkpoints in `target` that are older than the ones in `source`."""
    copy_run(source, target)
    newest_step = _step(current_checkpoint(source))
    with _reporting_copy_errors(source, target):
        # Index files are deleted first: a checkpoint without its index is ignored, so none is left half deleted.
        for path in sorted(target.rglob("*"), key=lambda path: path.suffix != ".index"):
            match = CHECKPOINT_FILE.fullmatch(path.name)
            if match and int(match[1]) < newest_step and not (source / path.relative_to(target)).exists():
                path.unlink()


def copy_run(source: Path, target: Path, place_file: Callable[[Path, Path], None] | None = None) -> None:
    """Bring the run in the folder `target` to the state of the run in `source`.

    Other files in `target` remain. If `target` is not an earlier state of the run, it is moved aside after the copy
    is complete. The files that name the current checkpoints are copied last, so that an interrupted copy
    leaves the previous checkpoint in use.

    Args:
        source: Folder of the run to copy.
        target: Folder of the copy, which may not exist yet.
        place_file: Function that puts a source file at a target path; by default, it copies the file.

    Raises:
        GPT2Error: If `source` has no complete checkpoint, or if the copy fails.
    """
    _check_complete(source)
    with _reporting_copy_errors(source, target):
        if not has_checkpoint(target) or _is_earlier_state(target, source):
            _update_files(source, target, place_file or _copy_file)
            return
        part = files.partial_path(target)
        _update_files(source, part, place_file or _copy_file)
        move_aside(target, "the copy replaces it")
        os.replace(part, target)


def _check_complete(source: Path) -> None:
    if not files.is_folder(source):
        raise GPT2Error(f"there is no folder {source} to copy")
    if not has_checkpoint(source):
        raise GPT2Error(f"{source} holds no checkpoint to copy")
    checkpoint.Checkpoint(current_checkpoint(source)).check_sizes()


def _is_earlier_state(folder: Path, reference: Path) -> bool:
    """Return whether a folder holds the run of `reference` in the same or in an earlier state."""
    try:
        checkpoint_prefix = current_checkpoint(folder)
        reference_prefix = current_checkpoint(reference)
        if _step(checkpoint_prefix) == _step(reference_prefix):  # index files contain checksums of all weights
            return index_file(checkpoint_prefix).read_bytes() == index_file(reference_prefix).read_bytes()
        return (
            _step(checkpoint_prefix) < _step(reference_prefix)
            and index_file(checkpoint_prefix).is_file()
            and _history(reference).startswith(_history(folder))
        )
    except (GPT2Error, OSError):
        return False  # an unreadable folder is never overwritten


def _step(prefix: Path) -> int:
    match = re.fullmatch(r".*-(\d+)", prefix.name)
    return int(match[1]) if match else 0


def _history(folder: Path) -> bytes:
    path = folder / HISTORY_FILE
    return path.read_bytes() if path.is_file() else b""


def _update_files(source: Path, target: Path, place_file: Callable[[Path, Path], None]) -> None:
    """Put each finished file of `source` that is missing or different in `target` into `target`."""
    paths = (path for path in sorted(source.rglob("*")) if path.is_file() and path.name != LOCK_FILE)
    names = [path.relative_to(source) for path in paths]
    names = [name for name in names if name.suffix != ".part" and not _is_unfinished(name)]
    filecmp.clear_cache()
    # Index files follow their data, so that equal index files mean equal data. Files that name a checkpoint come last.
    for name in sorted(names, key=lambda name: (name.name == STATE_FILE, name.suffix == ".index")):
        if not _is_same_file(source / name, target / name):
            place_file(source / name, target / name)


def _is_unfinished(name: Path) -> bool:
    return any(part.startswith(files.UNFINISHED_PREFIX) for part in name.parts)


def _is_same_file(source: Path, target: Path) -> bool:
    if not target.is_file() or target.stat().st_size != source.stat().st_size:
        return False
    match = DATA_FILE.fullmatch(source.name)
    if match and source.with_name(f"{match[1]}.index").is_file():
        return _is_same_file(source.with_name(f"{match[1]}.index"), target.with_name(f"{match[1]}.index"))
    return filecmp.cmp(source, target, shallow=False)


@contextlib.contextmanager
def _extract_archive(archive: Path, folder: Path, is_selected: Callable[[str], bool]) -> Iterator[Path]:
    """Extract the selected files of an archive of `folder` into a temporary folder alongside it."""
    with _reporting_copy_errors(archive, folder), files.creating_folder(folder.parent):
        files.remove_unfinished(folder.parent)  # left by killed processes
        with tempfile.TemporaryDirectory(prefix=files.UNFINISHED_PREFIX, dir=folder.parent) as temporary:
            with tarfile.open(archive) as tar:
                members = [member for member in tar if is_selected(member.name)]
                if hasattr(tarfile, "data_filter"):  # Python 3.12, 3.11.4, 3.10.12
                    tar.extractall(temporary, members, filter="data")
                else:
                    tar.extractall(temporary, members)
            yield Path(temporary, folder.relative_to(folder.anchor))


def _is_archive_of_earlier_state(archive: Path, folder: Path) -> bool:
    try:
        with _extract_archive(archive, folder, lambda name: not DATA_FILE.fullmatch(name)) as extracted:
            return _is_earlier_state(extracted, folder)
    except GPT2Error:
        return False


def _copy_file(source: Path, target: Path) -> None:
    if not files.is_file(source):
        raise GPT2Error(f"there is no file {source} to copy")
    with (
        _reporting_copy_errors(source, target),
        files.creating_folder(target.parent),
        files.temporary_file(target) as part,
    ):
        shutil.copyfile(source, part)


def _move_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    files.move_into_place(source, target)


@contextlib.contextmanager
def _reporting_copy_errors(source: Path, target: Path) -> Iterator[None]:
    """Turn errors of the file system and of archives into GPT2Error."""
    try:
        yield
    except (OSError, tarfile.TarError) as error:
        reason = getattr(error, "strerror", None) or error
        raise GPT2Error(f"{source} could not be copied to {target}: {reason}") from error


def _run_folder(run_name: str, checkpoint_folder: str | None) -> Path:
    return Path(checkpoint_folder) if checkpoint_folder else Path(CHECKPOINT_DIR, run_name)


def drive_path(path: str) -> Path:
    """Return the path on the Drive for a local path.

    Raises:
        GPT2Error: If the Drive is not mounted.
    """
    is_mounted()
    return MOUNT_POINT / MY_DRIVE / Path(path).relative_to(Path(path).anchor)
