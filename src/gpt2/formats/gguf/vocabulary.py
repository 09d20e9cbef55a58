"""The byte-level BPE vocabulary in the metadata of a GGUF file.

Control tokens and user-defined tokens are matched in text before BPE, as llama.cpp does with prompts.
"""

from __future__ import annotations

import numpy as np

from gpt2.encoder import END_OF_TEXT, Encoder
from gpt2.errors import GPT2Error
from gpt2.formats.gguf.header import GGUFFile
from gpt2.formats.gguf.names import (
    ADD_KEYS,
    CONTROL_TOKEN,
    ENDING_KEYS,
    MERGES_KEY,
    NORMAL_TOKEN,
    TOKEN_TYPES_KEY,
    TOKENS_KEY,
    UNUSED_TOKEN,
    USER_DEFINED_TOKEN,
)
from gpt2.text.added_tokens import AddedToken
from gpt2.text.byte_level import byte_characters


def read_token_types(file: GGUFFile) -> np.ndarray:
    """Return the kind of each token [n_tokens], such as NORMAL_TOKEN.

    Raises:
        DamagedFileError: The metadata does not describe a vocabulary.
    """
    tokens = file.metadata.get(TOKENS_KEY)
    if not isinstance(tokens, list) or not tokens or not isinstance(file.metadata.get(MERGES_KEY), list):
        raise file.damaged(f"{TOKENS_KEY} and {MERGES_KEY} should be lists of strings")
    types = file.metadata.get(TOKEN_TYPES_KEY, np.full(len(tokens), NORMAL_TOKEN))
    if not isinstance(types, np.ndarray) or types.dtype.kind not in "iu" or len(types) != len(tokens):
        raise file.damaged(f"{TOKEN_TYPES_KEY} should be a number for each of the {len(tokens)} tokens")
    if (types == UNUSED_TOKEN).all():
        raise file.damaged("all of its tokens are unused")
    return types


def count_ids(token_types: np.ndarray) -> int:
    """Return the number of ids up to and including the last used id.

    Converters append unused tokens to match the rows of a padded embedding.
    """
    return int(np.flatnonzero(token_types != UNUSED_TOKEN)[-1]) + 1


def read_vocabulary(file: GGUFFile, token_types: np.ndarray) -> Encoder:
    """Return the file's vocabulary.

    Args:
        file: The file.
        token_types: The kind of each token [n_tokens].

    Raises:
        DamagedFileError: The vocabulary is not a byte-level BPE.
    """
    tokens: list[str] = file.metadata[TOKENS_KEY][: count_ids(token_types)]
    _check_no_added_ids(file)
    characters = set(byte_characters().values())
    added = [
        AddedToken(token, i, special=token_type == CONTROL_TOKEN)
        for i, (token, token_type) in enumerate(zip(tokens, token_types.tolist()))
        if token_type in (CONTROL_TOKEN, USER_DEFINED_TOKEN)
    ]
    normal_tokens = {token for token, token_type in zip(tokens, token_types) if token_type == NORMAL_TOKEN}
    if missing := characters - {*normal_tokens, *(token.content for token in added)}:
        raise file.damaged(f"its vocabulary lacks {len(missing)} of the 256 bytes")
    ids = {token: i for i, token in enumerate(tokens)}
    if len(ids) < len(tokens):
        raise file.damaged("two of its tokens are the same")
    pairs = [tuple(merge.split(" ")) for merge in file.metadata[MERGES_KEY]]
    if not all(len(pair) == 2 for pair in pairs):
        raise file.damaged("one of its merges does not consist of two pieces")
    merged = {left + right for left, right in pairs}
    if unreachable := normal_tokens - merged - characters:
        raise file.damaged(f"no merge produces the token {min(unreachable)!r} and {len(unreachable) - 1} others")
    if unknown := merged - ids.keys():
        raise file.damaged(f"it lacks the token {min(unknown)!r}, which a merge produces")
    special = ids.keys() - merged - characters
    ending_ids = [file.metadata.get(key) for key in ENDING_KEYS]
    end_token = next((token for token in special if ids[token] == ending_ids[0]), END_OF_TEXT)
    others = {token for token in ending_ids[1:] if isinstance(token, int) and 0 <= token < len(tokens)}
    return Encoder(ids, [(left, right) for left, right in pairs], end_token, special, added, others)


def _check_no_added_ids(file: GGUFFile) -> None:
    """Raise GPT2Error if the file asks for ids around each text."""
    for key in ADD_KEYS:
        if file.metadata.get(key):
            raise GPT2Error(
                f"{file.path} has {key}, which GPT-2 was not trained with; convert the model again with"
                f" {key.rpartition('.')[2]} false, and write the token into the texts that need it"
            )
