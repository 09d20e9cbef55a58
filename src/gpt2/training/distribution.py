"""Which devices and machines train together.

One machine with several GPUs mirrors the weights on them; several machines are named in TF_CONFIG, as TensorFlow
wants it: {"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": {"type": "worker", "index": 0}}. They meet
before anything else, so that from then on what ends one of them ends all. The first one is the chief: it alone reads
and writes the run, and the others begin with what it has.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gpt2.errors import GPT2Error, UsageError
from gpt2.formats.openai.checkpoint_files import current_checkpoint

TF_CONFIG = "TF_CONFIG"
TPU_ADDRESSES = ("TPU_NAME", "COLAB_TPU_ADDR")  # environment variables in which TensorFlow looks for a TPU
ABORTED = "Collective ops is aborted by: "  # and then TensorFlow says why


def worker_count() -> int:
    """How many machines TF_CONFIG names; 1 without it. Raises UsageError if it is not what TensorFlow wants."""
    return max(1, len(_addresses()))


def worker_index() -> int:
    """This machine's place among them, from 0."""
    return _config()["task"]["index"] if worker_count() > 1 else 0


def is_chief() -> bool:
    """Whether this process writes the files."""
    return worker_index() == 0


def _addresses() -> list[str]:
    return _config().get("cluster", {}).get("worker", [])


def _config() -> dict[str, Any]:
    text = os.environ.get(TF_CONFIG, "{}")
    try:
        config = json.loads(text)
        known = not config.get("cluster") or _is_known(**config["cluster"], task=config["task"])
    except (ValueError, KeyError, AttributeError, TypeError):
        known = False
    if not known:
        raise UsageError(
            f'{TF_CONFIG} must be like {{"cluster": {{"worker": ["host:port", ...]}}, "task": {{"type": "worker",'
            f' "index": 0}}}}, not {text[:80]!r}'
        )
    return config


def _is_known(*, worker: list[str], task: dict[str, Any]) -> bool:
    """Any other job in the cluster, such as a chief of its own, is a TypeError here: the first worker is the chief."""
    return isinstance(worker, list) and task["type"] == "worker" and task["index"] in range(len(worker))


def create_strategy(multi_gpu: bool = True) -> Any:
    """TensorFlow's strategy for what there is; to be called before any other operation."""
    import tensorflow as tf

    if worker_count() > 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    if any(name in os.environ for name in TPU_ADDRESSES):
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    if multi_gpu and len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


@contextlib.contextmanager
def interruptible_wait() -> Iterator[None]:
    """Lets Ctrl-C end the process while TensorFlow waits for the other machines; Python would see it only afterwards.

    SIGTERM does nothing in that time: TensorFlow puts a handler of its own, which is taken away again at the end.
    """
    if worker_count() == 1 or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def broadcast_from_chief(create_strategy: Any, numbers: Sequence[int]) -> list[int]:
    """The chief's numbers, on all machines. Waits until all have asked."""
    import tensorflow as tf

    def shared() -> Any:
        context = tf.distribute.get_replica_context()
        mine = tf.where(context.replica_id_in_sync_group == 0, tf.constant(numbers, tf.int64), 0)
        return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

    result = tf.function(lambda: create_strategy.run(shared), autograph=False)()
    return create_strategy.experimental_local_results(result)[0].numpy().tolist()


@contextlib.contextmanager
def reporting_lost_workers(folder: Path) -> Iterator[None]:
    """Turns what TensorFlow raises when another machine is gone into a GPT2Error that says how `folder`'s run goes on.

    A machine whose process has ended is noticed within seconds, one that no longer answers by its missing heartbeats.
    """
    try:
        yield
    except Exception as error:
        if worker_count() == 1 or not _is_of_another(error):
            raise
        raise GPT2Error(
            f"{_what_is_lost(str(error))}, and its own output may say why; start all workers again, and the run goes on"
            f" from {_last_checkpoint(folder)}"
        ) from error


def _is_of_another(error: Exception) -> bool:
    """Whether what TensorFlow raises here has its cause on another machine."""
    import tensorflow as tf

    errors = tf.errors
    gone = (errors.UnavailableError, errors.DeadlineExceededError, errors.AbortedError, errors.CancelledError)
    return isinstance(error, gone) or (isinstance(error, errors.OpError) and ABORTED in str(error))


def _last_checkpoint(folder: Path) -> str:
    try:
        return str(current_checkpoint(folder))
    except GPT2Error:  # there is none, or the folder is the chief's alone
        return "its last checkpoint, if there is one"


def _what_is_lost(said: str) -> str:
    """TensorFlow's many lines -> who is gone and why, as far as it knows."""
    reason = re.search(f"(?:{ABORTED})+(.*)", said)
    task = re.search(r"/task:(\d+)", said[reason.start() :] if reason else said)
    known = task is not None and int(task[1]) < worker_count()
    who = f"the worker {_addresses()[int(task[1])]}" if task is not None and known else "another worker"
    return f"{who} is lost ({(reason[1] if reason else said.splitlines()[0])[:200]})"
