"""Which devices and machines train together.

One machine with several GPUs mirrors the weights on them; several machines are named in TF_CONFIG, as TensorFlow
wants it: {"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": {"type": "worker", "index": 0}}.
"""

from __future__ import annotations

import json
import os
from typing import Any

from gpt2.errors import UsageError

TF_CONFIG = "TF_CONFIG"


def workers() -> int:
    """How many machines TF_CONFIG names; 1 without it. Raises UsageError if it is not what TensorFlow wants."""
    return max(1, len(_config().get("cluster", {}).get("worker", [])))


def is_chief() -> bool:
    """Whether this process writes the files."""
    return workers() == 1 or _config()["task"]["index"] == 0


def _config() -> dict[str, Any]:
    text = os.environ.get(TF_CONFIG, "{}")
    try:
        config = json.loads(text)
        known = isinstance(config, dict) and isinstance(config.get("cluster", {}).get("worker", []), list)
        known = known and (not config.get("cluster") or isinstance(config["task"]["index"], int))
    except (ValueError, KeyError, AttributeError, TypeError):
        known = False
    if not known:
        raise UsageError(
            f'{TF_CONFIG} must be like {{"cluster": {{"worker": ["host:port", ...]}}, "task": {{"type": "worker",'
            f' "index": 0}}}}, not {text[:80]!r}'
        )
    return config


def strategy() -> Any:
    """TensorFlow's strategy for what there is; to be called before any other operation."""
    import tensorflow as tf

    if workers() > 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()
