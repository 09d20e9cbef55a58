"""A command's flags and its manners: types, help, errors in one line, UTF-8, closed pipes, Ctrl-C.

A command is a function; its parameters are its flags and hold their defaults. fire splits the command line, so that
positional values, `--flag v`, `--flag=v`, `--some-flag` and `-s v` all work as they did; types
are those of `flags.FLAGS`. A switch needs no value. A line of nothing but flags by their names, as most are, is split
here: to import fire, and asyncio with it, takes longer than all else that a command does before its work.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from gpt2.cli.flags import FLAGS, Flag, parse_switch, texts
from gpt2.errors import GPT2Error, UsageError
from gpt2.interrupt import HungUp, Terminated

FAILURE, USAGE = 1, 2
# As a shell reports SIGHUP, SIGINT, SIGPIPE and SIGTERM.
HUNG_UP, INTERRUPTED, CLOSED_PIPE, TERMINATED = 129, 130, 141, 143
DEBUG = "GPT2_DEBUG"  # set to anything, it shows the traceback of an error that nobody foresaw
ABSENT = object()  # the value of a flag that was not given
# fire splits commands at a lone "-", which is how --prompt_file names stdin; no argument can hold a null character.
SEPARATOR = "--separator=\0"


Flags = Mapping[str, Flag]


def main(command: Callable[..., None], argv: Sequence[str] | None = None, flags: Flags = FLAGS) -> int:
    """Runs a command with the arguments of this process and returns its exit status."""

    def work() -> None:
        arguments = parse(command, sys.argv[1:] if argv is None else argv, flags)
        if arguments is None:
            print(help_text(command, flags))
        else:
            command(**arguments)

    return guarded(work)


def guarded(work: Callable[[], None]) -> int:
    """Does a command's work; whatever happens becomes one line on stderr and an exit status."""
    closed = _open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print_error_line(f"warning: {message}")
        warnings.simplefilter("always", UserWarning)
        if "stdout" in closed:
            print_error_line("warning: standard output is closed; what would be written there is lost")
        return _status(work)


def _open_closed() -> list[str]:
    """Opens /dev/null for those of the standard streams that are closed, and returns their names.

    Else the first file that is opened would take their place, and be written to by whoever means them.
    """
    closed = [name for name in ("stdin", "stdout", "stderr") if getattr(sys, name) is None]
    for name in closed:
        setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    return closed


def _status(work: Callable[[], None]) -> int:
    try:
        work()
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt as error:
        print_error_line("")
        return {Terminated: TERMINATED, HungUp: HUNG_UP}.get(type(error), INTERRUPTED)
    except BrokenPipeError:
        drop(sys.stdout)
        return CLOSED_PIPE
    except (GPT2Error, OSError) as error:
        print_error_line(f"error: {error}")
        return USAGE if isinstance(error, UsageError) else FAILURE
    except MemoryError as error:
        print_error_line(
            f"error: there is not enough memory: {error or 'close other programs'}; a narrow precision takes less"
        )
        return FAILURE
    except ModuleNotFoundError as error:
        print_error_line(f"error: the package {error.name} is missing; type: pip install -r requirements.txt")
        return FAILURE
    except Exception as error:
        if DEBUG in os.environ:
            raise
        first_line = str(getattr(error, "message", error)).split("\n")[0]
        print_error_line(f"error: {type(error).__name__}: {first_line} ({DEBUG}=1 shows where)")
        return FAILURE


def print_error_line(line: str) -> None:
    """One line on stderr, whatever control characters the names in it hold."""
    shown = re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], line)
    try:
        print(shown, file=sys.stderr, flush=True)
    except OSError:  # a closed pipe, a terminal that is gone
        drop(sys.stderr)


def drop(stream: TextIO) -> None:
    """For a stream that nobody reads any more: what it is given is lost, and Python's own flush at exit is silent."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def parse(command: Callable[..., None], argv: Sequence[str], flags: Flags = FLAGS) -> dict[str, Any] | None:
    """Command line -> the arguments that were given, each of its flag's type; None if help is asked for.

    Raises UsageError for unknown flags, flags without a value, too many arguments, wrong types and values out of range.
    """
    own, fires = _split(argv)
    if {"--help", "-h"} & {*own, *fires}:
        return None
    if fires:
        raise UsageError(f"after -- only --help has an effect, not {' '.join(fires)!r}; leave the -- out")
    parameters = inspect.signature(command).parameters
    own = _together(_named(own, {name: flags[name] for name in parameters}), flags)
    given = _plain(own)
    if given is None or not given.keys() >= _required(command):
        given = _fire(command, [*own, "--", SEPARATOR])
    return {name: _convert(name, flags[name], value, parameters[name].default) for name, value in given.items()}


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command's arguments, and what fire would take as its own, after a lone `--`."""
    at = argv.index("--") if "--" in argv else len(argv)
    return list(argv[:at]), list(argv[at + 1 :])


def _named(argv: list[str], flags: Flags) -> list[str]:
    """The arguments, switches with their value; raises UsageError for names that no flag has and for missing values."""
    named = []
    for argument, following in zip(argv, [*argv[1:], "--"]):
        match = re.fullmatch(r"--([^=]*)(=.*)?", argument, re.DOTALL)
        named.append(argument)
        if not match:
            continue
        name = match[1].replace("-", "_")
        if name not in flags:
            check_words(argument)
            raise UsageError(f"there is no flag {argument.split('=')[0]}; the flags are --{', --'.join(flags)}")
        if match[2] is not None:
            continue
        if flags[name].kind is parse_switch:
            if following.lower() not in ("true", "false"):
                named.append("True")
        elif following.startswith("--"):
            raise UsageError(f"--{name} needs a value: {flags[name].what}")
    return named


def _together(named: list[str], flags: Flags) -> list[str]:
    """The arguments, those of a flag that may be given more than once as one list: fire would take the last."""
    left: list[str] = []
    lists: dict[str, list[str]] = {}
    words = iter(named)
    for word in words:
        match = re.fullmatch(r"--([^=]*)(?:=(.*))?", word, re.DOTALL)
        name = match[1].replace("-", "_") if match else ""
        if match and name in flags and flags[name].many:
            lists.setdefault(name, []).extend(texts(next(words) if match[2] is None else match[2]))
        else:
            left.append(word)
    return [*left, *(f"--{name}={values}" for name, values in lists.items())]


def check_words(argument: str) -> None:
    """Raises UsageError for a flag and its value in one argument, as quotation marks or an ENTRYPOINT may join them."""
    if words := re.fullmatch(r"(--[\w-]+) +(.+)", argument):
        one, other = words.groups()
        raise UsageError(
            f"{argument!r} came as one argument: write {one} {other} without quotation marks, or {one}={other}"
        )


def _required(command: Callable[..., None]) -> set[str]:
    return {name for name, p in inspect.signature(command).parameters.items() if p.default is p.empty}


def _plain(argv: list[str]) -> dict[str, str] | None:
    """The values of a line of `--flag value` and `--flag=value`, the last of each; None for any other line."""
    given: dict[str, str] = {}
    words = iter(argv)
    for word in words:
        match = re.fullmatch(r"--([^=]*)(?:=(.*))?", word, re.DOTALL)
        value = match and (next(words, "-") if match[2] is None else match[2])
        if not match or value is None or (match[2] is None and value.startswith("-")):
            return None
        given[match[1].replace("-", "_")] = value
    return given


def _fire(command: Callable[..., None], argv: list[str]) -> dict[str, str]:
    """What fire makes of the command line, before anything runs and with every value still a string."""
    import fire

    bound: dict[str, Any] = {}
    flags = inspect.signature(command).parameters.values()
    # fire passes the defaults of those that were not given along with the others
    signature = inspect.Signature([p if p.default is p.empty else p.replace(default=ABSENT) for p in flags])

    @fire.decorators.SetParseFn(str)
    @functools.wraps(command)
    def collect(*args: str, **kwargs: str) -> None:
        bound.update(signature.bind(*args, **kwargs).arguments)

    collect.__signature__ = signature
    with contextlib.redirect_stderr(io.StringIO()) as output:
        try:
            fire.Fire(collect, command=argv)
        except fire.core.FireExit as error:
            said = re.search(r"ERROR: (.*)", output.getvalue())
            raise UsageError(_readable(said[1] if said else output.getvalue().strip())) from error
    return {name: value for name, value in bound.items() if value is not ABSENT}


def _readable(said: str) -> str:
    surplus = said.removeprefix("Could not consume arg: ")
    return said if surplus == said else f"there is no place for the argument {surplus!r}; --help lists the flags"


def _convert(name: str, flag: Flag, value: str, default: Any) -> Any:
    if default is None and value == "None":
        return None
    try:
        converted = flag.kind(value)
    except ValueError:
        raise UsageError(f"{name} must be {flag.what}, not {value!r}") from None
    if flag.minimum is not None and converted < flag.minimum:
        raise UsageError(f"{name} must be {flag.what} of at least {flag.minimum}, not {value}")
    return converted


def help_text(command: Callable[..., None], flags: Flags = FLAGS) -> str:
    """The command's docstring and its flags, in the order in which they may be given without their names."""
    import textwrap  # only here, as a start has other things to do

    program = Path(sys.argv[0]).name
    doc = inspect.getdoc(command) or ""
    parameters = inspect.signature(command).parameters
    required = [name.upper() for name, p in parameters.items() if p.default is p.empty]
    lines = [" ".join(["usage:", program, *required, "[--FLAG VALUE ...]"]), "", doc, "", "flags, in positional order:"]
    for name, parameter in parameters.items():
        flag = flags[name]
        default = _default_text(parameter.default)
        lines.append(f"  --{name}" if flag.kind is parse_switch else f"  --{name}={name.upper()}")
        about = textwrap.wrap(f"{flag.help} ({flag.what}{default})", 92)
        lines += [" " * 8 + line for line in about]
    return "\n".join(lines)


def _default_text(default: Any) -> str:
    if default is inspect.Parameter.empty:
        return "; required"
    if default is False or default in (None, "", ()):
        return ""
    return f"; default {', '.join(default) if isinstance(default, tuple) else default}"
