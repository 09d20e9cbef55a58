"""Training on several devices and machines.

One machine with several GPUs mirrors the weights on them. Several machines are named in the environment variable
TF_CONFIG, in TensorFlow's format:
{"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": {"type": "worker", "index": 0}}.
The machines connect first. After that, the failure of one machine ends the run on all of them. The first worker is the
chief: it alone reads and writes the run, and the other workers start with its weights and state.
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
ABORTED_PREFIX = "Collective ops is aborted by: "  # precedes the reason in TensorFlow's messages
MAX_REASON_CHARACTERS = 200
MAX_CONFIG_CHARACTERS = 80  # of a wrong TF_CONFIG that a message quotes


def worker_count() -> int:
    """Return the number of machines in TF_CONFIG; 1 if it is not set.

    Raises:
        UsageError: TF_CONFIG does not have TensorFlow's format.
    """
    return max(1, len(_worker_addresses()))


def worker_index() -> int:
    """Return this machine's index among the workers, from 0."""
    return _read_config()["task"]["index"] if worker_count() > 1 else 0


def is_chief() -> bool:
    """Return whether this process is the one that writes files."""
    return worker_index() == 0


def _worker_addresses() -> list[str]:
    return _read_config().get("cluster", {}).get("worker", [])


def _read_config() -> dict[str, Any]:
    text = os.environ.get(TF_CONFIG, "{}")
    try:
        config = json.loads(text)
        is_valid = not config.get("cluster") or _is_valid_cluster(**config["cluster"], task=config["task"])
    except (ValueError, KeyError, AttributeError, TypeError):
        is_valid = False
    if not is_valid:
        raise UsageError(
            f'{TF_CONFIG} must be like {{"cluster": {{"worker": ["host:port", ...]}}, "task": {{"type": "worker",'
            f' "index": 0}}}}, not {text[:MAX_CONFIG_CHARACTERS]!r}'
        )
    return config


def _is_valid_cluster(*, worker: list[str], task: dict[str, Any]) -> bool:
    """Return whether a cluster has workers only.

    Another job in it, such as a separate chief, raises TypeError as an unknown argument.
    """
    return isinstance(worker, list) and task["type"] == "worker" and task["index"] in range(len(worker))


def create_strategy(multi_gpu: bool = True) -> Any:
    """Return TensorFlow's strategy for the available devices. Call it before any other TensorFlow operation."""
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
    """Let Ctrl-C end the process while TensorFlow waits for the other machines.

    Python's own handler would run only after the wait. SIGTERM has no effect during the wait, because TensorFlow
    installs a handler for it; the previous handler is restored at the end.
    """
    if worker_count() == 1 or threading.current_thread() is not threading.main_thread():
        yield
        return
    previous_handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)


def broadcast_from_chief(strategy: Any, numbers: Sequence[int]) -> list[int]:
    """Return the chief's numbers on all machines. Every machine must call this function, which waits for all."""
    import tensorflow as tf

    def select_chief() -> Any:
        context = tf.distribute.get_replica_context()
        contribution = tf.where(context.replica_id_in_sync_group == 0, tf.constant(numbers, tf.int64), 0)
        return context.all_reduce(tf.distribute.ReduceOp.SUM, contribution)

    result = tf.function(lambda: strategy.run(select_chief), autograph=False)()
    return strategy.experimental_local_results(result)[0].numpy().tolist()


@contextlib.contextmanager
def reporting_lost_workers(run_folder: Path) -> Iterator[None]:
    """Turn TensorFlow's error about a lost machine into a GPT2Error that says how to resume the run.

    A machine whose process ended is noticed within seconds; a machine that stops responding is noticed by its missing
    heartbeats.
    """
    try:
        yield
    except Exception as error:
        if worker_count() == 1 or not _is_from_other_worker(error):
            raise
        raise GPT2Error(
            f"{_describe_lost_worker(str(error))}, and its own output may say why; start all workers again to resume"
            f" the run from {_last_checkpoint(run_folder)}"
        ) from error


def _is_from_other_worker(error: Exception) -> bool:
    """Return whether a TensorFlow error was caused by another machine."""
    import tensorflow as tf

    lost_worker_errors = (
        tf.errors.UnavailableError,
        tf.errors.DeadlineExceededError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
    )
    if isinstance(error, lost_worker_errors):
        return True
    return isinstance(error, tf.errors.OpError) and ABORTED_PREFIX in str(error)


def _last_checkpoint(run_folder: Path) -> str:
    try:
        return str(current_checkpoint(run_folder))
    except GPT2Error:  # there is no checkpoint, or only the chief has access to the folder
        return "its last checkpoint, if there is one"


def _describe_lost_worker(message: str) -> str:
    """Reduce TensorFlow's message of many lines to the lost worker and the reason, if the message has them."""
    reason = re.search(f"(?:{ABORTED_PREFIX})+(.*)", message)
    task = re.search(r"/task:(\d+)", message[reason.start() :] if reason else message)
    worker = "another worker"
    if task is not None and int(task[1]) < worker_count():
        worker = f"the worker {_worker_addresses()[int(task[1])]}"
    return f"{worker} is lost ({(reason[1] if reason else message.splitlines()[0])[:MAX_REASON_CHARACTERS]})"
