"""Reader of the added and special tokens of Hugging Face's tokenizers, and of the token that ends a text.

Five files may contain them: tokenizer_config.json, special_tokens_map.json, added_tokens.json, generation_config.json
and config.json. Each of them is optional.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt2 import files
from gpt2.encoder import END_OF_TEXT, SPECIAL_TOKENS_FILE
from gpt2.errors import DamagedFileError

CONFIG_FILE = "config.json"
GENERATION_CONFIG_FILE = "generation_config.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
ADDED_TOKENS_FILE = "added_tokens.json"
MAX_ID_DIGITS = 9


def read_optional_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, or an empty object if the file does not exist.

    Raises:
        UnreadableFileError: If the file cannot be read.
        DamagedFileError: If the file holds anything except a JSON object.
    """
    if not files.is_file(path):
        return {}
    value = files.read_json(path)
    if not isinstance(value, dict):
        raise DamagedFileError(path, "it should be a JSON object")
    return value


def read_added_tokens(folder: Path) -> dict[str, int]:
    """Return the ids of the tokens in `tokenizer_config.json` and `added_tokens.json` by their texts.

    Raises:
        DamagedFileError: If one of the files does not map texts to ids.
    """
    return dict(_added_tokens_decoder(folder)) | dict(_added_tokens_file(folder))


def _added_tokens_decoder(folder: Path) -> Iterator[tuple[str, int]]:
    path = folder / TOKENIZER_CONFIG_FILE
    decoder = read_optional_object(path).get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise DamagedFileError(path, "its added_tokens_decoder should map ids to texts")
    for token_id, token in decoder.items():
        text = token_content(token)
        if text is None or not token_id.isdecimal() or len(token_id) > MAX_ID_DIGITS:
            raise DamagedFileError(path, "its added_tokens_decoder should map ids to texts")
        yield text, int(token_id)


def _added_tokens_file(folder: Path) -> Iterator[tuple[str, int]]:
    path = folder / ADDED_TOKENS_FILE
    for text, token_id in read_optional_object(path).items():
        if type(token_id) is not int or token_id < 0:
            raise DamagedFileError(path, "it should map texts to ids")
        yield text, token_id


def special_token_texts(folder: Path) -> Iterator[str]:
    """Yield the texts of all declared special tokens, which do not need merges."""
    decoder = read_optional_object(folder / TOKENIZER_CONFIG_FILE).get("added_tokens_decoder") or {}
    for token in decoder.values():
        if isinstance(token, dict) and token.get("special") and (text := token_content(token)) is not None:
            yield text
    for name in (SPECIAL_TOKENS_FILE, TOKENIZER_CONFIG_FILE):
        for key, value in read_optional_object(folder / name).items():
            if key.endswith(("_token", "_special_tokens")):
                yield from filter(None, map(token_content, value if isinstance(value, list) else [value]))


def find_end_token(folder: Path, ids_of: dict[str, int], special: dict[int, str]) -> str:
    """Return the token that ends a text.

    The first existing value in this order is used: the tokenizer's eos_token, the model's eos_token_id, the tokenizer's
    bos_token, the model's bos_token_id, OpenAI's <|endoftext|>. An id in the model's config is used only if it is the
    id of a special token. The reason is that many configs contain GPT-2's id, which is an ordinary piece of another
    vocabulary.

    Args:
        folder: The folder of the tokenizer.
        ids_of: The id of each piece.
        special: The special tokens by their ids.
    """
    for role in ("eos_token", "bos_token"):
        for name in (TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE):
            if (text := token_content(read_optional_object(folder / name).get(role))) in ids_of:
                return str(text)
        for name in (GENERATION_CONFIG_FILE, CONFIG_FILE):
            token_id = read_optional_object(folder / name).get(f"{role}_id")
            if isinstance(token_id, list) and token_id:
                token_id = token_id[0]
            if type(token_id) is int and token_id in special:
                return special[token_id]
    return END_OF_TEXT


def token_content(token: Any) -> str | None:
    """Return the text of a token, or None if it is neither text nor an object with `content`."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def embedding_rows(folder: Path) -> int | None:
    """Return the number of rows of the model's embedding, or None if the folder has no model config."""
    rows = read_optional_object(folder / CONFIG_FILE).get("vocab_size")
    return rows if type(rows) is int else None
