"""The files that store a byte-level BPE vocabulary in a model directory."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence, Set
from typing import Any

from gpt2.text.added_tokens import AddedToken

# OpenAI's file of pieces and file of merges, and the names of the same two files in transformers.
ENCODER_FILE = "encoder.json"
MERGES_FILE = "vocab.bpe"
HUGGING_FACE_PIECES_FILE = "vocab.json"
HUGGING_FACE_MERGES_FILE = "merges.txt"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"  # transformers' file that names the end-of-text token
# This library's file of added tokens and of the ids that end a text. Other programs ignore it.
ADDED_TOKENS_FILE = "special_tokens.json"
ADDED_TOKENS_KEY = "added_tokens"
ENDING_IDS_KEY = "ending_ids"


def openai_files(ids_of: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> dict[str, bytes]:
    """Return OpenAI's `encoder.json` and `vocab.bpe`."""
    return {ENCODER_FILE: json.dumps(ids_of).encode("ascii"), MERGES_FILE: merges_content(merges)}


def hugging_face_files(
    ids_of: Mapping[str, int], merges: Sequence[tuple[str, str]], special: Set[str], end_token: str
) -> dict[str, bytes]:
    """Return transformers' `vocab.json` and `merges.txt`, and its file of special tokens."""
    roles: dict[str, Any] = {"eos_token": end_token} if end_token in ids_of else {}
    roles["additional_special_tokens"] = sorted(special - {end_token})
    return {
        HUGGING_FACE_MERGES_FILE: merges_content(merges),
        SPECIAL_TOKENS_FILE: json.dumps(roles).encode("ascii"),
        HUGGING_FACE_PIECES_FILE: json.dumps(ids_of).encode("ascii"),
    }


def added_tokens_file(added: Sequence[AddedToken], ending_ids: Collection[int]) -> dict[str, bytes]:
    """Return the file of added tokens, whose objects have the keys of `tokenizer.json`, and of the ending ids."""
    tokens = [dataclasses.asdict(token) for token in added]
    content = json.dumps({ADDED_TOKENS_KEY: tokens, ENDING_IDS_KEY: sorted(ending_ids)})
    return {ADDED_TOKENS_FILE: content.encode("ascii")}


def merges_content(merges: Sequence[tuple[str, str]]) -> bytes:
    """Return the content of the file of merges, which is the same in both layouts."""
    return "\n".join(["#version: 0.2", *(f"{left} {right}" for left, right in merges), ""]).encode("utf-8")
