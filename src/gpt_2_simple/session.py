"""Sessions: a TensorFlow session once; here what carries the model that is loaded into it."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from gpt2 import devices, files, generate, tensorflow_startup
from gpt2.cli.command import print_error_line
from gpt2.errors import GPT2Error
from gpt2.files import expand_path
from gpt2.formats import model_dir
from gpt2.formats.directory import ModelDir
from gpt2.formats.openai.checkpoint_files import index_file
from gpt2.generate import Model
from gpt2.request import DEFAULT_PRECISION, check_precision
from gpt2.training.settings.settings import LATEST

T = TypeVar("T")
INSIDE: list[Any] = []  # what new threads were, for each call that is being made
INSIDE_LOCK = threading.Lock()


def eagerly(function: Callable[..., T]) -> Callable[..., T]:
    """For functions that compute: eagerly, even where the program has opened a graph or switched eager execution off.

    `tf.init_scope`, the public way out of a graph, stops the recording of gradients, too; hence TensorFlow's own means.
    """

    @functools.wraps(function)
    def outside_of_graphs(*given: Any, **named: Any) -> T:
        tf = sys.modules.get("tensorflow")  # a program that has not imported it has opened no graph
        if tf is None or tf.executing_eagerly():
            return function(*given, **named)
        from tensorflow.python.eager import context

        context.context()  # is made now if it was not, while what the program wants is the default
        with _new_threads_eager(context), context.eager_mode():
            return function(*given, **named)

    return outside_of_graphs


@contextlib.contextmanager
def _new_threads_eager(context: Any) -> Iterator[None]:
    """What new threads are is one setting of the process: the last of those who are in here puts it back."""
    with INSIDE_LOCK:
        INSIDE.append(context.default_execution_mode)
        context.default_execution_mode = context.EAGER_MODE
    try:
        yield
    finally:
        with INSIDE_LOCK:
            last = INSIDE.pop()
            if not INSIDE:
                context.default_execution_mode = last


class Session:
    """Any number of them live side by side, each with a model of its own."""

    def __init__(self, threads: int = -1) -> None:
        self.threads = threads if threads > 0 else None
        devices.check_threads(self.threads)
        self.directory: ModelDir | None = None
        self.precision = DEFAULT_PRECISION
        self._model: Model | None = None
        self._tensorflow_s: Any = None

    def use(self, directory: ModelDir, precision: str = DEFAULT_PRECISION) -> None:
        """From now on this is the session's model; it is read when it is first needed."""
        check_precision(precision)
        self.directory, self.precision, self._model = directory, precision, None

    @property
    def model(self) -> Model:
        if self.directory is None:
            raise GPT2Error("no model is loaded in this session: call load_gpt2(sess) or finetune(sess, ...) first")
        if self._model is None:
            vocabulary = model_dir.load_vocabulary(self.directory)
            self._model = generate.load_weights(
                self.directory, vocabulary, self.precision, print_error_line, self.threads
            )
        return self._model

    def put_aside(self) -> None:
        """Gives the model's memory back until it is needed again."""
        self._model = None

    def close(self) -> None:
        """Lets the model go; the session can load another one."""
        if self._tensorflow_s is not None:
            self._tensorflow_s.close()
        self.directory = self._model = self._tensorflow_s = None

    @property
    def tensorflow_s(self) -> Any:
        """TensorFlow's own session, for programs that build a graph themselves; made when it is first asked for."""
        if self._tensorflow_s is None:
            tensorflow_startup.import_tensorflow()
            import tensorflow as tf

            self._tensorflow_s = tf.compat.v1.Session(graph=tf.compat.v1.get_default_graph())
        return self._tensorflow_s

    @property
    def graph(self) -> Any:
        return self.tensorflow_s.graph

    def run(self, *given: Any, **named: Any) -> Any:
        """Runs what a program has built in `graph`."""
        return self.tensorflow_s.run(*given, **named)

    def as_default(self) -> Session:
        return self

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing: programs open sessions with `with` and go on using what they loaded."""


def checked(sess: Session) -> Session:
    """Raises GPT2Error for a session that something else has made."""
    if not isinstance(sess, Session):
        raise GPT2Error(f"sess must be what start_tf_sess() returned, not {type(sess).__name__}")
    return sess


def start_tf_sess(threads: int = -1, server: Any = None) -> Session:
    """Returns a session, which will carry a model.

    threads: how many compute, -1 for all cores; of TensorFlow, which training and GPUs need, what the first session in
    a process says is heeded. server: of no effect.
    """
    return Session(threads)


def reset_session(sess: Session, threads: int = -1, server: Any = None) -> Session:
    """Lets the session's model go and returns a new session."""
    checked(sess).close()
    return start_tf_sess(threads, server)


def get_available_gpus() -> list[str]:
    """The names of the GPUs that TensorFlow sees, such as "/device:GPU:0"."""
    if not tensorflow_startup.can_use_gpu():
        return []
    return [f"/device:{name}" for name in tensorflow_startup.visible_devices() if name.startswith("GPU")]


@eagerly
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
    """Loads a run, or the pretrained model that is named, into the session, in place of what it had.

    checkpoint: "latest", or the name of one of the run's, such as "model-500". precision: of the weights in memory,
    float32, bfloat16 or int8. multi_gpu, reuse: of no effect. Raises GPT2Error if it is not there or damaged.
    """
    directory = find(checkpoint, run_name, checkpoint_dir, model_name, model_dir)
    checked(sess).use(directory, precision)
    print("Loading pretrained model" if model_name else "Loading checkpoint", directory.weights)
    sess.model  # noqa: B018 - reads it now


def find(checkpoint: str, run_name: str, checkpoint_dir: str, model_name: str | None, models_dir: str) -> ModelDir:
    """A pretrained model, or a run's folder if no model is named; `checkpoint` is "latest" or a name such as model-500.

    Raises GPT2Error if there is none.
    """
    if model_name:
        directory = model_dir.find_model(model_name, models_dir)
    else:
        folder = expand_path(checkpoint_dir) / run_name
        if not files.is_folder(folder):
            raise GPT2Error(
                f"there is no run {folder}; finetune() makes it, or give the model_name of a pretrained model"
            )
        directory = model_dir.open_model_dir(folder)
    if checkpoint == LATEST:
        return directory
    weights = directory.path / checkpoint
    if not files.is_file(index_file(weights)):
        there = sorted(path.stem for path in directory.path.glob("model*.index"))
        raise GPT2Error(f"there is no checkpoint {checkpoint!r} in {directory.path}; there are {', '.join(there)}")
    return directory._replace(weights=weights)
