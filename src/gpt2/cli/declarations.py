"""A command's flags, as the annotations of its parameters or of its dataclass declare them."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

from gpt2.cli.values import parse_switch, parse_texts
from gpt2.flags import Flag

WHOLE_NUMBER = "a whole number"
NUMBER = "a number"
TEXT = "text"
TRUE_OR_FALSE = "true or false"
TYPES: dict[Any, tuple[Callable[[str], Any], str]] = {
    int: (int, WHOLE_NUMBER),
    float: (float, NUMBER),
    bool: (parse_switch, TRUE_OR_FALSE),
    str: (str, TEXT),
    tuple[str, ...]: (parse_texts, TEXT),
}

Command = Callable[..., None]
Parameters = Mapping[str, inspect.Parameter]
AnyCommand = TypeVar("AnyCommand", bound=Command)


def takes_flags_of(options: type) -> Callable[[AnyCommand], AnyCommand]:
    """Return a decorator for a command `f(**typed)` that takes the flags of a dataclass.

    The command receives only the typed flags, without the defaults of the other flags.
    """

    def decorate(command: AnyCommand) -> AnyCommand:
        command.__signature__ = inspect.signature(options, eval_str=True)  # type: ignore[attr-defined]
        return command

    return decorate


def options_class(command: Callable[..., Any]) -> type | None:
    """Return the dataclass that is the command's only parameter, or None if the parameters are the flags."""
    parameters = [*inspect.signature(command, eval_str=True).parameters.values()]
    if len(parameters) == 1 and dataclasses.is_dataclass(parameters[0].annotation):
        return typing.cast(type, parameters[0].annotation)
    return None


def parameters_of(declaring: Callable[..., Any]) -> Parameters:
    """Return the flags of a command or of a dataclass as parameters, in the order of positional values."""
    return inspect.signature(options_class(declaring) or declaring, eval_str=True).parameters


def flags_of(declaring: Callable[..., Any]) -> dict[str, Flag]:
    """Return the flags of a command or of a dataclass by their names."""
    return {name: flag_of(parameter.annotation) for name, parameter in parameters_of(declaring).items()}


def flag_of(annotation: Any) -> Flag:
    """Return the `Flag` of an annotated type, with missing fields derived from the type.

    Raises:
        TypeError: The annotation contains no `Flag`.
    """
    if typing.get_origin(annotation) is Annotated:
        declared, *metadata = typing.get_args(annotation)
        for flag in metadata:
            if isinstance(flag, Flag):
                parse, expects = TYPES[_without_none(declared)]
                return flag._replace(parse=flag.parse or parse, expects=flag.expects or expects)
    raise TypeError(f"a flag must be annotated with Flag(...), not declared as {annotation!r}")


def _without_none(declared: Any) -> Any:
    """Return X for `X | None`, and any other type unchanged."""
    if typing.get_origin(declared) in (types.UnionType, typing.Union):
        return next(kind for kind in typing.get_args(declared) if kind is not type(None))
    return declared
