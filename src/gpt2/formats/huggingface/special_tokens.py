"""Reader of the added and special tokens of Hugging Face's tokenizers, and of the tokens that end a text.

Six files may contain them: tokenizer.json, tokenizer_config.json, special_tokens_map.json, added_tokens.json,
generation_config.json and config.json. Each of them is optional. They are combined as transformers combines them.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpt2 import files
from gpt2.encoder import END_OF_TEXT
from gpt2.errors import DamagedFileError
from gpt2.formats.added_tokens import make_added_token
from gpt2.text.added_tokens import AddedToken
from gpt2.text.bpe_files import SPECIAL_TOKENS_FILE

CONFIG_FILE = "config.json"
GENERATION_CONFIG_FILE = "generation_config.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
ADDED_TOKENS_FILE = "added_tokens.json"
MAX_ID_DIGITS = 9
DEFAULT_END_ID = 50256  # eos_token_id of GPT2Config, which many configs of other vocabularies still have
# The roles for which GPT2Tokenizer has <|endoftext|> as default; the generic classes have no defaults.
DEFAULT_ROLES = ("unk_token", "bos_token", "eos_token")
# The roles in the order in which transformers gives ids to tokens without one; other roles follow.
ORDERED_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
GENERIC_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")


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


def read_added_tokens(folder: Path, tokenizer_tokens: Mapping[str, AddedToken]) -> dict[str, AddedToken]:
    """Return the added tokens with an id by their texts.

    `tokenizer_config.json` overrides the flags in `tokenizer.json`, which override those of `added_tokens.json`.

    Args:
        folder: The folder of the tokenizer.
        tokenizer_tokens: The added tokens in `tokenizer.json`, by their texts.

    Raises:
        DamagedFileError: If one of the files does not map texts to ids.
    """
    special = set(_role_tokens(folder))
    listed = {
        text: AddedToken(text, token_id, special=text in special, normalized=text not in special)
        for text, token_id in _added_tokens_file(folder)
    }
    return listed | dict(tokenizer_tokens) | {token.content: token for token in _added_tokens_decoder(folder)}


def add_role_tokens(folder: Path, tokens: dict[str, AddedToken], ids_of: Mapping[str, int]) -> dict[str, AddedToken]:
    """Return the added tokens completed by the tokens that have a role, such as `pad_token`.

    As in transformers, a token that has no id anywhere gets the next free one.

    Args:
        folder: The folder of the tokenizer.
        tokens: The added tokens with an id, by their texts.
        ids_of: The id of each piece.
    """
    tokens = dict(tokens)
    next_id = 1 + max([*ids_of.values(), *(token.id for token in tokens.values())])
    for text, flags in _role_tokens(folder).items():
        if text in tokens or (text == END_OF_TEXT and text not in ids_of):
            continue
        token_id = ids_of.get(text, next_id)
        next_id += token_id == next_id
        tokens[text] = make_added_token(text, token_id, {**flags, "special": True}, folder / TOKENIZER_CONFIG_FILE)
    return tokens


def splits_special_tokens(folder: Path) -> bool:
    """Return whether the tokenizer's settings say that special tokens in a text are ordinary text."""
    return bool(read_optional_object(folder / TOKENIZER_CONFIG_FILE).get("split_special_tokens"))


def _added_tokens_decoder(folder: Path) -> Iterator[AddedToken]:
    path = folder / TOKENIZER_CONFIG_FILE
    decoder = read_optional_object(path).get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise DamagedFileError(path, "its added_tokens_decoder should map ids to texts")
    for token_id, token in decoder.items():
        text = token_content(token)
        if text is None or not token_id.isdecimal() or len(token_id) > MAX_ID_DIGITS:
            raise DamagedFileError(path, "its added_tokens_decoder should map ids to texts")
        yield make_added_token(text, int(token_id), token if isinstance(token, dict) else {}, path)


def _added_tokens_file(folder: Path) -> Iterator[tuple[str, int]]:
    path = folder / ADDED_TOKENS_FILE
    for text, token_id in read_optional_object(path).items():
        if type(token_id) is not int or token_id < 0:
            raise DamagedFileError(path, "it should map texts to ids")
        yield text, token_id


def _role_tokens(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the flags of each token that has a role, by its text."""
    config = read_optional_object(folder / TOKENIZER_CONFIG_FILE)
    roles = config
    if "added_tokens_decoder" not in config:  # newer versions of transformers do not read the older file then
        roles = config | read_optional_object(folder / SPECIAL_TOKENS_FILE)
    values: list[Any] = []
    if config.get("tokenizer_class") not in GENERIC_CLASSES and not roles.keys() >= set(DEFAULT_ROLES):
        values.append(END_OF_TEXT)
    for key in [*ORDERED_ROLES, *(key for key in roles if key not in ORDERED_ROLES)]:
        value = roles.get(key)
        if key.endswith("_special_tokens"):  # a list, or an object of roles with other names
            values += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        elif key.endswith("_token"):
            values.append(value)
    texts = [(token_content(value), value if isinstance(value, dict) else {}) for value in values]
    return {text: flags for text, flags in texts if text}


def special_token_texts(folder: Path, tokens: Mapping[str, AddedToken]) -> set[str]:
    """Return the texts of all declared special tokens, which do not need merges.

    Args:
        folder: The folder of the tokenizer.
        tokens: The added tokens by their texts.
    """
    return {*_role_tokens(folder), *(text for text, token in tokens.items() if token.special)}


def find_end_token(folder: Path, ids_of: dict[str, int], special: dict[int, str]) -> str:
    """Return the token that separates documents and ends a text.

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
        for token_id in _read_ids(_generation_config(folder), f"{role}_id"):
            if token_id in special:
                return special[token_id]
    return END_OF_TEXT


def find_ending_ids(folder: Path, ids: set[int], special: dict[int, str]) -> set[int]:
    """Return the ids that end a text according to the model's configuration, in addition to the end token.

    Ordinary pieces count only if `generation_config.json` lists them and they are not just GPT-2's default.

    Args:
        folder: The folder of the model.
        ids: All ids of the vocabulary.
        special: The special tokens by their ids.
    """
    path = _generation_config(folder)
    allowed = set(special) if path.name == CONFIG_FILE else ids - ({DEFAULT_END_ID} - special.keys())
    return allowed.intersection(_read_ids(path, "eos_token_id"))


def _generation_config(folder: Path) -> Path:
    """Return the file that configures generation: `generation_config.json` replaces `config.json`, if it exists."""
    path = folder / GENERATION_CONFIG_FILE
    return path if files.is_file(path) else folder / CONFIG_FILE


def _read_ids(path: Path, key: str) -> list[int]:
    """Return the ids under a key of a configuration, which holds one id, a list of ids or null.

    Raises:
        DamagedFileError: If the value is something else.
    """
    value = read_optional_object(path).get(key)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(each) is int for each in ids):
        raise DamagedFileError(path, f"{key} should be an id or a list of ids, not {reprlib.repr(value)}")
    return ids


def token_content(token: Any) -> str | None:
    """Return the text of a token, or None if it is neither text nor an object with `content`."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def embedding_rows(folder: Path) -> int | None:
    """Return the number of rows of the model's embedding, or None if the folder has no model config."""
    rows = read_optional_object(folder / CONFIG_FILE).get("vocab_size")
    return rows if type(rows) is int else None
