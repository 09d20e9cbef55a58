"""Parsing of command lines into the values of a command's flags.

fire splits command lines, so that positional values, `--flag v`, `--flag=v`, `--some-flag` and `-s v` work as they did
in the older tools. Most lines consist of `--flag v` and `--flag=v` alone and are split here, because importing fire,
and asyncio with it, takes longer than all other steps before a command's work.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpt2.cli.declarations import Command, Parameters, flags_of, parameters_of
from gpt2.cli.values import SWITCH_VALUES, parse_switch, parse_texts
from gpt2.errors import UsageError, suggest
from gpt2.flags import Flag

Flags = Mapping[str, Flag]
NOT_GIVEN = object()
LONG_FLAG = re.compile(r"--([^=]*)(?:=(.*))?", re.DOTALL)  # name, and the value that follows "="
# fire splits commands at a lone "-", which is how --prompt_file names stdin; no argument can hold a null character.
FIRE_SEPARATOR = "--separator=\0"


def parse(command: Command, argv: Sequence[str]) -> dict[str, Any] | None:
    """Return the values of the typed flags, converted to the flags' types.

    Args:
        command: The function that declares the flags, by its parameters or by a dataclass.
        argv: The arguments, without the program's name.

    Returns:
        The values by the flags' names, or None if help is requested.

    Raises:
        UsageError: A flag is unknown or has no value, an argument is surplus, or a value has the wrong type or is out
            of range.
    """
    arguments, after_dashes = _split_at_dashes(argv)
    if {"--help", "-h"} & {*arguments, *after_dashes}:
        return None
    if after_dashes:
        raise UsageError(f"after -- only --help has an effect, not {' '.join(after_dashes)!r}; leave the -- out")
    parameters = parameters_of(command)
    flags = flags_of(command)
    arguments = _join_repeated(_complete_switches(arguments, flags), flags)
    typed = split_plain_line(arguments)
    if typed is None or not typed.keys() >= required_names(parameters):
        typed = split_with_fire(parameters, arguments)
    return {name: _convert(name, flags[name], value, parameters[name].default) for name, value in typed.items()}


def required_names(parameters: Parameters) -> set[str]:
    """Return the names of the flags that have no default."""
    return {name for name, parameter in parameters.items() if parameter.default is parameter.empty}


def _split_at_dashes(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments before and after a lone `--`; fire treats the latter as its own flags."""
    end = argv.index("--") if "--" in argv else len(argv)
    return list(argv[:end]), list(argv[end + 1 :])


def _complete_switches(arguments: list[str], flags: Flags) -> list[str]:
    """Return the arguments, with True after each switch that was typed without a value.

    Raises:
        UsageError: A flag is unknown, or its value is missing.
    """
    completed = []
    for argument, following in zip(arguments, [*arguments[1:], "--"]):
        match = LONG_FLAG.fullmatch(argument)
        completed.append(argument)
        if not match:
            continue
        name = match[1].replace("-", "_")
        if name not in flags:
            check_is_one_word(argument)
            known = f"the flags are --{', --'.join(flags)}{suggest(name, flags, '--')}"
            raise UsageError(f"there is no flag {argument.split('=')[0]}; {known}")
        if match[2] is not None:
            continue
        if flags[name].parse is parse_switch:
            if following.lower() not in ("true", "false"):
                completed.append("True")
        elif following.startswith("--"):
            raise UsageError(f"--{name} needs a value: {flags[name].expects}")
    return completed


def _join_repeated(arguments: list[str], flags: Flags) -> list[str]:
    """Return the arguments with the values of each repeatable flag as one list.

    Without the list, fire would use the last value only.
    """
    others: list[str] = []
    lists: dict[str, list[str]] = {}
    words = iter(arguments)
    for word in words:
        match = LONG_FLAG.fullmatch(word)
        name = match[1].replace("-", "_") if match else ""
        if match and name in flags and flags[name].repeatable:
            lists.setdefault(name, []).extend(parse_texts(next(words) if match[2] is None else match[2]))
        else:
            others.append(word)
    return [*others, *(f"--{name}={values}" for name, values in lists.items())]


def check_is_one_word(argument: str) -> None:
    """Raise UsageError if one argument holds both a flag and its value.

    Quotation marks or a Dockerfile's ENTRYPOINT can cause this.
    """
    if match := re.fullmatch(r"(--[\w-]+) +(.+)", argument):
        flag, value = match.groups()
        raise UsageError(
            f"{argument!r} is one argument: write {flag} {value} without quotation marks, or {flag}={value}"
        )


def split_plain_line(arguments: Sequence[str]) -> dict[str, str] | None:
    """Return the values of a line that consists of `--flag value` and `--flag=value` alone, or None for other lines.

    If a flag is repeated, its last value counts.
    """
    typed: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        match = LONG_FLAG.fullmatch(word)
        if not match:
            return None
        value = match[2]
        if value is None:
            value = next(words, "-")
            if value.startswith("-"):
                return None
        typed[match[1].replace("-", "_")] = value
    return typed


def split_with_fire(parameters: Parameters, arguments: Sequence[str]) -> dict[str, str]:
    """Return the flags that fire finds in the arguments, with every value still a string.

    Raises:
        UsageError: fire cannot assign an argument, or a required one is missing.
    """
    import fire

    typed: dict[str, Any] = {}
    # fire also passes the defaults of flags that were not typed
    signature = inspect.Signature(
        [p if p.default is p.empty else p.replace(default=NOT_GIVEN) for p in parameters.values()]
    )

    @fire.decorators.SetParseFn(str)
    def collect(*args: str, **kwargs: str) -> None:
        typed.update(signature.bind(*args, **kwargs).arguments)

    collect.__signature__ = signature
    with contextlib.redirect_stderr(io.StringIO()) as output:
        try:
            fire.Fire(collect, command=[*arguments, "--", FIRE_SEPARATOR])
        except fire.core.FireExit as error:
            match = re.search(r"ERROR: (.*)", output.getvalue())
            raise UsageError(_rephrase(match[1] if match else output.getvalue().strip(), parameters)) from error
    return {name: value for name, value in typed.items() if value is not NOT_GIVEN}


def _rephrase(fire_error: str, names: Iterable[str]) -> str:
    surplus = fire_error.removeprefix("Could not consume arg: ")
    if surplus == fire_error:
        return fire_error
    return f"unexpected argument {surplus!r}; --help lists the flags{suggest_flag(surplus, names)}"


def suggest_flag(argument: str, names: Iterable[str]) -> str:
    """Return the end of a message that suggests the flag meant by an argument such as `-topk=40` or `topk`, or ""."""
    return suggest(argument.lstrip("-").split("=")[0], names, "--")


def suggest_switch(flag: Flag, value: str) -> str:
    """Return the end of a message that suggests the value of a switch, or "" for other flags."""
    return suggest(value, SWITCH_VALUES) if flag.parse is parse_switch else ""


def _convert(name: str, flag: Flag, value: str, default: Any) -> Any:
    """Return the value in the flag's type.

    Raises:
        UsageError: The value has another type or is too small.
    """
    if default is None and value == "None":
        return None
    assert flag.parse is not None  # flags_of always sets it
    try:
        converted = flag.parse(value)
    except ValueError:
        raise UsageError(f"{name} must be {flag.expects}, not {value!r}{suggest_switch(flag, value)}") from None
    if flag.minimum is not None and converted < flag.minimum:
        raise UsageError(f"{name} must be {flag.expects} of at least {flag.minimum}, not {value}")
    return converted
