"""Reader of byte-level BPE vocabularies of Hugging Face: `tokenizer.json`, or `vocab.json` and `merges.txt`.

`vocab.json` and `merges.txt` have the formats of OpenAI's `encoder.json` and `vocab.bpe`. Other files in the folder may
add special tokens (see `special_tokens`). A tokenizer with another model, normalizer or pre-tokenizer is rejected with
an error that names this part.
"""

from __future__ import annotations

import re
import reprlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt2 import files
from gpt2.encoder import HUGGING_FACE_MERGES_FILE, HUGGING_FACE_PIECES_FILE, Encoder
from gpt2.errors import DamagedFileError, GPT2Error, summarize_names
from gpt2.formats.huggingface.special_tokens import (
    TOKENIZER_CONFIG_FILE,
    embedding_rows,
    find_end_token,
    read_added_tokens,
    read_optional_object,
    special_token_texts,
)
from gpt2.formats.openai.vocabulary import check_merges, check_pieces, read_merges

TOKENIZER_FILE = "tokenizer.json"
VOCAB_AND_MERGES = (HUGGING_FACE_PIECES_FILE, HUGGING_FACE_MERGES_FILE)
LOOKS_SPECIAL = re.compile(r"<.*>|\[.*\]", re.DOTALL)
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
    tokens = tokenizer.get("added_tokens", [])
    added = dict(_parse_added_tokens(tokens, path))
    declared_special = [token["content"] for token in tokens if token.get("special")]
    return _build_encoder(folder, path, model["vocab"], merges, added, declared_special)


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
    return _build_encoder(folder, path, ids_of, read_merges(folder / HUGGING_FACE_MERGES_FILE, ids_of), {}, [])


def _build_encoder(
    folder: Path,
    path: Path,
    ids_of: dict[str, int],
    merges: list[tuple[str, str]],
    added: dict[str, int],
    declared_special: list[str],
) -> Encoder:
    """Return the vocabulary of pieces, merges, and the added tokens from other files in the folder.

    Args:
        folder: The folder of the tokenizer.
        path: The file of the pieces.
        ids_of: The id of each piece.
        merges: The merges in order of rank.
        added: The ids of the added tokens in the file of the pieces.
        declared_special: The added tokens that this file declares as special.
    """
    if read_optional_object(folder / TOKENIZER_CONFIG_FILE).get("add_prefix_space"):
        raise _unsupported(folder / TOKENIZER_CONFIG_FILE, "add_prefix_space")
    if any(token_id < 0 for token_id in ids_of.values()):
        raise DamagedFileError(path, "it has negative ids")
    added = added | read_added_tokens(folder)
    declared_special = [*declared_special, *special_token_texts(folder)]
    special = check_merges(merges, ids_of, path, path.name, [*added, *declared_special])
    all_ids = _fill_unused_ids(_merge_added_tokens(ids_of, added, embedding_rows(folder), path), path)
    words = all_ids.keys() & added.keys() - ids_of.keys() - set(declared_special)
    _warn_about_words(sorted(text for text in words if not LOOKS_SPECIAL.fullmatch(text)), path)
    special |= all_ids.keys() - ids_of.keys()
    end_token = find_end_token(folder, all_ids, {all_ids[text]: text for text in special})
    return Encoder(all_ids, merges, end_token, special)


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


def _parse_added_tokens(tokens: Any, path: Path) -> Iterator[tuple[str, int]]:
    """Yield the added tokens of a `tokenizer.json`."""
    for token in tokens if isinstance(tokens, list) else [None]:
        match token:
            case {"content": str(text), "id": int(token_id)} if token_id >= 0:
                yield text, token_id
            case _:
                raise DamagedFileError(path, f"an added token should be a text and its id, not {reprlib.repr(token)}")


def _merge_added_tokens(ids_of: dict[str, int], added: dict[str, int], rows: int | None, path: Path) -> dict[str, int]:
    """Return the ids of pieces and added tokens, except added tokens without a row in the embedding."""
    new = {text: i for text, i in added.items() if text not in ids_of and (rows is None or i < rows)}
    if any(ids_of.get(text, i) != i for text, i in added.items()):
        raise DamagedFileError(path, "an added token and the piece of the same name have different ids")
    ids_of = ids_of | new
    check_pieces(ids_of, path)
    return ids_of


def _fill_unused_ids(ids_of: dict[str, int], path: Path) -> dict[str, int]:
    """Add a piece for each id without a piece, since the model may choose this id."""
    used = set(ids_of.values())
    if max(used) - len(used) >= MAX_UNUSED_IDS:
        raise GPT2Error(f"{path}: only {len(used)} of the ids up to {reprlib.repr(max(used))} have a piece")
    return ids_of | {f"<unused {i}>": i for i in range(max(used)) if i not in used}


def _warn_about_words(words: list[str], path: Path) -> None:
    """Warn about added tokens that are not special, which only transformers recognizes in ordinary text."""
    if words:
        warnings.warn(
            f"{path}: the added tokens {summarize_names(words)} are not recognized in text; their texts are split"
            " into pieces by the merges, so transformers gives different ids where they occur",
            stacklevel=2,
        )
