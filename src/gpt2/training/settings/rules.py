"""One rule for each setting: its allowed values, the settings it depends on, and its treatment in a resumed run.

The fields of `settings.TrainingSettings` declare the types, the defaults and the smallest integers.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from gpt2.errors import UsageError, suggest
from gpt2.request import BFLOAT16, FLOAT32

ADAM, ADAMW, SGD, ADAFACTOR = OPTIMIZERS = ("adam", "adamw", "sgd", "adafactor")
CONSTANT, LINEAR, COSINE = SCHEDULES = ("constant", "linear", "cosine")
PRECISIONS = (FLOAT32, BFLOAT16)  # number types of the matrix products


@dataclasses.dataclass(frozen=True)
class SettingRule:
    """The rule of one setting. The defaults allow every value and every change."""

    minimum: float | None = None  # smallest allowed value of a float; an integer's minimum is in its `Flag`
    above: float | None = None  # the value must be larger than this number
    below: float | None = None  # the value must be smaller than this number
    choices: tuple[str, ...] = ()  # the allowed values; empty allows all
    requires: str = ""  # the setting has no effect unless this one is given
    excludes: str = ""  # the setting cannot be given together with this one
    is_path: bool = False  # a path to the run's own data; relative paths belong to the directory of the first call
    fixed: bool = False  # part of the model: a resumed run cannot change it
    per_call: bool = False  # belongs to one call or one machine and is not stored with the run
    per_machine: bool = False  # may differ between machines that train together
    silent: bool = False  # a resumed run may change it without a message

    def check(self, name: str, value: Any) -> None:
        """Raise UsageError if the value, which already has the setting's type, is not allowed."""
        if value is None:
            return
        if self.choices and value not in self.choices:
            allowed = f"{', '.join(self.choices[:-1])} or {self.choices[-1]}"
            raise UsageError(f"{name} must be {allowed}, not {value!r}{suggest(value, self.choices)}")
        if self.above is not None and value <= self.above:
            raise UsageError(f"{name} must be above {self.above}, not {value}")
        too_small = self.minimum is not None and value < self.minimum
        if self.below is not None and (too_small or value >= self.below):
            raise UsageError(f"{name} must be {self.minimum} or more and below {self.below}, not {value}")
        if too_small:
            raise UsageError(f"{name} must be {self.minimum} (off) or more, not {value}")


def _size(excludes: str = "") -> SettingRule:
    """Return the rule of a new model's size."""
    return SettingRule(requires="from_scratch", excludes=excludes, fixed=True)


RULES = {
    "dataset": SettingRule(is_path=True, per_machine=True),
    "model_name": SettingRule(excludes="from_scratch", fixed=True, per_machine=True),
    "combine": SettingRule(silent=True),
    "encoding": SettingRule(),
    "batch_size": SettingRule(),
    "learning_rate": SettingRule(above=0),
    "accumulate_gradients": SettingRule(),
    "memory_saving_gradients": SettingRule(),
    "only_train_transformer_layers": SettingRule(),
    "optimizer": SettingRule(choices=OPTIMIZERS),
    "noise": SettingRule(minimum=0, below=1),
    "top_k": SettingRule(),
    "top_p": SettingRule(),
    "restore_from": SettingRule(per_call=True),
    "run_name": SettingRule(per_call=True),
    "sample_every": SettingRule(),
    "sample_length": SettingRule(),
    "sample_num": SettingRule(),
    "save_every": SettingRule(),
    "val_dataset": SettingRule(requires="val_every", is_path=True, per_machine=True),
    "val_batch_size": SettingRule(requires="val_every"),
    "val_batch_count": SettingRule(requires="val_every"),
    "val_every": SettingRule(),
    "stop_after": SettingRule(silent=True),
    "steps": SettingRule(per_call=True),
    "seed": SettingRule(),
    "models_dir": SettingRule(per_machine=True, silent=True),
    "checkpoint_dir": SettingRule(per_call=True, per_machine=True),
    "sample_dir": SettingRule(is_path=True, per_machine=True),
    "print_every": SettingRule(silent=True),
    "csv_header": SettingRule(),
    "csv_start": SettingRule(),
    "column": SettingRule(excludes="csv_first_column"),
    "no_header": SettingRule(excludes="csv_header"),
    "csv_first_column": SettingRule(),
    "val_split": SettingRule(minimum=0, below=1, requires="val_every", excludes="val_dataset"),
    "patience": SettingRule(),
    "save_minutes": SettingRule(above=0),
    "keep": SettingRule(),
    "warmup_steps": SettingRule(),
    "lr_schedule": SettingRule(choices=SCHEDULES),
    "weight_decay": SettingRule(minimum=0),
    "clip_norm": SettingRule(minimum=0),
    "dropout": SettingRule(minimum=0, below=1),
    "precision": SettingRule(choices=PRECISIONS),
    "from_scratch": SettingRule(fixed=True),
    "vocabulary": SettingRule(requires="from_scratch", is_path=True, fixed=True, per_machine=True),
    "n_vocab": _size(excludes="vocabulary"),
    "n_ctx": _size(),
    "n_embd": _size(),
    "n_head": _size(),
    "n_layer": _size(),
    "n_token_embd": _size(),
    "threads": SettingRule(per_call=True, per_machine=True),
    "multi_gpu": SettingRule(),
}
FIXED_SETTINGS = tuple(name for name, rule in RULES.items() if rule.fixed)
NEW_MODEL_SETTINGS = tuple(name for name, rule in RULES.items() if rule.requires == "from_scratch")
