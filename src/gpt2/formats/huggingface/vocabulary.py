"""Reader of byte-level BPE vocabularies of Hugging Face: `tokenizer.json`, or `vocab.json` and `merges.txt`.

`vocab.json` and `merges.txt` have the formats of OpenAI's `encoder.json` and `vocab.bpe`. Other files in the folder may
add tokens (see `special_tokens`), which are matched in text before BPE, as in transformers. A tokenizer with another
model, normalizer or pre-tokenizer is rejected with an error that names this part.
"""

from __future__ import annotations

import reprlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt2 import files
from gpt2.encoder import Encoder
from gpt2.errors import DamagedFileError, GPT2Error, summarize_names
from gpt2.formats.added_tokens import parse_added_tokens, read_saved_tokens
from gpt2.formats.huggingface.special_tokens import (
    CONFIG_FILE,
    TOKENIZER_CONFIG_FILE,
    add_role_tokens,
    embedding_rows,
    find_end_token,
    find_ending_ids,
    read_added_tokens,
    read_optional_object,
    special_token_texts,
    splits_special_tokens,
)
from gpt2.formats.openai.vocabulary import check_merges, check_pieces, read_merges
from gpt2.text.added_tokens import AddedToken
from gpt2.text.bpe_files import HUGGING_FACE_MERGES_FILE, HUGGING_FACE_PIECES_FILE

TOKENIZER_FILE = "tokenizer.json"
VOCAB_AND_MERGES = (HUGGING_FACE_PIECES_FILE, HUGGING_FACE_MERGES_FILE)
MAX_UNUSED_IDS = 4096  # ids without a piece below the largest id
# Prefixes of the tokenizer classes whose `vocab.json` and `merges.txt` are GPT-2's byte-level BPE.
BYTE_LEVEL_CLASSES = ("GPT2", "PreTrainedTokenizerFast", "TokenizersBackend", "CodeGen")
# Options of a BPE that GPT-2 does not have, with the values that disable them.
OFF_VALUES = {
    "dropout": (None, 0, 0.0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (None, False),
    "ignore_merges": (None, False),
}


def load_tokenizer(folder: Path) -> Encoder:
    """Return the vocabulary in `tokenizer.json`.

    Raises:
        GPT2Error: If the file is damaged or is not a byte-level BPE. The message names the file.
    """
    path = folder / TOKENIZER_FILE
    tokenizer = read_optional_object(path)
    _check_is_byte_level(tokenizer, path)
    model = tokenizer["model"]
    check_pieces(model.get("vocab"), path)
    merges = list(_parse_merges(model.get("merges"), path))
    tokens = {token.content: token for token in parse_added_tokens(tokenizer.get("added_tokens", []), path)}
    return _build_encoder(folder, path, model["vocab"], merges, tokens)


def load_vocab_and_merges(folder: Path) -> Encoder:
    """Return the vocabulary in `vocab.json` and `merges.txt`.

    Raises:
        GPT2Error: If a file is damaged or belongs to another kind of tokenizer. The message names the file.
    """
    path = folder / HUGGING_FACE_PIECES_FILE
    config_path = folder / TOKENIZER_CONFIG_FILE
    tokenizer_class = read_optional_object(config_path).get("tokenizer_class") or BYTE_LEVEL_CLASSES[0]
    if not isinstance(tokenizer_class, str) or not tokenizer_class.startswith(BYTE_LEVEL_CLASSES):
        raise _unsupported(config_path, f"tokenizer_class {reprlib.repr(tokenizer_class)}")
    ids_of = files.read_json(path)
    check_pieces(ids_of, path)
    return _build_encoder(folder, path, ids_of, read_merges(folder / HUGGING_FACE_MERGES_FILE, ids_of), {})


def _build_encoder(
    folder: Path,
    path: Path,
    ids_of: dict[str, int],
    merges: list[tuple[str, str]],
    tokens: dict[str, AddedToken],
) -> Encoder:
    """Return the vocabulary of pieces, merges, and the added tokens of all files in the folder.

    Args:
        folder: The folder of the tokenizer.
        path: The file of the pieces.
        ids_of: The id of each piece.
        merges: The merges in order of rank.
        tokens: The added tokens in the file of the pieces, by their texts.
    """
    config_path = folder / TOKENIZER_CONFIG_FILE
    config = read_optional_object(config_path)
    if config.get("add_prefix_space"):
        raise _unsupported(config_path, "add_prefix_space")
    if added_around := [name for name in ("add_bos_token", "add_eos_token") if config.get(name)]:
        raise GPT2Error(
            f"{config_path} has {added_around[0]}, which GPT-2 was not trained with; set it to false, and write the"
            " token into the texts that need it"
        )
    if any(token_id < 0 for token_id in ids_of.values()):
        raise DamagedFileError(path, "it has negative ids")
    tokens = add_role_tokens(folder, read_added_tokens(folder, tokens), ids_of)
    declared_special = special_token_texts(folder, tokens)
    special = check_merges(merges, ids_of, path, path.name, {*tokens, *declared_special})
    all_ids = _fill_unused_ids(_merge_added_tokens(ids_of, tokens, embedding_rows(folder), path), path)
    special |= all_ids.keys() - ids_of.keys()
    special_of = {all_ids[text]: text for text in special}
    split_special = splits_special_tokens(folder)
    matched = [token for token in tokens.values() if token.content in all_ids and not (split_special and token.special)]
    end_token = find_end_token(folder, all_ids, special_of)
    ending_ids = find_ending_ids(folder, set(all_ids.values()), special_of)
    encoder = Encoder(all_ids, merges, end_token, special, matched, ending_ids)
    saved = read_saved_tokens(folder)
    return saved.add_to(encoder) if saved else encoder


def _check_is_byte_level(tokenizer: dict[str, Any], path: Path) -> None:
    """Raise GPT2Error if a part of a tokenizer is not supported by GPT-2; the message names the part."""
    model: Any = tokenizer.get("model")
    splitter: Any = tokenizer.get("pre_tokenizer")
    if not isinstance(model, dict):
        raise DamagedFileError(path, "it has no model")
    if model.get("type", "BPE") != "BPE":
        raise _unsupported(path, f"model {_type_name(model)}")
    for name, off_values in OFF_VALUES.items():
        if model.get(name) not in off_values:
            raise _unsupported(path, f"{name} {reprlib.repr(model[name])}")
    if _type_name(splitter) == "Sequence":
        parts = splitter.get("pretokenizers")
        if isinstance(parts, list) and len(parts) == 1:
            splitter = parts[0]
    if _type_name(splitter) != "ByteLevel" or splitter.get("use_regex", True) is not True:
        raise _unsupported(path, f"pre_tokenizer {_type_name(splitter)}")
    if splitter.get("add_prefix_space") is not False:
        raise _unsupported(path, "add_prefix_space")
    allowed = {"normalizer": ("None",), "post_processor": ("None", "ByteLevel"), "decoder": ("None", "ByteLevel")}
    for name, type_names in allowed.items():
        if _type_name(tokenizer.get(name)) not in type_names and not _adds_nothing(tokenizer[name]):
            raise _unsupported(path, f"{name} {_type_name(tokenizer[name])}")


def _type_name(part: Any) -> str:
    """Return the type name of a tokenizer's part, or the shortened part if it has no type."""
    return reprlib.repr(part.get("type")).strip("'") if isinstance(part, dict) else reprlib.repr(part)


def _adds_nothing(part: Any) -> bool:
    """Return whether a post-processor is a template that adds no ids to the ids of the text."""
    match part:
        case {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}]}:
            return True
    return False


def _unsupported(path: Path, feature: str) -> GPT2Error:
    return GPT2Error(f"{path} has {feature}; only GPT-2's byte-level BPE is supported")


def _parse_merges(merges: Any, path: Path) -> Iterator[tuple[str, str]]:
    """Yield the merges; each is written as two pieces with a space between them, or as a list of two pieces."""
    for merge in merges if isinstance(merges, list) else [None]:
        match merge.split(" ") if isinstance(merge, str) else merge:
            case [str(left), str(right)]:
                yield left, right
            case _:
                raise DamagedFileError(path, f"a merge should be two pieces, not {reprlib.repr(merge)}")


def _merge_added_tokens(
    ids_of: dict[str, int], tokens: dict[str, AddedToken], rows: int | None, path: Path
) -> dict[str, int]:
    """Return the ids of pieces and added tokens, except added tokens without a row in the embedding."""
    if any(ids_of.get(text, token.id) != token.id for text, token in tokens.items()):
        raise DamagedFileError(path, "an added token and the piece of the same name have different ids")
    new = {text: token.id for text, token in tokens.items() if text not in ids_of}
    if rows is not None and (missing := [text for text, i in new.items() if i >= rows]):
        warnings.warn(
            f"{path}: the model has no embedding for the added tokens {summarize_names(missing)}, because {CONFIG_FILE}"
            f" has vocab_size {rows}; their texts are encoded as ordinary text",
            stacklevel=2,
        )
        new = {text: i for text, i in new.items() if i < rows}
    ids_of = ids_of | new
    check_pieces(ids_of, path)
    return ids_of


def _fill_unused_ids(ids_of: dict[str, int], path: Path) -> dict[str, int]:
    """Add a piece for each id without a piece, since the model may choose this id."""
    used = set(ids_of.values())
    if max(used) - len(used) >= MAX_UNUSED_IDS:
        raise GPT2Error(f"{path}: only {len(used)} of the ids up to {reprlib.repr(max(used))} have a piece")
    return ids_of | {f"<unused {i}>": i for i in range(max(used)) if i not in used}
