"""Child processes that answer messages: those that encode text, and those that generate the rows of a job.

They are plain child processes. Workers of multiprocessing would import the main module again, including TensorFlow, and
would run a program without `if __name__ == "__main__"` twice. A fork after TensorFlow is loaded may hang.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from gpt2.errors import GPT2Error
from gpt2.package_conflict import WITHOUT_WARNING

CHILD_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from gpt2.child_processes import run_child; run_child()"


class ChildEndedError(Exception):
    """A child process ended before it answered.

    Attributes:
        status: Its exit status.
    """

    def __init__(self, status: int) -> None:
        """Store the status."""
        super().__init__(f"a child process ended with status {status}")
        self.status = status


class ChildProcess:
    """A child process that applies a function to each message."""

    def __init__(self, handler: bytes) -> None:
        """Start the process.

        Args:
            handler: The pickled function.
        """
        # In a new session the child does not receive Ctrl-C; this process ends it.
        self.process = subprocess.Popen(
            [sys.executable, *WITHOUT_WARNING, "-c", CHILD_PROGRAM, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.messages = self.process.stdin
        self.answers = self.process.stdout
        self.handler = handler

    def call(self, message: Any) -> Any:
        """Return the function's result for a message.

        Raises:
            GPT2Error: The function raised it.
            ChildEndedError: The process ended.
        """
        try:
            self.messages.write(self.handler + pickle.dumps(message))
            self.messages.flush()
            self.handler = b""  # the first message follows it
            answer = pickle.load(self.answers)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            self.process.kill()
            raise ChildEndedError(self.process.wait()) from error
        if isinstance(answer, GPT2Error):
            raise answer
        return answer

    def close(self) -> None:
        """Wait until the process, which has been killed, has ended."""
        for stream in (self.messages, self.answers):
            with contextlib.suppress(OSError):
                stream.close()
        self.process.wait()


class ChildPool:
    """A pool of child processes. A thread of this process waits for each answer.

    Attributes:
        children: All processes that have been started.
    """

    def __init__(self, handler: Callable[[Any], Any], max_children: int) -> None:
        """Create a pool without processes.

        Args:
            handler: The function that the processes apply to messages; like them and its results, it can be pickled.
            max_children: Maximum number of processes that answer at the same time.
        """
        self.handler = pickle.dumps(handler)
        self.threads = ThreadPoolExecutor(max_children)
        self.children: list[ChildProcess] = []
        self.lock = threading.Lock()
        self.is_closed = False

    def start(self) -> ChildProcess:
        """Start another process.

        Raises:
            GPT2Error: The pool is closed.
        """
        with self.lock:
            if self.is_closed:
                raise GPT2Error("the pool of worker processes is closed")
            self.children.append(ChildProcess(self.handler))
            return self.children[-1]

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Call a function, such as `ChildProcess.call`, in one of the threads."""
        return self.threads.submit(function, *arguments)

    def close(self) -> None:
        """Kill the processes and wait for their end; calls in progress fail."""
        with self.lock:
            self.is_closed = True
        for child in self.children:
            child.process.kill()
        self.threads.shutdown(cancel_futures=True)
        for child in self.children:
            child.close()


def run_child() -> None:
    """Run a child process: read a function and messages from stdin, and write results or errors to stdout."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # text that the function prints is not an answer
        handler = pickle.load(sys.stdin.buffer)
        with contextlib.suppress(EOFError, BrokenPipeError):
            while True:
                message = pickle.load(sys.stdin.buffer)
                try:
                    answer = handler(message)
                except GPT2Error as error:
                    answer = GPT2Error(str(error))  # any subclass, whose arguments are not known
                pickle.dump(answer, answers)
                answers.flush()
