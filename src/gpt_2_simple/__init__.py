"""The functions of gpt-2-simple: programs that start with `import gpt_2_simple as gpt2` run unchanged."""

import pkgutil
from typing import Any

from gpt2 import tensorflow_startup
from gpt2.openai import tf1
from gpt_2_simple import gpt_2
from gpt_2_simple.gpt_2 import *  # noqa: F403 - as the old package did

# Other names that programs reach through the old package, such as `gpt2.tf`; each is imported on first use.
REEXPORTS = {
    name: name for name in ("argparse", "csv", "json", "os", "re", "requests", "shutil", "sys", "tarfile", "time")
}
REEXPORTS |= {
    "datetime": "datetime:datetime",
    "np": "numpy",
    "tf": "tensorflow",
    "tqdm": "tqdm:tqdm",
    "trange": "tqdm:trange",
}
REEXPORTS |= {name: f"gpt2.openai.{name}" for name in ("encoder", "model", "sample")}

__all__ = [*gpt_2.__all__, *REEXPORTS]

tf1.install_v1_names()


def __getattr__(name: str) -> Any:
    """Import a re-exported name on first use."""
    if name not in REEXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("tf", "model", "sample"):
        tensorflow_startup.import_tensorflow()
    return pkgutil.resolve_name(REEXPORTS[name])
