"""Copies to and from Google Drive, for notebooks in Google Colaboratory.

A copy of a run replaces an earlier state of the same run; any other run of its name, and a later state, is moved aside.
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

MOUNTED = Path("/content/drive")
MY_DRIVE = "MyDrive"
RUNS = "checkpoint"
OF_A_STEP = re.compile(r"(?:model|training)-(\d+)\..+")
DATA = re.compile(r"(.+)\.data-\d{5}-of-\d{5}")


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

    An earlier state of the run is replaced there; a later one, and another run of its name, is moved aside, with a
    warning that says where to. checkpoint_folder: the path of the run's folder, as version 0.4 named it. Raises
    GPT2Error if the run or the Drive is not there, if the run has no whole checkpoint, or if the copy fails.
    """
    folder = _run_folder(run_name, checkpoint_folder)
    if not files.is_folder(folder):
        raise GPT2Error(f"there is no run {folder} to copy")
    if copy_folder:
        mirror(folder, in_drive(str(folder)))
        return
    archive = Path(get_tarfile_name(str(folder)))
    target = in_drive(archive.name)
    _check_whole(folder)
    with _copying(folder, archive), files.temporary_file(archive) as part, tarfile.open(part, "w") as tar:
        tar.add(folder, filter=_no_lock)
    if target.is_file() and not _archive_is_earlier(target, folder):
        with _copying(archive, target):
            move_aside(target, "this one takes its place")
    _copy(archive, target)


def copy_checkpoint_from_gdrive(
    run_name: str = "run1", copy_folder: bool = False, *, checkpoint_folder: str | None = None
) -> None:
    """Copies a run's folder, or the archive of it, from a mounted Google Drive into the working directory.

    Drive's checkpoint is then the run's current one. A local run that is no earlier state of Drive's is moved aside,
    with a warning that says where to. Raises GPT2Error if Drive's is not there or not whole, or if the copy fails.
    """
    folder = _run_folder(run_name, checkpoint_folder)
    if copy_folder:
        bring(in_drive(str(folder)), folder)
        return
    archive = Path(get_tarfile_name(str(folder)))
    _copy(in_drive(archive.name), archive)
    with _extracted(archive, folder, lambda name: True) as extracted:
        bring(extracted, folder, _move)


def copy_file_to_gdrive(file_path: str) -> None:
    """Copies a file to a mounted Google Drive."""
    _copy(Path(file_path), in_drive(file_path))


def copy_file_from_gdrive(file_path: str) -> None:
    """Copies a file from a mounted Google Drive."""
    _copy(in_drive(file_path), Path(file_path))


def _no_lock(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if Path(member.name).name == LOCK_FILE else member


def mirror(source: Path, target: Path) -> None:
    """As `bring`; then removes the target's checkpoints that are older than the source's and that it no longer has."""
    bring(source, target)
    newest = _step(current_checkpoint(source))
    with _copying(source, target):
        for path in sorted(target.rglob("*"), key=lambda path: path.suffix != ".index"):  # without it, no checkpoint
            step = OF_A_STEP.fullmatch(path.name)
            if step and int(step[1]) < newest and not (source / path.relative_to(target)).exists():
                path.unlink()


def bring(source: Path, target: Path, put: Callable[[Path, Path], None] | None = None) -> None:
    """Makes the folder `target` the run that `source` is; what it has besides stays.

    A target that is no earlier state of that run is moved aside, once the copy is complete beside it. The files that
    name the current checkpoints come last, so that a copy that breaks off leaves the run that was there in use.
    put: how a file gets there; copied, if not given. Raises GPT2Error if `source` has no whole checkpoint.
    """
    _check_whole(source)
    with _copying(source, target):
        if not has_checkpoint(target) or _is_earlier(target, source):
            _update(source, target, put or _copy)
            return
        part = files.partial_path(target)
        _update(source, part, put or _copy)
        move_aside(target, "this one takes its place")
        os.replace(part, target)


def _check_whole(source: Path) -> None:
    if not files.is_folder(source):
        raise GPT2Error(f"there is no folder {source} to copy")
    if not has_checkpoint(source):
        raise GPT2Error(f"{source} holds no checkpoint to copy")
    checkpoint.Checkpoint(current_checkpoint(source)).check_sizes()


def _is_earlier(then: Path, now: Path) -> bool:
    """Whether the first folder holds what the second one's run was earlier, or what it is."""
    try:
        before, after = current_checkpoint(then), current_checkpoint(now)
        if _step(before) == _step(after):  # with the checksums of all weights
            return index_file(before).read_bytes() == index_file(after).read_bytes()
        return (
            _step(before) < _step(after) and index_file(before).is_file() and _history(now).startswith(_history(then))
        )
    except (GPT2Error, OSError):
        return False  # of what cannot be read, nothing is known


def _step(prefix: Path) -> int:
    match = re.fullmatch(r".*-(\d+)", prefix.name)
    return int(match[1]) if match else 0


def _history(folder: Path) -> bytes:
    path = folder / HISTORY_FILE
    return path.read_bytes() if path.is_file() else b""


def _update(source: Path, target: Path, put: Callable[[Path, Path], None]) -> None:
    found = (path for path in sorted(source.rglob("*")) if path.is_file() and path.name != LOCK_FILE)
    names = [path.relative_to(source) for path in found]
    names = [n for n in names if n.suffix != ".part" and not any(p.startswith(files.UNFINISHED) for p in n.parts)]
    filecmp.clear_cache()
    # An index after its data, so that equal ones mean equal data; what names a checkpoint after all.
    for name in sorted(names, key=lambda name: (name.name == STATE_FILE, name.suffix == ".index")):
        if not _is_same(source / name, target / name):
            put(source / name, target / name)


def _is_same(source: Path, target: Path) -> bool:
    if not target.is_file() or target.stat().st_size != source.stat().st_size:
        return False
    data = DATA.fullmatch(source.name)
    if data and source.with_name(f"{data[1]}.index").is_file():
        return _is_same(source.with_name(f"{data[1]}.index"), target.with_name(f"{data[1]}.index"))
    return filecmp.cmp(source, target, shallow=False)


@contextlib.contextmanager
def _extracted(archive: Path, folder: Path, wanted: Callable[[str], bool]) -> Iterator[Path]:
    """The files of an archive of `folder` whose names are wanted, in a folder beside it that is gone afterwards."""
    with _copying(archive, folder), files.creating_folder(folder.parent):
        files.remove_unfinished(folder.parent)  # of a process that was killed
        with tempfile.TemporaryDirectory(prefix=files.UNFINISHED, dir=folder.parent) as temporary:
            with tarfile.open(archive) as tar:
                members = [member for member in tar if wanted(member.name)]
                if hasattr(tarfile, "data_filter"):  # Python 3.12, 3.11.4, 3.10.12
                    tar.extractall(temporary, members, filter="data")
                else:
                    tar.extractall(temporary, members)
            yield Path(temporary, folder.relative_to(folder.anchor))


def _archive_is_earlier(archive: Path, folder: Path) -> bool:
    try:
        with _extracted(archive, folder, lambda name: not DATA.fullmatch(name)) as then:
            return _is_earlier(then, folder)
    except GPT2Error:
        return False


def _copy(source: Path, target: Path) -> None:
    if not files.is_file(source):
        raise GPT2Error(f"there is no file {source} to copy")
    with _copying(source, target), files.creating_folder(target.parent), files.temporary_file(target) as part:
        shutil.copyfile(source, part)


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    files.move_into_place(source, target)


@contextlib.contextmanager
def _copying(source: Path, target: Path) -> Iterator[None]:
    """Raises GPT2Error for what goes wrong with files."""
    try:
        yield
    except (OSError, tarfile.TarError) as error:
        reason = getattr(error, "strerror", None) or error
        raise GPT2Error(f"{source} could not be copied to {target}: {reason}") from error


def _run_folder(run_name: str, checkpoint_folder: str | None) -> Path:
    return Path(checkpoint_folder) if checkpoint_folder else Path(RUNS, run_name)


def in_drive(path: str) -> Path:
    """Raises GPT2Error if there is no Drive."""
    is_mounted()
    return MOUNTED / MY_DRIVE / Path(path).relative_to(Path(path).anchor)
