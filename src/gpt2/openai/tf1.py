"""TensorFlow 1's names on TensorFlow 2, for programs that use `tf.placeholder` after `import tensorflow as tf`.

The names exist only for a program's own files. Installed packages look for such names to detect TensorFlow's version,
so for them TensorFlow is unchanged.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from gpt2 import tensorflow_startup

INSTALLED_PACKAGES = {"site-packages", "dist-packages"}  # parts of the paths of installed code
GRAPH_ADVICE = (
    "put the code inside `with tf.Graph().as_default():` or `with tf.compat.v1.Session() as sess:`, or call"
    " tf.compat.v1.disable_eager_execution() at the start of the program"
)


def import_tensorflow() -> None:
    """Import TensorFlow with TensorFlow 1's names."""
    install_v1_names()
    tensorflow_startup.import_tensorflow()


def install_v1_names() -> None:
    """Add TensorFlow 1's names to TensorFlow, now or as soon as the program imports it.

    Without TensorFlow, there is nothing to add to.
    """
    if not tensorflow_startup.is_tensorflow_installed():
        return
    import wrapt  # comes with TensorFlow; an installation without TensorFlow does not have it

    wrapt.register_post_import_hook(_add_names, "tensorflow")


def _add_names(tf: ModuleType) -> None:
    v1 = tf.compat.v1
    for module, v1_module in (
        (tf, v1),
        (tf.train, v1.train),
        (tf.saved_model, v1.saved_model),
        (tf.summary, v1.summary),
    ):
        vars(module).setdefault("__getattr__", functools.partial(_find_v1_name, module, v1_module))


def _find_v1_name(module: ModuleType, v1_module: ModuleType, name: str) -> Any:
    """Return an attribute that a module of TensorFlow 2 lacks from the same module of TensorFlow 1."""
    caller_path = Path(sys._getframe(1).f_globals.get("__file__") or "").parts
    if name.startswith("_") or INSTALLED_PACKAGES & {*caller_path} or not hasattr(v1_module, name):
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
    if module.__name__.endswith(".summary"):  # names of both versions have different meanings
        raise AttributeError(f"tf.summary.{name} belongs to TensorFlow 1: write import tensorflow.compat.v1 as tf")
    if name == "placeholder" and sys.modules["tensorflow"].executing_eagerly():
        raise AttributeError(f"tf.placeholder is part of a graph, and there is none: {GRAPH_ADVICE}")
    return getattr(v1_module, name)
