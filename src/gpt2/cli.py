"""A command's flags and its manners: types, help, errors in one line, UTF-8, closed pipes, Ctrl-C.

A command is a function; its parameters are its flags and hold their defaults. fire splits the command line, so that
positional values, `--flag v`, `--flag=v`, `--some-flag` and `-s v` all work as they did; types are those of `FLAGS`.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import io
import os
import re
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpt2.errors import GPT2Error, UsageError

FAILURE, USAGE, INTERRUPTED, CLOSED_PIPE = 1, 2, 130, 141  # the last two as a shell reports SIGINT and SIGPIPE
DEBUG = "GPT2_DEBUG"  # set to anything, it shows the traceback of an error that nobody foresaw
# fire splits commands at a lone "-", which is how --prompt_file names stdin; no argument can hold a null character.
SEPARATOR = "--separator=\0"


class Flag(NamedTuple):
    kind: Callable[[str], Any]  # raises ValueError
    what: str  # the type, in words
    help: str
    minimum: int | None = None


def texts(value: str) -> tuple[str, ...]:
    """One string, or a list of strings written as Python or JSON writes it."""
    if value.startswith("["):
        with contextlib.suppress(ValueError, SyntaxError):
            values = ast.literal_eval(value)
            if isinstance(values, list) and all(isinstance(v, str) for v in values):
                return tuple(values)
    return (value,)


def urls(value: str) -> tuple[str, ...]:
    return tuple(value.split(","))


WHOLE, NUMBER = "a whole number", "a number"
FLAGS = {
    "model_name": Flag(str, "a name", "which model to use: a name under models_dir or the path of a model directory"),
    "seed": Flag(int, WHOLE, "fixes the random numbers: one seed, one text; drawn and shown if not given", 0),
    "nsamples": Flag(int, WHOLE, "how many samples to write", 0),
    "batch_size": Flag(int, WHOLE, "how many samples are computed together; changes speed and memory only", 1),
    "length": Flag(int, WHOLE, "number of new tokens", 0),
    "temperature": Flag(float, NUMBER, "randomness: 0 always takes the likeliest token, 1 samples as trained"),
    "top_k": Flag(int, WHOLE, "choose among the k likeliest tokens; 1 is deterministic, 40 a good value, 0 means all"),
    "top_p": Flag(float, NUMBER, "choose among the likeliest tokens whose probabilities reach p; 0.9 is a good value"),
    "models_dir": Flag(str, "a folder", "folder that holds the models' folders; ~ and $VARIABLES are expanded"),
    "stop": Flag(texts, "text", "end a sample before this text; several: \"['one', '\\n\\n']\""),
    "repetition_penalty": Flag(float, NUMBER, "makes tokens that are there already less likely; 1 is off, 1.2 strong"),
    "threads": Flag(int, WHOLE, "how many threads TensorFlow may use", 1),
    "prompt": Flag(str, "text", "answer this one prompt and exit"),
    "prompt_file": Flag(str, "a file", "answer the one prompt that is in this file, or in all of stdin if -, and exit"),
    "encoding": Flag(str, "a name", "encoding of prompts from stdin and files"),
    "base_url": Flag(
        urls,
        "URLs",
        "where to download from, instead of OpenAI's servers; several, separated by commas, are tried in turn",
    ),
}


def main(command: Callable[..., None], argv: Sequence[str] | None = None) -> int:
    """Runs a command with the arguments of this process and returns its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: complain(f"warning: {message}")
        warnings.simplefilter("always", UserWarning)
        return _guarded(command, sys.argv[1:] if argv is None else argv)


def _guarded(command: Callable[..., None], argv: Sequence[str]) -> int:
    """Runs the command; whatever happens becomes one line on stderr and an exit status."""
    try:
        arguments = parse(command, argv)
        if arguments is None:
            print(help_text(command))
        else:
            command(**arguments)
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt:
        complain("")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python's own flush at exit would complain
        return CLOSED_PIPE
    except (GPT2Error, OSError) as error:
        complain(f"error: {error}")
        return USAGE if isinstance(error, UsageError) else FAILURE
    except ModuleNotFoundError as error:
        complain(f"error: the package {error.name} is missing; type: pip install -r requirements.txt")
        return FAILURE
    except Exception as error:
        if DEBUG in os.environ:
            raise
        first_line = str(getattr(error, "message", error)).split("\n")[0]
        complain(f"error: {type(error).__name__}: {first_line} ({DEBUG}=1 shows where)")
        return FAILURE


def complain(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(line, file=sys.stderr, flush=True)


def parse(command: Callable[..., None], argv: Sequence[str]) -> dict[str, Any] | None:
    """Command line -> the command's arguments, each of its flag's type; None if help is asked for.

    Raises UsageError for unknown flags, flags without a value, too many arguments, wrong types and values out of range.
    """
    own, fires = _split(argv)
    if {"--help", "-h"} & {*own, *fires}:
        return None
    parameters = inspect.signature(command).parameters
    _check_names(own, list(parameters))
    given = _fire(command, [*own, "--", *fires, SEPARATOR])
    return {name: _convert(name, value, parameters[name].default) for name, value in given.items()}


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command's arguments, and those for fire itself, after a lone `--`."""
    at = argv.index("--") if "--" in argv else len(argv)
    return list(argv[:at]), list(argv[at + 1 :])


def _check_names(argv: list[str], names: list[str]) -> None:
    for argument, following in zip(argv, [*argv[1:], "--"]):
        match = re.fullmatch(r"--([^=]*)(=.*)?", argument, re.DOTALL)
        if not match:
            continue
        name = match[1].replace("-", "_")
        if name not in names:
            raise UsageError(f"there is no flag {argument.split('=')[0]}; the flags are --{', --'.join(names)}")
        if match[2] is None and following.startswith("--"):
            raise UsageError(f"--{name} needs a value: {FLAGS[name].what}")


def _fire(command: Callable[..., None], argv: list[str]) -> dict[str, str]:
    """What fire makes of the command line, before anything runs and with every value still a string."""
    import fire

    bound: dict[str, str] = {}

    @fire.decorators.SetParseFn(str)
    @functools.wraps(command)
    def collect(*args: str, **kwargs: str) -> None:
        bound.update(inspect.signature(command).bind(*args, **kwargs).arguments)

    with contextlib.redirect_stderr(io.StringIO()) as output:
        try:
            fire.Fire(collect, command=argv)
        except fire.core.FireExit as error:
            if not error.code:
                raise UsageError("nothing was run: the arguments after -- are for fire") from error
            said = re.search(r"ERROR: (.*)", output.getvalue())
            raise UsageError(_readable(said[1] if said else output.getvalue().strip())) from error
    return bound


def _readable(said: str) -> str:
    surplus = said.removeprefix("Could not consume arg: ")
    return said if surplus == said else f"there is no place for the argument {surplus!r}; --help lists the flags"


def _convert(name: str, value: Any, default: Any) -> Any:
    if not isinstance(value, str):
        return value  # a default that fire passed along
    flag = FLAGS[name]
    if default is None and value == "None":
        return None
    try:
        converted = flag.kind(value)
    except ValueError:
        raise UsageError(f"{name} must be {flag.what}, not {value!r}") from None
    if flag.minimum is not None and converted < flag.minimum:
        raise UsageError(f"{name} must be {flag.what} of at least {flag.minimum}, not {value}")
    return converted


def help_text(command: Callable[..., None]) -> str:
    """The command's docstring and its flags, in the order in which they may be given without their names."""
    program = Path(sys.argv[0]).name
    doc = inspect.getdoc(command) or ""
    parameters = inspect.signature(command).parameters
    required = [name.upper() for name, p in parameters.items() if p.default is p.empty]
    lines = [" ".join(["usage:", program, *required, "[--FLAG VALUE ...]"]), "", doc, "", "flags, in positional order:"]
    for name, parameter in parameters.items():
        flag = FLAGS[name]
        default = _default_text(parameter.default)
        lines.append(f"  --{name}={name.upper()}")
        about = textwrap.wrap(f"{flag.help} ({flag.what}{default})", 92)
        lines += [" " * 8 + line for line in about]
    return "\n".join(lines)


def _default_text(default: Any) -> str:
    if default is inspect.Parameter.empty:
        return "; required"
    if default in (None, "", ()):
        return ""
    return f"; default {', '.join(default) if isinstance(default, tuple) else default}"
