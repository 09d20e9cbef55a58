"""Byte-level BPE vocabularies of Hugging Face: `tokenizer.json`, or `vocab.json` and `merges.txt`.

The pair is OpenAI's two files under other names. Beside either there may be tokens that were added, and what ends a
text: in tokenizer_config.json, special_tokens_map.json, added_tokens.json, generation_config.json and config.json.
Whatever else a tokenizer can be (another model, normalizer or splitting) is refused by its name.
"""

from __future__ import annotations

import re
import reprlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt2 import files
from gpt2.encoder import END_OF_TEXT, HUGGING_FACE_MERGES_FILE, HUGGING_FACE_PIECES_FILE, SPECIAL_TOKENS_FILE, Encoder
from gpt2.errors import DamagedFileError, GPT2Error, summarize_names
from gpt2.formats.openai.vocabulary import check_merges, check_pieces, read_merges

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE, GENERATION_FILE = "config.json", "generation_config.json"
TOKENIZER_CONFIG_FILE, ADDED_FILE = "tokenizer_config.json", "added_tokens.json"
VOCAB_AND_MERGES = (HUGGING_FACE_PIECES_FILE, HUGGING_FACE_MERGES_FILE)
LOOKS_SPECIAL = re.compile(r"<.*>|\[.*\]", re.DOTALL)
MOST_UNUSED = 4096  # ids that no piece has, among those that one has
# Classes of tokenizers whose pair of files is GPT-2's, by the beginnings of their names.
BYTE_LEVEL = ("GPT2", "PreTrainedTokenizerFast", "TokenizersBackend", "CodeGen")
# Parts of a BPE that GPT-2's has not, and the values that say that this one has it not either.
PLAIN = {
    "dropout": (None, 0, 0.0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (None, False),
    "ignore_merges": (None, False),
}


def load_tokenizer(folder: Path) -> Encoder:
    """The vocabulary in `tokenizer.json`. Raises GPT2Error, naming the file, if it is damaged or no byte-level BPE."""
    path = folder / TOKENIZER_FILE
    said = _object(path)
    _check_is_byte_level(said, path)
    model = said["model"]
    check_pieces(model.get("vocab"), path)
    merges = list(_pairs(model.get("merges"), path))
    added = dict(_added(said.get("added_tokens", []), path))
    called_special = [token["content"] for token in said.get("added_tokens", []) if token.get("special")]
    return _encoder(folder, path, model["vocab"], merges, added, called_special)


def load_vocab_and_merges(folder: Path) -> Encoder:
    """The vocabulary in `vocab.json` and `merges.txt`. Raises GPT2Error, naming the file, if one is damaged."""
    path = folder / HUGGING_FACE_PIECES_FILE
    kind = _object(folder / TOKENIZER_CONFIG_FILE).get("tokenizer_class") or BYTE_LEVEL[0]
    if not isinstance(kind, str) or not kind.startswith(BYTE_LEVEL):
        raise _refused(folder / TOKENIZER_CONFIG_FILE, f"tokenizer_class {reprlib.repr(kind)}")
    ids_of = files.read_json(path)
    check_pieces(ids_of, path)
    return _encoder(folder, path, ids_of, read_merges(folder / HUGGING_FACE_MERGES_FILE, ids_of), {}, [])


def _encoder(
    folder: Path,
    path: Path,
    ids_of: dict[str, int],
    merges: list[tuple[str, str]],
    added: dict[str, int],
    called_special: list[str],
) -> Encoder:
    """path: of the pieces. added: what else it says of tokens beside them, and which of those it calls special."""
    config = _object(folder / TOKENIZER_CONFIG_FILE)
    if config.get("add_prefix_space"):
        raise _refused(folder / TOKENIZER_CONFIG_FILE, "add_prefix_space")
    if any(i < 0 for i in ids_of.values()):
        raise DamagedFileError(path, "it has ids below 0")
    added = added | dict(_decoder(config, folder)) | dict(_pieces(_object(folder / ADDED_FILE), folder / ADDED_FILE))
    called_special = [*called_special, *_special_names(folder)]
    special = check_merges(merges, ids_of, path, path.name, [*added, *called_special])
    every = _filled(_with_added(ids_of, added, _rows(folder), path), path)
    words = every.keys() & added.keys() - ids_of.keys() - set(called_special)
    _warn_of_words(sorted(text for text in words if not LOOKS_SPECIAL.fullmatch(text)), path)
    special |= every.keys() - ids_of.keys()
    end = _end_token(folder, every, {every[text]: text for text in special})
    return Encoder(every, merges, end, special)


def _check_is_byte_level(said: dict[str, Any], path: Path) -> None:
    """Raises GPT2Error, naming it, for any part of a tokenizer that GPT-2's has not."""
    model: Any = said.get("model")
    splitter: Any = said.get("pre_tokenizer")
    if not isinstance(model, dict):
        raise DamagedFileError(path, "it has no model")
    if model.get("type", "BPE") != "BPE":
        raise _refused(path, f"model {_kind(model)}")
    for name, values in PLAIN.items():
        if model.get(name) not in values:
            raise _refused(path, f"{name} {reprlib.repr(model[name])}")
    if _kind(splitter) == "Sequence" and isinstance(parts := splitter.get("pretokenizers"), list) and len(parts) == 1:
        splitter = parts[0]
    if _kind(splitter) != "ByteLevel" or splitter.get("use_regex", True) is not True:
        raise _refused(path, f"pre_tokenizer {_kind(splitter)}")
    if splitter.get("add_prefix_space") is not False:
        raise _refused(path, "add_prefix_space")
    others = {"normalizer": ("None",), "post_processor": ("None", "ByteLevel"), "decoder": ("None", "ByteLevel")}
    for name, kinds in others.items():
        if _kind(said.get(name)) not in kinds and not _adds_nothing(said[name]):
            raise _refused(path, f"{name} {_kind(said[name])}")


def _kind(part: Any) -> str:
    """What a part of a tokenizer is called."""
    return reprlib.repr(part.get("type")).strip("'") if isinstance(part, dict) else reprlib.repr(part)


def _adds_nothing(part: Any) -> bool:
    """Whether it is a template that is the text's own ids."""
    match part:
        case {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}]}:
            return True
    return False


def _refused(path: Path, what: str) -> GPT2Error:
    return GPT2Error(f"{path} has {what}; only GPT-2's byte-level BPE is read")


def _pairs(said: Any, path: Path) -> Iterator[tuple[str, str]]:
    """Merges, each a text of two pieces or a list of them."""
    for merge in said if isinstance(said, list) else [None]:
        match merge.split(" ") if isinstance(merge, str) else merge:
            case [str(left), str(right)]:
                yield left, right
            case _:
                raise DamagedFileError(path, f"a merge should be two pieces, not {reprlib.repr(merge)}")


def _added(said: Any, path: Path) -> Iterator[tuple[str, int]]:
    """The added tokens of a `tokenizer.json`."""
    for token in said if isinstance(said, list) else [None]:
        match token:
            case {"content": str(text), "id": int(i)} if i >= 0:
                yield text, i
            case _:
                raise DamagedFileError(path, f"an added token should be a text and its id, not {reprlib.repr(token)}")


def _decoder(config: dict[str, Any], folder: Path) -> Iterator[tuple[str, int]]:
    """The added tokens of a `tokenizer_config.json`, by their ids."""
    said = config.get("added_tokens_decoder") or {}
    for i, token in said.items() if isinstance(said, dict) else [(None, None)]:
        text = _text(token)
        if text is None or not (isinstance(i, str) and i.isdecimal() and len(i) < 10):
            raise DamagedFileError(folder / TOKENIZER_CONFIG_FILE, "its added_tokens_decoder should give ids texts")
        yield text, int(i)


def _pieces(said: dict[str, Any], path: Path) -> Iterator[tuple[str, int]]:
    """The added tokens of an `added_tokens.json`."""
    for text, i in said.items():
        if type(i) is not int or i < 0:
            raise DamagedFileError(path, "it should map texts to ids")
        yield text, i


def _with_added(ids_of: dict[str, int], added: dict[str, int], rows: int | None, path: Path) -> dict[str, int]:
    """All pieces. Tokens that were added without a row of the embedding are left out: the model does not know them."""
    new = {text: i for text, i in added.items() if text not in ids_of and (rows is None or i < rows)}
    if any(ids_of.get(text, i) != i for text, i in added.items()):
        raise DamagedFileError(path, "an added token has another id than the piece of its name")
    ids_of = ids_of | new
    check_pieces(ids_of, path)
    return ids_of


def _rows(folder: Path) -> int | None:
    """How many rows the model's embedding has, if there is one."""
    rows = _object(folder / CONFIG_FILE).get("vocab_size")
    return rows if type(rows) is int else None


def _filled(ids_of: dict[str, int], path: Path) -> dict[str, int]:
    """With a piece for each id that has none, since a model may choose it."""
    used = set(ids_of.values())
    if max(used) - len(used) >= MOST_UNUSED:
        raise GPT2Error(f"{path}: only {len(used)} of the ids up to {reprlib.repr(max(used))} have a piece")
    return ids_of | {f"<unused {i}>": i for i in range(max(used)) if i not in used}


def _warn_of_words(words: list[str], path: Path) -> None:
    """Of added tokens that are no special ones: transformers finds them in any text, and here no text is one."""
    if words:
        warnings.warn(
            f"{path}: the tokens that were added, {summarize_names(words)}, are not looked for in text, which is cut"
            " into the pieces that merges make; transformers gives other ids where they occur",
            stacklevel=2,
        )


def _special_names(folder: Path) -> Iterator[str]:
    """Texts that the files call special; they need no merges."""
    for token in (_object(folder / TOKENIZER_CONFIG_FILE).get("added_tokens_decoder") or {}).values():
        if isinstance(token, dict) and token.get("special") and (text := _text(token)) is not None:
            yield text
    for name in (SPECIAL_TOKENS_FILE, TOKENIZER_CONFIG_FILE):
        for key, value in _object(folder / name).items():
            if key.endswith(("_token", "_special_tokens")):
                yield from filter(None, map(_text, value if isinstance(value, list) else [value]))


def _end_token(folder: Path, ids_of: dict[str, int], special: dict[int, str]) -> str:
    """The token that ends a text: what the tokenizer calls so, else the model, else what begins one, else OpenAI's.

    A model's config counts where it names a special token: many keep GPT-2's number, which other vocabularies give to
    an ordinary piece.
    """
    for role in ("eos_token", "bos_token"):
        for name in (TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE):
            if (text := _text(_object(folder / name).get(role))) in ids_of:
                return str(text)
        for name in (GENERATION_FILE, CONFIG_FILE):
            said = _object(folder / name).get(f"{role}_id")
            i = said[0] if isinstance(said, list) and said else said
            if type(i) is int and i in special:
                return special[i]
    return END_OF_TEXT


def _text(token: Any) -> str | None:
    """A token's text, which stands alone or with how it is to be found."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _object(path: Path) -> dict[str, Any]:
    """What a file says, an empty object if it is not there. Raises Damaged for anything but a JSON object."""
    if not files.is_file(path):
        return {}
    said = files.read_json(path)
    if not isinstance(said, dict):
        raise DamagedFileError(path, "it should be a JSON object")
    return said
