"""The command doctor.py, which reports this machine's processor, devices and models, and checks its arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gpt2.flags import Flag, ModelsDir, Threads
from gpt2.formats.model_dir import DEFAULT_MODELS_DIR


@dataclass(frozen=True)
class DoctorFlags:
    """The flags of doctor.py."""

    models_dir: ModelsDir = DEFAULT_MODELS_DIR
    threads: Threads = None
    clear_cache: Annotated[bool, Flag(help="remove the packed weights that are cached for the next start")] = False


def examine(flags: DoctorFlags) -> None:
    """Show versions, processor, devices and models, and compare logits with NumPy's.

    If the numbers are wrong, the exit status is 1. On some processors, TensorFlow's matrix products have been wrong.
    """
    from gpt2.cli import diagnostics  # imports packages that --help does not need

    for line in diagnostics.examine(flags.models_dir, flags.threads, flags.clear_cache):
        print(line, flush=True)
