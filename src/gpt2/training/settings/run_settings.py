"""A run's settings, kept with it in `settings.json`, so that a run goes on as it was begun whatever is left out.

{"directory": the working directory, to which its relative paths belong, "settings": {name: value, ...}}
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2 import files
from gpt2.data import documents
from gpt2.errors import GPT2Error, UsageError
from gpt2.files import atomic_write, expand_path
from gpt2.formats.model_dir import DEFAULT_MODELS_DIR, find_model, list_aliases
from gpt2.hparams import HPARAMS_FILE, load_hparams
from gpt2.training import distribution
from gpt2.training.checkpoints import run_folder
from gpt2.training.settings.settings import LATEST, TrainingSettings

SETTINGS_FILE = "settings.json"
DIRECTORY, SETTINGS = "directory", "settings"
WHICH_RUN = ("run_name", "checkpoint_dir", "restore_from")
END = ("steps", "stop_after")
NOT_KEPT = (*WHICH_RUN, "steps", "threads")  # of one call, or of one machine
PATHS = ("dataset", "val_dataset", "vocabulary", "sample_dir")
SIZES = ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer", "n_token_embd")
FIXED = ("from_scratch", "model_name", "vocabulary", *SIZES)  # what a run that goes on cannot change
UNSAID = (*FIXED, "stop_after", "print_every", "models_dir", "combine")  # the model stays, and an end is seen
STAY = "leave {} out to go on with it, or begin another one with restore_from fresh or another run_name"
NEEDS = {  # flag: those that are of no effect without it
    "from_scratch": ("vocabulary", *SIZES),
    "val_every": ("val_dataset", "val_split", "val_batch_size", "val_batch_count"),
}
EITHER_OR = [("from_scratch", "model_name"), ("vocabulary", "n_vocab"), ("val_dataset", "val_split")]


def write_settings(settings: TrainingSettings, last: int | None, seed: int, goes_on: bool = False) -> None:
    """Keeps a run's settings in its folder, with the seed that it has and its last update, None if it has no end.

    goes_on: the run has a model already, whatever the settings say. Raises GPT2Error if that does not work.
    """
    kept = {**_values(settings, seed), "stop_after": last}
    if goes_on:
        with contextlib.suppress(GPT2Error):  # what is damaged is replaced
            kept |= {name: value for name, value in _read(settings.run_folder)[0].items() if name in FIXED}
    settings.run_folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(settings.run_folder / SETTINGS_FILE) as file:
        file.write(json.dumps({DIRECTORY: os.getcwd(), SETTINGS: kept}, indent=1).encode("utf-8"))


def combine_settings(given: Mapping[str, Any]) -> TrainingSettings:
    """What a person asks for who types these settings and leaves the others out.

    A run that goes on, on one machine, takes those from what is kept with it, any other the defaults. Raises
    UsageError for values that are not allowed, of no effect, or not those of the model that the run trains; GPT2Error
    if what is kept is damaged.
    """
    which = TrainingSettings(**{"dataset": ".", **{name: given[name] for name in WHICH_RUN if name in given}})
    goes_on = which.restore_from == LATEST and run_folder.has_checkpoint(which.run_folder)
    # Of several workers only one may see the run's folder: all go by what is typed on each.
    kept, _ = _read(which.run_folder) if goes_on and distribution.worker_count() == 1 else ({}, [])
    if goes_on:
        _check_fixed(given, kept, which.run_folder)
    if {*END} & {*given}:
        kept.pop("stop_after", None)
    settings = TrainingSettings(**{**kept, **given})
    _check_effects(given, settings)
    return settings


def check_model(settings: TrainingSettings) -> None:
    """Raises UsageError if a run that goes on has another model than the settings name, GPT2Error if there is none."""
    if settings.restore_from == LATEST and run_folder.has_checkpoint(settings.run_folder):
        given = {"model_name": settings.model_name, "models_dir": settings.models_dir}
        _check_fixed(given, _read(settings.run_folder)[0], settings.run_folder)


def describe_changes(settings: TrainingSettings, seed: int) -> str:
    """One line that says what a run that goes on is now asked to do in another way; empty if nothing is."""
    with contextlib.suppress(GPT2Error):  # what is damaged says nothing, and is about to be replaced
        new, (kept, unknown) = _values(settings, seed), _read(settings.run_folder)
        changed = [name for name in kept if name not in UNSAID and not _same(name, new, kept)]
        said = [f"with {name} {_shown(new[name])} instead of the run's {_shown(kept[name])}" for name in changed]
        said += [f"without {name}, which this version does not know" for name in unknown]
        if kept and not kept["from_scratch"] and not _same("model_name", new, kept):
            said.append(f"with the model that it was begun with, {kept['model_name']}, not with {new['model_name']}")
        return f"{settings.run_folder} goes on {', '.join(said)}" if said else ""
    return ""


def _values(settings: TrainingSettings, seed: int) -> dict[str, Any]:
    """What is kept, the end of the run aside."""
    values = {name: value for name, value in dataclasses.asdict(settings).items() if name not in NOT_KEPT}
    return {**values, "learning_rate": settings.peak_learning_rate, "seed": seed}


def _shown(value: Any) -> str:
    return "default" if value is None else str(value)


def _read(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """What was kept, relative paths as they are from here, and names that only another version knows.

    Nothing if an older version or an old tool made the run. Raises GPT2Error if it cannot be read or is damaged.
    """
    path = folder / SETTINGS_FILE
    if not path.is_file():
        return {}, []
    known = [field.name for field in dataclasses.fields(TrainingSettings) if field.name not in NOT_KEPT]
    try:
        found = json.loads(path.read_bytes())
        kept = {name: value for name, value in found[SETTINGS].items() if name in known}
        for name in PATHS:
            if kept.get(name):
                kept[name] = _from_here(kept[name], found[DIRECTORY])
        settings = TrainingSettings(**kept)
    except OSError as error:
        raise GPT2Error(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GPT2Error(
            f"{path} is damaged ({type(error).__name__}: {error}); delete it and type the run's flags once more"
        ) from error
    kept = {name: value for name, value in dataclasses.asdict(settings).items() if name in known}
    return kept, sorted(set(found[SETTINGS]) - set(known))


def _from_here(path: str, directory: str) -> str:
    """A path that was relative to a directory, unless that is gone: then the run has moved, and its texts with it."""
    if os.path.realpath(directory) == os.path.realpath(os.curdir) or not os.path.isdir(directory):
        return path
    return os.path.join(directory, expand_path(path))


def _same(name: str, given: Mapping[str, Any], kept: Mapping[str, Any]) -> bool:
    mine, its = given[name], kept[name]
    if mine == its or None in (mine, its):
        return mine == its
    if name == "model_name":
        folders = [_folder(mine, given.get("models_dir", kept["models_dir"])), _folder(its, kept["models_dir"])]
        return mine in list_aliases(its) or folders[0] == folders[1]
    return name in PATHS and os.path.realpath(expand_path(mine)) == os.path.realpath(expand_path(its))


def _folder(model_name: str, models_dir: str) -> Path:
    try:
        return find_model(model_name, models_dir).path.resolve()
    except GPT2Error:  # it is no longer there
        return Path(model_name).resolve()


def _check_fixed(given: Mapping[str, Any], kept: Mapping[str, Any], folder: Path) -> None:
    """Raises UsageError for a model that is not the run's; of one whose settings were not kept, its sizes tell."""
    if not kept:
        if "model_name" in given and files.is_file(folder / HPARAMS_FILE):
            named = find_model(given["model_name"], given.get("models_dir", DEFAULT_MODELS_DIR))
            if named.hparams != load_hparams(folder / HPARAMS_FILE):
                raise UsageError(
                    f"the run in {folder} is of another model than {given['model_name']}: {STAY.format('model_name')}"
                )
        return
    own = "from_scratch" if kept["from_scratch"] else f"model_name {kept['model_name']}"
    without = ("model_name",) if kept["from_scratch"] else ("vocabulary", *SIZES)  # what it knows nothing of
    for name in FIXED:
        if name in given and (name in without or not _same(name, given, kept)):
            its = own if name in without or kept[name] in (None, False) else f"{name} {kept[name]}"
            raise UsageError(
                f"the run in {folder} was begun with {its}, not with {name} {given[name]}: {STAY.format(name)}"
            )


def _check_effects(given: Mapping[str, Any], settings: TrainingSettings) -> None:
    """Raises UsageError for what surely is a mistake: a setting that nothing would come of."""
    for needed, names in NEEDS.items():
        for name in names:
            if name in given and needed not in given and not getattr(settings, needed):
                raise UsageError(f"{name} is of no effect without {needed}: give {needed} too")
    for pair in EITHER_OR:
        if all(given.get(name) for name in pair):
            raise UsageError(f"give {' or '.join(pair)}, not both")
    rows = [name for name in ("csv_header", "csv_start") if given.get(name)]
    if rows:
        paths = [
            path
            for text in (settings.dataset, settings.val_dataset)
            if text
            for path in documents.find_text_files(text)
        ]
        if not any(".csv" in path.suffixes for path in paths):
            raise UsageError(f"{rows[0]} is of no effect: there is no .csv in {settings.dataset}")
