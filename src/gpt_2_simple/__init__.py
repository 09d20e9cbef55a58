"""gpt-2-simple's functions: programs that begin with `import gpt_2_simple as gpt2` run unchanged."""

import pkgutil
import warnings
from typing import Any

from gpt2 import tensorflow_startup
from gpt2.cli import package_conflict
from gpt2.openai import tf1
from gpt_2_simple import gpt_2
from gpt_2_simple.gpt_2 import *  # noqa: F403 - as the old package did

# What `from gpt_2_simple import *` brought along, and `gpt2.tf` was found by; imported when it is asked for.
BROUGHT = {
    name: name for name in ("argparse", "csv", "json", "os", "re", "requests", "shutil", "sys", "tarfile", "time")
}
BROUGHT |= {
    "datetime": "datetime:datetime",
    "np": "numpy",
    "tf": "tensorflow",
    "tqdm": "tqdm:tqdm",
    "trange": "tqdm:trange",
}
BROUGHT |= {name: f"gpt2.openai.{name}" for name in ("encoder", "model", "sample")}

__all__ = [*gpt_2.__all__, *BROUGHT]

if package_conflict.of_the_old_package():
    warnings.warn(package_conflict.of_the_old_package(), stacklevel=2)
tf1.offer()


def __getattr__(name: str) -> Any:
    if name not in BROUGHT:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("tf", "model", "sample"):
        tensorflow_startup.import_tensorflow()
    return pkgutil.resolve_name(BROUGHT[name])
