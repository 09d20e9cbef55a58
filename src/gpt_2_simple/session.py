"""Sessions, which hold one loaded model; in the old package, they were TensorFlow sessions."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from gpt2 import devices, files, generate, tensorflow_startup
from gpt2.cli.command import print_error_line
from gpt2.errors import GPT2Error, suggest
from gpt2.files import expand_path
from gpt2.formats import model_dir
from gpt2.formats.directory import ModelDir
from gpt2.formats.openai.checkpoint_files import index_file
from gpt2.request import DEFAULT_PRECISION, check_precision
from gpt2.text_batch import Model
from gpt2.training.settings.settings import LATEST

T = TypeVar("T")
SAVED_THREAD_MODES: list[Any] = []  # TensorFlow's mode for new threads, one entry for each call in progress
SAVED_THREAD_MODES_LOCK = threading.Lock()


def run_eagerly(function: Callable[..., T]) -> Callable[..., T]:
    """Make a function compute eagerly, even where the program opened a graph or disabled eager execution.

    `tf.init_scope`, the public way out of a graph, also stops the recording of gradients, so this decorator uses
    TensorFlow's internal context instead.
    """

    @functools.wraps(function)
    def run_outside_of_graphs(*args: Any, **kwargs: Any) -> T:
        tf = sys.modules.get("tensorflow")  # without TensorFlow, the program has no graph
        if tf is None or tf.executing_eagerly():
            return function(*args, **kwargs)
        from tensorflow.python.eager import context

        context.context()  # created while the program's own mode is still the default
        with _new_threads_run_eagerly(context), context.eager_mode():
            return function(*args, **kwargs)

    return run_outside_of_graphs


@contextlib.contextmanager
def _new_threads_run_eagerly(context: Any) -> Iterator[None]:
    """Let threads that start inside the block run eagerly.

    The mode of new threads is one setting of the process, so the last of several overlapping calls restores it.
    """
    with SAVED_THREAD_MODES_LOCK:
        SAVED_THREAD_MODES.append(context.default_execution_mode)
        context.default_execution_mode = context.EAGER_MODE
    try:
        yield
    finally:
        with SAVED_THREAD_MODES_LOCK:
            saved_mode = SAVED_THREAD_MODES.pop()
            if not SAVED_THREAD_MODES:
                context.default_execution_mode = saved_mode


class Session:
    """A holder of one model.

    Any number of sessions can exist at the same time.
    """

    def __init__(self, threads: int = -1) -> None:
        """Create a session without a model.

        Args:
            threads: Number of compute threads, -1 for all cores.

        Raises:
            UsageError: If the number of threads is not allowed.
        """
        self.threads = threads if threads > 0 else None
        devices.check_threads(self.threads)
        self.directory: ModelDir | None = None
        self.precision = DEFAULT_PRECISION
        self._model: Model | None = None
        self._tensorflow_session: Any = None

    def set_model(self, directory: ModelDir, precision: str = DEFAULT_PRECISION) -> None:
        """Select the session's model, which is loaded on first use."""
        check_precision(precision)
        self.directory = directory
        self.precision = precision
        self._model = None

    @property
    def model(self) -> Model:
        """The session's model, loaded on first use.

        Raises:
            GPT2Error: If the session has no model, or if the model's files are damaged.
        """
        if self.directory is None:
            raise GPT2Error("no model is loaded in this session: call load_gpt2(sess) or finetune(sess, ...) first")
        if self._model is None:
            vocabulary = model_dir.load_vocabulary(self.directory)
            self._model = generate.load_weights(
                self.directory, vocabulary, self.precision, print_error_line, self.threads
            )
        return self._model

    def release_memory(self) -> None:
        """Free the model's memory until the model is used again."""
        self._model = None

    def close(self) -> None:
        """Unload the model; the session can load another one."""
        if self._tensorflow_session is not None:
            self._tensorflow_session.close()
        self.directory = None
        self._model = None
        self._tensorflow_session = None

    @property
    def tensorflow_session(self) -> Any:
        """A TensorFlow session for programs that build their own graph, created on first use."""
        if self._tensorflow_session is None:
            tensorflow_startup.import_tensorflow()
            import tensorflow as tf

            self._tensorflow_session = tf.compat.v1.Session(graph=tf.compat.v1.get_default_graph())
        return self._tensorflow_session

    @property
    def graph(self) -> Any:
        """The graph of the TensorFlow session."""
        return self.tensorflow_session.graph

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run operations that a program has built in `graph`, as TensorFlow's `Session.run`."""
        return self.tensorflow_session.run(*args, **kwargs)

    def as_default(self) -> Session:
        """Return the session, as a context manager that does nothing."""
        return self

    def __enter__(self) -> Session:
        """Return the session."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: programs open sessions with `with` and use the loaded model after the block."""


def require_session(sess: Session) -> Session:
    """Return the session.

    Raises:
        GPT2Error: If `sess` did not come from `start_tf_sess`.
    """
    if not isinstance(sess, Session):
        raise GPT2Error(f"sess must be a session from start_tf_sess(), not {type(sess).__name__}")
    return sess


def start_tf_sess(threads: int = -1, server: Any = None) -> Session:
    """Return a new session without a model.

    Args:
        threads: Number of compute threads, -1 for all cores. TensorFlow, which training and GPUs need, uses the number
            of the first session in the process.
        server: Ignored.
    """
    return Session(threads)


def reset_session(sess: Session, threads: int = -1, server: Any = None) -> Session:
    """Close a session, and return a new session without a model.

    Raises:
        GPT2Error: If `sess` did not come from `start_tf_sess`.
    """
    require_session(sess).close()
    return start_tf_sess(threads, server)


def get_available_gpus() -> list[str]:
    """Return the names of the GPUs that TensorFlow can use, such as "/device:GPU:0"."""
    if not tensorflow_startup.can_use_gpu():
        return []
    return [f"/device:{name}" for name in tensorflow_startup.visible_devices() if name.startswith("GPU")]


@run_eagerly
def load_gpt2(
    sess: Session,
    checkpoint: str = "latest",
    run_name: str = "run1",
    checkpoint_dir: str = "checkpoint",
    model_name: str | None = None,
    model_dir: str = "models",
    multi_gpu: bool = False,
    reuse: bool = False,
    *,
    precision: str = DEFAULT_PRECISION,
) -> None:
    """Load a run or a pretrained model into the session, replacing its model.

    Args:
        sess: The session.
        checkpoint: "latest", or the name of one of the run's checkpoints, such as "model-500".
        run_name: Name of the run; its folder is `checkpoint_dir`/`run_name`.
        checkpoint_dir: Folder that contains the runs.
        model_name: Name of a pretrained model in `model_dir` to load instead of a run.
        model_dir: Folder that contains the pretrained models.
        multi_gpu: Ignored.
        reuse: Ignored.
        precision: Precision of the weights in memory: float32, bfloat16 or int8.

    Raises:
        GPT2Error: If the model is missing or damaged.
    """
    directory = find_model_dir(checkpoint, run_name, checkpoint_dir, model_name, model_dir)
    require_session(sess).set_model(directory, precision)
    print("Loading pretrained model" if model_name else "Loading checkpoint", directory.weights_path)
    _ = sess.model  # load the weights now, not at the first call of generate


def find_model_dir(
    checkpoint: str, run_name: str, checkpoint_dir: str, model_name: str | None, models_dir: str
) -> ModelDir:
    """Return a pretrained model or, if `model_name` is empty, a run at one of its checkpoints.

    Args:
        checkpoint: "latest", or a name such as "model-500".
        run_name: Name of the run.
        checkpoint_dir: Folder that contains the runs.
        model_name: Name of a pretrained model, or its path.
        models_dir: Folder that contains the pretrained models.

    Raises:
        GPT2Error: If there is no such model, run or checkpoint.
    """
    if model_name:
        directory = model_dir.find_model(model_name, models_dir)
    else:
        folder = expand_path(checkpoint_dir) / run_name
        if not files.is_folder(folder):
            raise GPT2Error(
                f"there is no run {folder}; create it with finetune(), or give the model_name of a pretrained model"
                f"{model_dir.suggest_path(os.path.join(checkpoint_dir, run_name))}"
            )
        directory = model_dir.open_model_dir(folder)
    if checkpoint == LATEST:
        return directory
    weights = directory.path / checkpoint
    if not files.is_file(index_file(weights)):
        names = sorted(path.stem for path in directory.path.glob("model*.index"))
        raise GPT2Error(
            f"there is no checkpoint {checkpoint!r} in {directory.path}; its checkpoints are {', '.join(names)}"
            f"{suggest(checkpoint, [*names, LATEST])}"
        )
    return directory._replace(weights_path=weights)
