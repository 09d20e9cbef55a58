"""The settings stored with a run in `settings.json`, and used by a resumed run unless they are given again.

{"directory": the working directory that relative paths belong to, "settings": {name: value, ...}}
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
from gpt2.data.csv_table import table_delimiter
from gpt2.errors import GPT2Error, UsageError
from gpt2.files import atomic_write, expand_path
from gpt2.formats.model_dir import DEFAULT_MODELS_DIR, find_model, list_aliases
from gpt2.hparams import HPARAMS_FILE, load_hparams
from gpt2.training import distribution
from gpt2.training.checkpoints import run_folder
from gpt2.training.settings.rules import FIXED_SETTINGS, NEW_MODEL_SETTINGS, RULES
from gpt2.training.settings.settings import LATEST, TrainingSettings

SETTINGS_FILE = "settings.json"
DIRECTORY_KEY = "directory"
SETTINGS_KEY = "settings"
CSV_SETTINGS = ("csv_header", "csv_start", "column", "no_header", "csv_first_column")
# The stored settings that a given setting replaces.
REPLACED_SETTINGS = {
    "column": ("csv_first_column",),
    "csv_first_column": ("column",),
    "csv_header": ("no_header",),
    "no_header": ("csv_header",),
}
KEEP_MODEL_ADVICE = "leave {} out to resume the run, or start another one with restore_from fresh or another run_name"


def write_settings(settings: TrainingSettings, last_step: int | None, seed: int, resumes: bool = False) -> None:
    """Write a run's settings into its folder.

    Args:
        settings: The settings of this call.
        last_step: The number of the last update; None if the run has no end.
        seed: The run's seed.
        resumes: Whether the run has a model already; the model's settings then stay.

    Raises:
        GPT2Error: The file cannot be written.
    """
    stored = {**_storable(settings, seed), "stop_after": last_step}
    if resumes:
        with contextlib.suppress(GPT2Error):  # a damaged file is replaced
            previous = _read_settings(settings.run_folder)[0]
            stored |= {name: value for name, value in previous.items() if name in FIXED_SETTINGS}
    settings.run_folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(settings.run_folder / SETTINGS_FILE) as file:
        file.write(json.dumps({DIRECTORY_KEY: os.getcwd(), SETTINGS_KEY: stored}, indent=1).encode("utf-8"))


def combine_settings(given: Mapping[str, Any]) -> TrainingSettings:
    """Return the settings of a call that gives only some of them.

    On one machine, a resumed run takes the other settings from its folder; any other run takes the defaults.

    Raises:
        UsageError: A value is not allowed or has no effect, or belongs to another model than the run's.
        GPT2Error: The stored settings are damaged.
    """
    per_call = {name: value for name, value in given.items() if name in RULES and RULES[name].per_call}
    location = TrainingSettings(**{"dataset": ".", **per_call})
    resumes = location.restore_from == LATEST and run_folder.has_checkpoint(location.run_folder)
    # Of several workers only one may have access to the run's folder, so each uses the settings it was given.
    stored: dict[str, Any] = {}
    if resumes and distribution.worker_count() == 1:
        stored, _ = _read_settings(location.run_folder)
    if resumes:
        _check_fixed_settings(given, stored, location.run_folder)
    if "steps" in given or "stop_after" in given:
        stored.pop("stop_after", None)
    _check_opposites(given)
    if given.get("column") and stored.get("csv_first_column"):
        stored.pop("no_header", None)  # the column has a name, so there is a header
    for name in filter(given.get, REPLACED_SETTINGS):
        for replaced in REPLACED_SETTINGS[name]:
            stored.pop(replaced, None)
    settings = TrainingSettings(**{**stored, **given})
    _check_effects(given, settings)
    return settings


def check_model(settings: TrainingSettings) -> None:
    """Check that the settings' model is the model of the run that they resume.

    Raises:
        UsageError: The run has another model.
        GPT2Error: The settings' model does not exist.
    """
    if settings.restore_from == LATEST and run_folder.has_checkpoint(settings.run_folder):
        given = {"model_name": settings.model_name, "models_dir": settings.models_dir}
        _check_fixed_settings(given, _read_settings(settings.run_folder)[0], settings.run_folder)


def describe_changes(settings: TrainingSettings, seed: int) -> str:
    """Return one line about the settings that a resumed run changes, or an empty string if it changes none."""
    try:
        stored, unknown = _read_settings(settings.run_folder)
    except GPT2Error:  # the damaged file is about to be replaced
        return ""
    new = _storable(settings, seed)
    changes = [
        f"with {name} {_describe(new[name])} instead of the run's {_describe(stored[name])}"
        for name in stored
        if not (RULES[name].fixed or RULES[name].silent or _is_same(name, new, stored))
    ]
    changes += [f"without {name}, which this version does not know" for name in unknown]
    if stored and not stored["from_scratch"] and not _is_same("model_name", new, stored):
        changes.append(f"with the model that it started from, {stored['model_name']}, not with {new['model_name']}")
    return f"{settings.run_folder} resumes {', '.join(changes)}" if changes else ""


def _storable(settings: TrainingSettings, seed: int) -> dict[str, Any]:
    """Return the settings that are stored, except the end of the run."""
    values = {name: value for name, value in dataclasses.asdict(settings).items() if not RULES[name].per_call}
    return {**values, "learning_rate": settings.peak_learning_rate, "seed": seed}


def _describe(value: Any) -> str:
    return "default" if value is None else str(value)


def _read_settings(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Return a run's stored settings, and the names of stored settings that this version does not know.

    Relative paths are made valid for the present working directory. Both results are empty if the folder has no
    settings, because an older version or an old tool made the run.

    Raises:
        GPT2Error: The file cannot be read or is damaged.
    """
    path = folder / SETTINGS_FILE
    if not path.is_file():
        return {}, []
    known = [name for name, rule in RULES.items() if not rule.per_call]
    try:
        content = json.loads(path.read_bytes())
        stored = {name: value for name, value in content[SETTINGS_KEY].items() if name in known}
        if stored and "no_header" not in stored:  # an older version read the first column, and the first row as text
            stored |= {"csv_first_column": True, "no_header": not stored.get("csv_header", False)}
        for name in stored:
            if RULES[name].is_path and stored[name]:
                stored[name] = _relocate(stored[name], content[DIRECTORY_KEY])
        settings = TrainingSettings(**stored)
    except OSError as error:
        raise GPT2Error(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GPT2Error(
            f"{path} is damaged ({type(error).__name__}: {error}); delete it and give the run's flags again"
        ) from error
    values = dataclasses.asdict(settings)
    return {name: values[name] for name in values if name in known}, sorted(set(content[SETTINGS_KEY]) - set(known))


def _relocate(path: str, directory: str) -> str:
    """Return a path relative to `directory` as a path relative to the working directory.

    If the directory no longer exists, the path stays as it is: the run was moved together with its texts.
    """
    if os.path.realpath(directory) == os.path.realpath(os.curdir) or not os.path.isdir(directory):
        return path
    return os.path.join(directory, expand_path(path))


def _is_same(name: str, given: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    """Return whether two values of a setting mean the same: models and paths can be written in several ways."""
    given_value = given[name]
    stored_value = stored[name]
    if given_value == stored_value or None in (given_value, stored_value):
        return given_value == stored_value
    if name == "model_name":
        if given_value in list_aliases(stored_value):
            return True
        given_folder = _model_folder(given_value, given.get("models_dir", stored["models_dir"]))
        return given_folder == _model_folder(stored_value, stored["models_dir"])
    if not RULES[name].is_path:
        return False
    return os.path.realpath(expand_path(given_value)) == os.path.realpath(expand_path(stored_value))


def _model_folder(model_name: str, models_dir: str) -> Path:
    try:
        return find_model(model_name, models_dir).path.resolve()
    except GPT2Error:  # the model was removed
        return Path(model_name).resolve()


def _check_fixed_settings(given: Mapping[str, Any], stored: Mapping[str, Any], folder: Path) -> None:
    """Raise UsageError if a given setting belongs to another model than the run's."""
    if not stored:
        _check_hparams(given, folder)
        return
    if stored["from_scratch"]:
        model = "from_scratch"
        not_applicable: tuple[str, ...] = ("model_name",)
    else:
        model = f"model_name {stored['model_name']}"
        not_applicable = NEW_MODEL_SETTINGS
    for name in FIXED_SETTINGS:
        if name not in given or (name not in not_applicable and _is_same(name, given, stored)):
            continue
        is_unset = name in not_applicable or stored[name] in (None, False)
        raise UsageError(
            f"the run in {folder} was started with {model if is_unset else f'{name} {stored[name]}'}, not with"
            f" {name} {given[name]}: {KEEP_MODEL_ADVICE.format(name)}"
        )


def _check_hparams(given: Mapping[str, Any], folder: Path) -> None:
    """Raise UsageError if the given model's sizes differ from the sizes of a run without stored settings."""
    if "model_name" not in given or not files.is_file(folder / HPARAMS_FILE):
        return
    model = find_model(given["model_name"], given.get("models_dir", DEFAULT_MODELS_DIR))
    if model.hparams != load_hparams(folder / HPARAMS_FILE):
        raise UsageError(
            f"the run in {folder} has another model than {given['model_name']}:"
            f" {KEEP_MODEL_ADVICE.format('model_name')}"
        )


def _check_opposites(given: Mapping[str, Any]) -> None:
    """Raise UsageError if two given settings exclude each other."""
    for name in given:
        excluded = RULES[name].excludes
        if excluded and given[name] and given.get(excluded):
            raise UsageError(f"give {excluded} or {name}, not both")


def _check_effects(given: Mapping[str, Any], settings: TrainingSettings) -> None:
    """Raise UsageError for a given setting that has no effect."""
    for name in given:
        required = RULES[name].requires
        if required and required not in given and not getattr(settings, required):
            raise UsageError(f"{name} has no effect without {required}: give {required} as well")
    csv_settings = [name for name in CSV_SETTINGS if given.get(name)]
    if csv_settings and not _has_csv(settings):
        raise UsageError(f"{csv_settings[0]} has no effect: there is no .csv or .tsv in {settings.dataset}")


def _has_csv(settings: TrainingSettings) -> bool:
    datasets = [text for text in (settings.dataset, settings.val_dataset) if text]
    return any(table_delimiter(path) for text in datasets for path in documents.find_text_files(text))
