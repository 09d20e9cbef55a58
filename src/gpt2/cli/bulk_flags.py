"""The flags of files of prompts."""

from __future__ import annotations

from gpt2.cli.flags import FLAGS, TEXT, WHOLE, YES_OR_NO, Flag, parse_switch

FORMS = "text, jsonl, csv or parquet; what the file's name ends in, if not given"
BULK_FLAGS = FLAGS | {
    "prompts": Flag(str, "a path", "the file of prompts: .jsonl, .csv, .parquet, else text, one a line; - is stdin"),
    "out": Flag(str, "a path", "the file to write: .jsonl, .csv, .parquet (a folder), else text; - is stdout"),
    "length": FLAGS["length"]._replace(help="number of new tokens, at most; half the model's window if not given"),
    "n": Flag(int, WHOLE, "how many texts to write for each prompt", 1),
    "logprobs": Flag(int, WHOLE, "tell each token's log-probability, and so many of the likeliest tokens", 0),
    "ignore_eos": Flag(parse_switch, YES_OR_NO, "write on after the end of a text, <|endoftext|>"),
    "in_form": Flag(str, "a name", f"of the prompts: {FORMS}"),
    "out_form": Flag(str, "a name", f"of the output: {FORMS}"),
    "column": Flag(str, "a name", "which holds the prompts; `prompt`, or a table's first column, if not given"),
    "id_column": Flag(str, "a name", "which holds what the rows are called in the output; else they have numbers"),
    "template": Flag(str, TEXT, "what prompts are made of, such as 'Product: {name}\\n', with the columns' names"),
    "delimiter": Flag(str, TEXT, "what stands between prompts in a file of text, and between texts in one"),
    "no_header": Flag(parse_switch, YES_OR_NO, "the first row of a .csv is a prompt, not the columns' names"),
    "processes": Flag(int, WHOLE, "how many processes write, each with its share of the cores", 1),
    "ray": Flag(str, "an address", "of a Ray cluster whose machines write; `local` is a new one on this machine"),
}
