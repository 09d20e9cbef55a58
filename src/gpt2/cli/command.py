"""The common frame of every command: errors in one line, exit statuses, UTF-8, closed pipes, Ctrl-C."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TextIO

from gpt2.cli.declarations import Command, options_class
from gpt2.cli.parsing import parse
from gpt2.errors import GPT2Error, UsageError
from gpt2.interrupt import HungUp, Terminated

EXIT_FAILURE = 1
EXIT_USAGE = 2
# 128 plus the number of the signal, as a shell reports SIGHUP, SIGINT, SIGPIPE and SIGTERM.
EXIT_HUNG_UP = 129
EXIT_INTERRUPTED = 130
EXIT_CLOSED_PIPE = 141
EXIT_TERMINATED = 143
DEBUG_VARIABLE = "GPT2_DEBUG"  # if it is set, an unexpected exception shows its traceback


def main(command: Command, argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Args:
        command: A function; its parameters are the flags, or its only parameter is a dataclass of the flags.
        argv: The arguments; by default the arguments of this process.
    """

    def work() -> None:
        typed = parse(command, sys.argv[1:] if argv is None else argv)
        if typed is None:
            from gpt2.cli.help_text import help_text

            print(help_text(command))
        elif options := options_class(command):
            command(options(**typed))
        else:
            command(**typed)

    return guarded(work)


def guarded(work: Callable[[], None]) -> int:
    """Do a command's work and return its exit status.

    Every error and every warning becomes one line on stderr.
    """
    closed = _reopen_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print_error_line(f"warning: {message}")
        warnings.simplefilter("always", UserWarning)
        if "stdout" in closed:
            print_error_line("warning: standard output is closed; all output is lost")
        return _exit_status(work)


def _reopen_closed_streams() -> list[str]:
    """Open /dev/null for each closed standard stream and return the streams' names.

    Otherwise the next opened file would get the stream's descriptor, and output would be written into that file.
    """
    closed = [name for name in ("stdin", "stdout", "stderr") if getattr(sys, name) is None]
    for name in closed:
        setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    return closed


def _exit_status(work: Callable[[], None]) -> int:
    try:
        work()
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt as error:
        print_error_line("")
        return {Terminated: EXIT_TERMINATED, HungUp: EXIT_HUNG_UP}.get(type(error), EXIT_INTERRUPTED)
    except BrokenPipeError:
        discard_output(sys.stdout)
        return EXIT_CLOSED_PIPE
    except (GPT2Error, OSError) as error:
        print_error_line(f"error: {error}")
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILURE
    except MemoryError as error:
        advice = str(error) or "close other programs"
        print_error_line(f"error: not enough memory: {advice}; a narrower precision needs less")
        return EXIT_FAILURE
    except ModuleNotFoundError as error:
        from gpt2.installation import REQUIREMENTS, install_command  # rarely needed

        package = (error.name or str(error)).split(".")[0]
        print_error_line(f"error: the package {package} is missing; type: {install_command(REQUIREMENTS, package)}")
        return EXIT_FAILURE
    except Exception as error:
        if DEBUG_VARIABLE in os.environ:
            raise
        first_line = str(getattr(error, "message", error)).split("\n")[0]
        print_error_line(f"error: {type(error).__name__}: {first_line} ({DEBUG_VARIABLE}=1 shows the traceback)")
        return EXIT_FAILURE


def print_error_line(line: str) -> None:
    """Print one line on stderr, with control characters escaped."""
    escaped = re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda match: repr(match[0])[1:-1], line)
    try:
        print(escaped, file=sys.stderr, flush=True)
    except OSError:  # a closed pipe or terminal
        discard_output(sys.stderr)


def discard_output(stream: TextIO) -> None:
    """Redirect a stream to /dev/null after its reader has closed, since Python's flush at exit would fail."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
