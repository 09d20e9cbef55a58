"""Fine-tuning: the old parameters as `gpt2.training.settings.settings.Settings`."""

from __future__ import annotations

import contextlib
from pathlib import Path, PurePath
from typing import Any

from gpt2.cli.training_report import TerminalReport
from gpt2.formats.model_dir import DEFAULT_MODEL
from gpt2.interrupt import Interrupted
from gpt2.training import run
from gpt2.training.settings import run_settings
from gpt2.training.settings.settings import LATEST, TrainingSettings
from gpt_2_simple.drive import in_drive, mirror
from gpt_2_simple.files import ROWS
from gpt_2_simple.generating import WHOLE_WINDOW
from gpt_2_simple.session import Session, checked, eagerly, find


@eagerly
def finetune(
    sess: Session,
    dataset: str,
    steps: int = -1,
    model_name: str = "124M",
    model_dir: str = "models",
    combine: int = 50000,
    batch_size: int = 1,
    learning_rate: float = 0.0001,
    accumulate_gradients: int = 5,
    restore_from: str = "latest",
    run_name: str = "run1",
    checkpoint_dir: str = "checkpoint",
    sample_every: int = 100,
    sample_length: int = 1023,
    sample_num: int = 1,
    multi_gpu: bool = False,
    save_every: int = 1000,
    print_every: int = 1,
    max_checkpoints: int = 1,
    use_memory_saving_gradients: bool = False,
    only_train_transformer_layers: bool = False,
    optimizer: str = "adam",
    overwrite: bool = False,
    reuse: bool = False,
    *,
    copy_to_gdrive: bool = False,
    **more: Any,
) -> None:
    """Fine-tunes a model on text and leaves it in the session; `checkpoint_dir`/`run_name` is its model directory.

    dataset: a file, folder or glob; the first column of a `.csv` is wrapped in <|startoftext|> and <|endoftext|>.
    steps: so many updates; 0 and -1 go on until Ctrl-C, which saves and returns.
    overwrite: the new checkpoints replace all that the run had. reuse: of no effect.
    copy_to_gdrive: brings the run's folder in a mounted Google Drive up to date after each checkpoint.
    more: any other setting of `Settings`, such as seed, val_every, precision or dropout.

    Raises GPT2Error for what is missing or damaged, UsageError for values that are not allowed.
    """
    checked(sess)
    steps = int(steps or 0)
    run_path = PurePath(run_name)  # it may have slashes
    more = {"sample_dir": Path("samples", run_path.parent)} | more
    settings = TrainingSettings(
        dataset=str(dataset),
        model_name=model_name or model_dir,
        models_dir=model_dir,
        combine=combine,
        batch_size=batch_size,
        learning_rate=learning_rate,
        accumulate_gradients=accumulate_gradients,
        restore_from=restore_from,
        run_name=run_path.name,
        checkpoint_dir=str(Path(checkpoint_dir, run_path.parent)),
        sample_every=sample_every,
        sample_length=None if sample_length == WHOLE_WINDOW else sample_length,
        sample_num=sample_num,
        multi_gpu=bool(multi_gpu),
        save_every=save_every,
        print_every=print_every,
        keep=1 if overwrite and restore_from == LATEST else max_checkpoints or 0,
        memory_saving_gradients=bool(use_memory_saving_gradients),
        only_train_transformer_layers=bool(only_train_transformer_layers),
        optimizer=optimizer,
        steps=steps if steps > 0 else None,
        csv_header=ROWS.header,
        csv_start=ROWS.start,
        **more,
    )
    if model_name != DEFAULT_MODEL:  # who leaves it out gets the run's
        run_settings.check_model(settings)
    sess.put_aside()  # training needs the memory
    with contextlib.suppress(Interrupted):  # all is saved; in a notebook the next cell generates from it
        run.train(settings, _copy_to_gdrive if copy_to_gdrive else None, TerminalReport(settings.print_every))
    sess.use(find(LATEST, run_name, checkpoint_dir, None, model_dir))


def _copy_to_gdrive(folder: Path) -> None:
    mirror(folder, in_drive(str(folder)))
