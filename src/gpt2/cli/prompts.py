"""Prompts from a terminal, a pipe or a file."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator

from gpt2.errors import GPT2Error, UsageError, printable_name
from gpt2.files import expand_path
from gpt2.text.undecodable import MAX_BOM_BYTES, REPLACE_AND_COUNT, encoding_from_bom

PROMPT = "Model prompt >>> "
EMPTY_PROMPT = "Prompt should not be empty!"
MAX_PROMPT_BYTES = 16 << 20


def ask_for_prompts(encoding: str) -> Iterator[str]:
    """Yield the prompts that are typed or piped into stdin, one per line, until it ends."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  lets input() edit the line and recall earlier ones
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding=encoding, errors=REPLACE_AND_COUNT)
    while True:
        try:
            text = input(PROMPT) if sys.stdin.isatty() else _read_line()
        except EOFError:
            print(flush=True)
            return
        if text:
            yield text
        else:
            print(EMPTY_PROMPT)


def _read_line() -> str:
    """Print the prompt and return a line of stdin, as `input` does.

    A line longer than MAX_PROMPT_BYTES is rejected, because a line without an end would fill the memory.

    Raises:
        EOFError: stdin has ended.
        GPT2Error: The line cannot be decoded.
        UsageError: The line is too long.
    """
    print(PROMPT, end="", flush=True)
    try:
        line = sys.stdin.readline(MAX_PROMPT_BYTES + 1)
    except UnicodeError as error:
        raise GPT2Error(f"the prompt cannot be read: {error}") from error
    if not line:
        raise EOFError
    _check_length(line)
    return line.removesuffix("\n")


def read_prompt(prompt_file: str, encoding: str) -> str:
    """Return the text of a file, or of stdin if it is `-`, without its last newline.

    Raises:
        GPT2Error: The file cannot be read.
        UsageError: The text is longer than MAX_PROMPT_BYTES.
    """
    try:
        if prompt_file == "-":
            data = sys.stdin.buffer.read(MAX_PROMPT_BYTES + 1)
        else:
            with expand_path(prompt_file).open("rb") as file:
                data = file.read(MAX_PROMPT_BYTES + 1)
    except OSError as error:
        raise GPT2Error(f"the prompt file {printable_name(prompt_file)} cannot be read: {error.strerror}") from error
    _check_length(data)
    text = data.decode(encoding_from_bom(data[:MAX_BOM_BYTES], encoding), errors=REPLACE_AND_COUNT)
    return text.removesuffix("\n").removesuffix("\r")


def _check_length(prompt: str | bytes) -> None:
    if len(prompt) > MAX_PROMPT_BYTES:
        raise UsageError(
            f"the prompt is longer than {MAX_PROMPT_BYTES:,} bytes; shorten it: the model uses only its last tokens"
        )
