"""Fine-tuning with the old parameters, which become `gpt2.training.settings.settings.TrainingSettings`."""

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
from gpt_2_simple.drive import drive_path, mirror_run
from gpt_2_simple.files import CSV_FORMAT
from gpt_2_simple.generating import DEFAULT_LENGTH
from gpt_2_simple.session import Session, find_model_dir, require_session, run_eagerly


@run_eagerly
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
    **extra_settings: Any,
) -> None:
    """Fine-tune a model on text and load the result into the session.

    The folder `checkpoint_dir`/`run_name` is a model directory that every command accepts.

    Args:
        sess: The session.
        dataset: A file, folder or glob. In a `.csv`, each cell of the first column is enclosed in <|startoftext|> and
            <|endoftext|>.
        steps: Number of further updates; 0 and -1 train until Ctrl-C, which saves and returns.
        model_name: Pretrained model to start from. A resumed run retains its model.
        model_dir: Folder that contains the pretrained models.
        combine: Ignored; documents are always concatenated.
        batch_size: Windows computed together, on each device.
        learning_rate: Learning rate of the optimizer.
        accumulate_gradients: Batches whose gradients are averaged for one update.
        restore_from: "latest" to resume the run, "fresh" to start it again, or the path of a checkpoint.
        run_name: Name of the run, which may contain slashes.
        checkpoint_dir: Folder that contains the runs.
        sample_every: Updates between samples; 0 generates no samples.
        sample_length: Tokens of a sample; the default is limited to the window.
        sample_num: Number of samples each time.
        multi_gpu: Whether to train on all GPUs of the machine.
        save_every: Updates between checkpoints.
        print_every: Updates between lines of the log.
        max_checkpoints: Number of checkpoints to retain; 0 retains all.
        use_memory_saving_gradients: Whether to recompute layers in the backward pass to save memory.
        only_train_transformer_layers: Whether to leave the embeddings unchanged.
        optimizer: Name of the optimizer.
        overwrite: Whether new checkpoints replace all earlier checkpoints of a resumed run.
        reuse: Ignored.
        copy_to_gdrive: Whether to update the run's copy on a mounted Google Drive after each checkpoint.
        **extra_settings: Other fields of `TrainingSettings`, such as seed, val_every, precision or dropout.

    Raises:
        GPT2Error: If a file or a model is missing or damaged.
        UsageError: If a value is not allowed.
    """
    require_session(sess)
    steps = int(steps or 0)
    run_path = PurePath(run_name)
    extra_settings = {"sample_dir": Path("samples", run_path.parent)} | extra_settings
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
        sample_length=None if sample_length == DEFAULT_LENGTH else sample_length,
        sample_num=sample_num,
        multi_gpu=bool(multi_gpu),
        save_every=save_every,
        print_every=print_every,
        keep=1 if overwrite and restore_from == LATEST else max_checkpoints or 0,
        memory_saving_gradients=bool(use_memory_saving_gradients),
        only_train_transformer_layers=bool(only_train_transformer_layers),
        optimizer=optimizer,
        steps=steps if steps > 0 else None,
        csv_first_column=CSV_FORMAT.first_column,
        csv_start=CSV_FORMAT.prefix,
        **extra_settings,
    )
    if model_name != DEFAULT_MODEL:  # the default may mean that no model is given, and then the run's model is used
        run_settings.check_model(settings)
    sess.release_memory()  # training needs the memory
    with contextlib.suppress(Interrupted):  # everything is saved, and the next cell of a notebook can use the run
        run.train(settings, _copy_to_gdrive if copy_to_gdrive else None, TerminalReport(settings.print_every))
    sess.set_model(find_model_dir(LATEST, run_name, checkpoint_dir, None, model_dir))


def _copy_to_gdrive(folder: Path) -> None:
    mirror_run(folder, drive_path(str(folder)))
