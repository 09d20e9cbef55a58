"""TensorFlow 1's names on TensorFlow 2, for programs that say `tf.placeholder` after `import tensorflow as tf`.

They work in a program's own files alone. An installed package that asks TensorFlow for such a name, to learn which one
it has before it, is answered as ever.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import wrapt

from gpt2 import tensorflow_startup

PACKAGES = {"site-packages", "dist-packages"}  # parts of the paths of installed code
GRAPH = (
    "write it inside `with tf.Graph().as_default():` or `with tf.compat.v1.Session() as sess:`, or say"
    " tf.compat.v1.disable_eager_execution() at the program's beginning"
)


def start() -> None:
    """Imports TensorFlow, with these names."""
    offer()
    tensorflow_startup.import_tensorflow()


def offer() -> None:
    """From now on, or from when the program imports TensorFlow."""
    wrapt.register_post_import_hook(_add, "tensorflow")


def _add(tf: ModuleType) -> None:
    v1 = tf.compat.v1
    for module, old in ((tf, v1), (tf.train, v1.train), (tf.saved_model, v1.saved_model), (tf.summary, v1.summary)):
        vars(module).setdefault("__getattr__", functools.partial(_old_name, module, old))


def _old_name(module: ModuleType, old: ModuleType, name: str) -> Any:
    """What Python calls for an attribute that a module lacks."""
    asks = Path(sys._getframe(1).f_globals.get("__file__") or "").parts
    if name.startswith("_") or PACKAGES & {*asks} or not hasattr(old, name):
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
    if module.__name__.endswith(".summary"):  # whose other names are there, and mean something else
        raise AttributeError(f"tf.summary.{name} is TensorFlow 1's: write import tensorflow.compat.v1 as tf")
    if name == "placeholder" and sys.modules["tensorflow"].executing_eagerly():
        raise AttributeError(f"tf.placeholder is part of a graph, and there is none: {GRAPH}")
    return getattr(old, name)
