"""gpt-2-simple's functions: programs that begin with `import gpt_2_simple as gpt2` run unchanged."""

import warnings
from typing import Any

from gpt2 import machine
from gpt2.cli import clash
from gpt_2_simple.gpt_2 import *  # noqa: F403 - as the old package did

if clash.of_the_old_package():
    warnings.warn(clash.of_the_old_package(), stacklevel=2)


def __getattr__(name: str) -> Any:
    """TensorFlow, for programs that say `gpt2.tf`: the old package had imported it, this one does when it is asked."""
    if name != "tf":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    machine.start()
    import tensorflow as tf

    return tf
