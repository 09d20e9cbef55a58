"""The functions of gpt-2-simple 0.8.1, with their names, parameters, defaults and return values.

They translate calls to the package `gpt2`, which does the work. Parameters that the old functions did not have follow
the old ones and are keyword-only.
"""

from gpt_2_simple.command import cmd, cmd_finetune, cmd_generate
from gpt_2_simple.drive import (
    copy_checkpoint_from_gdrive,
    copy_checkpoint_to_gdrive,
    copy_file_from_gdrive,
    copy_file_to_gdrive,
    get_tarfile_name,
    is_mounted,
    mount_gdrive,
)
from gpt_2_simple.files import (
    download_file_with_progress,
    download_gpt2,
    encode_csv,
    encode_dataset,
    is_gpt2_downloaded,
)
from gpt_2_simple.finetuning import finetune
from gpt_2_simple.generating import generate, generate_to_file
from gpt_2_simple.session import get_available_gpus, load_gpt2, reset_session, start_tf_sess

__all__ = [
    "cmd",
    "cmd_finetune",
    "cmd_generate",
    "copy_checkpoint_from_gdrive",
    "copy_checkpoint_to_gdrive",
    "copy_file_from_gdrive",
    "copy_file_to_gdrive",
    "download_file_with_progress",
    "download_gpt2",
    "encode_csv",
    "encode_dataset",
    "finetune",
    "generate",
    "generate_to_file",
    "get_available_gpus",
    "get_tarfile_name",
    "is_gpt2_downloaded",
    "is_mounted",
    "load_gpt2",
    "mount_gdrive",
    "reset_session",
    "start_tf_sess",
]
