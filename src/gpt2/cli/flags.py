"""The flags of the commands: their types, help and, where the library does not check them, ranges.

Defaults are the commands' own.
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from gpt2.request import PRECISIONS


class Flag(NamedTuple):
    kind: Callable[[str], Any]  # raises ValueError
    what: str  # the type, in words
    help: str
    minimum: int | None = None
    many: bool = False  # whether it may be given more than once, its kind being `texts`


def texts(value: str) -> tuple[str, ...]:
    """One string, or a list of strings written as Python or JSON writes it."""
    if value.startswith("["):
        with contextlib.suppress(ValueError, SyntaxError):
            values = ast.literal_eval(value)
            if isinstance(values, list) and all(isinstance(v, str) for v in values):
                return tuple(values)
    return (value,)


def parse_switch(value: str) -> bool:
    """What a flag that needs no value was given after all."""
    try:
        return {"true": True, "false": False}[value.lower()]
    except KeyError:
        raise ValueError from None


def parse_byte_size(value: str) -> int:
    """5GB, 500MB or a number of bytes, at least one."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *([KMG]?)B?", value.strip(), re.IGNORECASE)
    size = int(float(found[1]) * 1000 ** " KMG".index(found[2].upper() or " ")) if found else 0
    if size < 1:
        raise ValueError
    return size


def urls(value: str) -> tuple[str, ...]:
    return tuple(value.split(","))


WHOLE, NUMBER, TEXT, YES_OR_NO = "a whole number", "a number", "text", "true or false"
TEXTS = "a file (.txt, .csv, either with .gz), a folder, or a quoted pattern such as 'data/**/*.txt'"
FLAGS = {
    "model_name": Flag(str, "a name", "which model to use: a name under models_dir or the path of a model directory"),
    "seed": Flag(int, WHOLE, "fixes the random numbers: one seed, one text; drawn and shown if not given", 0),
    "nsamples": Flag(int, WHOLE, "how many samples to write", 0),
    "batch_size": Flag(int, WHOLE, "how many samples are computed together; changes speed and memory only", 1),
    "length": Flag(int, WHOLE, "number of new tokens"),
    "temperature": Flag(float, NUMBER, "randomness: 0 always takes the likeliest token, 1 samples as trained"),
    "top_k": Flag(int, WHOLE, "choose among the k likeliest tokens; 1 is deterministic, 40 a good value, 0 means all"),
    "top_p": Flag(float, NUMBER, "choose among the likeliest tokens whose probabilities reach p; 0.9 is a good value"),
    "models_dir": Flag(str, "a folder", "folder that holds the models' folders; ~ and $VARIABLES are expanded"),
    "stop": Flag(texts, "text", "end a sample before this text; several: \"['one', '\\n\\n']\""),
    "repetition_penalty": Flag(float, NUMBER, "makes tokens that are there already less likely; 1 is off, 1.2 strong"),
    "frequency_penalty": Flag(
        float, NUMBER, "makes new tokens less likely each time they come, from -2 to 2; 0 is off"
    ),
    "presence_penalty": Flag(float, NUMBER, "makes new tokens less likely once they have come, from -2 to 2; 0 is off"),
    "min_p": Flag(float, NUMBER, "choose among tokens that are this share as likely as the likeliest; 0 is off"),
    "threads": Flag(int, WHOLE, "how many threads compute; all cores if not given"),
    "precision": Flag(str, "a name", f"of the weights in memory: {', '.join(PRECISIONS)}; the narrower, the faster"),
    "no_cache": Flag(
        parse_switch, YES_OR_NO, "keep no packed weights in ~/.cache/gpt-2-tensorflow for the next start, and use none"
    ),
    "clear_cache": Flag(parse_switch, YES_OR_NO, "remove the packed weights that are kept for the next start"),
    "prompt": Flag(str, "text", "answer this one prompt and exit"),
    "prompt_file": Flag(str, "a file", "answer the one prompt that is in this file, or in all of stdin if -, and exit"),
    "encoding": Flag(str, "a name", "encoding of text that is read, from files or stdin"),
    "base_url": Flag(
        urls,
        "URLs",
        "where to download from, instead of OpenAI's servers; several, separated by commas, are tried in turn",
    ),
    "in_text": Flag(str, "a path", f"text to read: {TEXTS}"),
    "dataset": Flag(str, "a path", f"text to train on: {TEXTS}; or files of ids, as encode.py writes them"),
    "out": Flag(str, "a path", "the file or folder to write"),
    "combine": Flag(int, WHOLE, "an .npz gets chunks of at least so many characters; .npy has no chunks", 1),
    "csv_header": Flag(parse_switch, YES_OR_NO, "leave out the first row of each .csv"),
    "workers": Flag(int, WHOLE, "how many processes encode text; all cores if not given", 1),
    "n_vocab": Flag(int, WHOLE, "size of the vocabulary: 256 bytes, merges, <|endoftext|>; GPT-2's is 50257"),
    "text": Flag(str, "text", "the text itself, instead of a file"),
    "by": Flag(str, "a name", "what is told of: each token, word, line or file"),
    "next": Flag(int, WHOLE, "instead: so many of the likeliest tokens that may follow the text", 1),
    "likeliest": Flag(int, WHOLE, "how many of the likeliest tokens stand beside each token", 0),
    "form": Flag(str, "a name", "table, csv, jsonl or html; what the name of --out ends in, if not given"),
    "window": Flag(int, WHOLE, "how many tokens the model sees at most; its n_ctx if not given", 1),
    "stride": Flag(int, WHOLE, "how far the window moves: small sees more, and takes longer", 1),
    "tasks": Flag(str, "names", "which tasks, separated by commas, or all; --help lists them"),
    "data": Flag(str, "a path", "the data of the one task, instead of downloading them; packed or not"),
    "data_dir": Flag(str, "a folder", "where data are kept; ~/.cache/gpt-2-tensorflow/data if not given"),
    "limit": Flag(int, WHOLE, "only the first so many examples or, of a text, characters", 1),
    "no_start": Flag(parse_switch, YES_OR_NO, "do not put <|endoftext|> before a text: its first token is not scored"),
    "json": Flag(parse_switch, YES_OR_NO, "an object a line, with all that is known, instead of a table"),
    "src": Flag(str, "a name", "the model: a name under models_dir, or the path of its folder or file"),
    "dst": Flag(str, "a path", "the new folder, or with --to gguf the new file; nothing may be there"),
    "to": Flag(str, "a name", "the format to write: openai, huggingface, gguf or saved_model"),
    "dtype": Flag(
        str, "a name", "of the numbers: float32; for gguf float16, bfloat16, q8_0 too, for huggingface the first two"
    ),
    "shard_size": Flag(parse_byte_size, "a size such as 500MB", "huggingface: most bytes of a file of weights"),
    "variant": Flag(
        parse_switch, YES_OR_NO, "openai: write also what the old tools cannot read and the commands here can"
    ),
}
