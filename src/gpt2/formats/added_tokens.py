"""Added tokens in files: the objects in which Hugging Face's files list them, and this library's own file of them."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gpt2 import files
from gpt2.encoder import Encoder
from gpt2.errors import DamagedFileError
from gpt2.text.added_tokens import AddedToken
from gpt2.text.bpe_files import ADDED_TOKENS_FILE, ADDED_TOKENS_KEY, ENDING_IDS_KEY

FLAGS = ("special", "lstrip", "rstrip", "single_word", "normalized")


def parse_added_tokens(tokens: Any, path: Path) -> Iterator[AddedToken]:
    """Yield the added tokens in the list `added_tokens` of a `tokenizer.json`.

    Raises:
        DamagedFileError: If the value is not a list of added tokens.
    """
    values: list[Any] = tokens if isinstance(tokens, list) else [None]
    for token in values:
        match token:
            case {"content": str(text), "id": int(token_id)} if token_id >= 0:
                yield make_added_token(text, token_id, token, path)
            case _:
                raise DamagedFileError(path, f"an added token should be a text and its id, not {reprlib.repr(token)}")


def make_added_token(text: str, token_id: int, flags: Mapping[Any, Any], path: Path) -> AddedToken:
    """Return a token with the flags in a JSON object.

    Raises:
        DamagedFileError: If a flag is neither true nor false.
    """
    values = {name: flags[name] for name in FLAGS if flags.get(name) is not None}
    if wrong := [name for name, value in values.items() if not isinstance(value, bool)]:
        shown = reprlib.repr(flags[wrong[0]])
        raise DamagedFileError(path, f"{wrong[0]} of an added token should be true or false, not {shown}")
    values.setdefault("normalized", not values.get("special", False))
    return AddedToken(text, token_id, **values)


class SavedTokens(NamedTuple):
    """The content of this library's file: added tokens, and the ids that end a text."""

    path: Path
    added: list[AddedToken]
    ending_ids: list[int]

    def add_to(self, encoder: Encoder) -> Encoder:
        """Return a vocabulary with these tokens instead of its own.

        Raises:
            DamagedFileError: The file belongs to another vocabulary.
        """
        if wrong := [token.content for token in self.added if encoder.ids_of.get(token.content) != token.id]:
            raise DamagedFileError(self.path, f"{wrong[0][:40]!r} has another id in the vocabulary")
        if not set(encoder.ids_of.values()).issuperset(self.ending_ids):
            raise DamagedFileError(self.path, f"{ENDING_IDS_KEY} has an id that the vocabulary does not have")
        return encoder.with_added_tokens(self.added, self.ending_ids)


def read_saved_tokens(folder: Path) -> SavedTokens | None:
    """Return the content of this library's file in a folder, or None if there is no such file.

    Raises:
        UnreadableFileError: The file cannot be read.
        DamagedFileError: The file is damaged.
    """
    path = folder / ADDED_TOKENS_FILE
    if not files.is_file(path):
        return None
    content = files.read_json(path)
    if not isinstance(content, dict):
        raise DamagedFileError(path, "it should be a JSON object")
    added = list(parse_added_tokens(content.get(ADDED_TOKENS_KEY), path))
    ending_ids = content.get(ENDING_IDS_KEY)
    if not isinstance(ending_ids, list) or not all(type(each) is int for each in ending_ids):
        raise DamagedFileError(path, f"{ENDING_IDS_KEY} should be a list of ids")
    return SavedTokens(path, added, ending_ids)
