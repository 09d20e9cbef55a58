"""Vocabularies with added tokens in the files of Hugging Face's transformers, and texts full of these tokens.

tests/golden/make_added_tokens.py encodes the texts with transformers, so nothing here imports TensorFlow.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import huggingface_dirs

from gpt2.encoder import END_OF_TEXT

N_PIECES = len(huggingface_dirs.vocabulary()[0])  # the first free id


def token(content: str, position: int, **flags: bool) -> dict[str, Any]:
    """Return an added token of a `tokenizer.json`."""
    defaults = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": N_PIECES + position, "content": content, **defaults, **flags}


def end(**flags: bool) -> dict[str, Any]:
    """Return the end-of-text token of a `tokenizer.json`."""
    return token(END_OF_TEXT, -1, **flags)


def decoder(*tokens: dict[str, Any]) -> dict[str, Any]:
    """Return the tokens in the form of `tokenizer_config.json`."""
    return {str(each["id"]): {key: value for key, value in each.items() if key != "id"} for each in tokens}


ROLES = [token("<|user|>", 0), token("<|assistant|>", 1), token("<sep>", 2), token("[PAD]", 3)]
WORDS = [
    token("note_60", 0, normalized=True, special=False),
    token("note_6", 1, normalized=True, special=False),
    token("Größe", 2, normalized=True, special=False),
    token("the cat", 3, normalized=False, special=False),
]
STRIPPED = [
    token("<mask>", 0, lstrip=True),
    token("<cls>", 1, rstrip=True),
    token("<both>", 2, lstrip=True, rstrip=True, normalized=True),
    token("cat", 3, single_word=True, special=False),
    token("<w>", 4, single_word=True, normalized=True),
]
OVERLAPPING = [
    token("<a", 0, normalized=True),
    token("<a>", 1),
    token("a>b", 2),
    token(">b<", 3, normalized=True),
    token("<a><a>", 4),
    token("🙂", 5),
    token(" <a", 6),
]
# The files of each vocabulary: `tokens` are in tokenizer.json, or there is vocab.json and merges.txt if it is missing.
CASES: dict[str, dict[str, Any]] = {
    "chat": {"tokens": [end(), *ROLES]},
    "words": {"tokens": [end(), *WORDS]},
    "stripped": {"tokens": [end(lstrip=True), *STRIPPED]},
    "overlapping": {"tokens": [end(), *OVERLAPPING]},
    "none": {"tokens": []},
    "generic class": {"tokens": [], "tokenizer_config": {"tokenizer_class": "PreTrainedTokenizerFast"}},
    "pair": {},
    "pair and added_tokens.json": {"added_tokens": {each["content"]: each["id"] for each in ROLES}},
    "pair, added_tokens.json and roles": {
        "added_tokens": {each["content"]: each["id"] for each in (*ROLES, token("cat", 4))},
        "special_tokens_map": {"pad_token": "[PAD]", "additional_special_tokens": ["<|user|>"]},
    },
    "pair and decoder": {"tokenizer_config": {"added_tokens_decoder": decoder(end(), *STRIPPED)}},
    "decoder overrides": {
        "tokens": [end(), *ROLES],
        "tokenizer_config": {
            "added_tokens_decoder": decoder(end(), *ROLES[:2], token("<sep>", 2, lstrip=True), ROLES[3])
        },
    },
    "roles without ids": {
        "tokens": [end(), *ROLES[:1]],
        "special_tokens_map": {"pad_token": "<pad>", "cls_token": {"content": "<cls>", "rstrip": True}},
    },
    "role in the config": {"tokens": [end()], "tokenizer_config": {"pad_token": "<pad>", "eos_token": "<end>"}},
    "split_special_tokens": {
        "tokens": [end(), *ROLES, token("cat", 4, special=False)],
        "tokenizer_config": {"split_special_tokens": True},
    },
}


def write(folder: Path, case: dict[str, Any]) -> Path:
    """Write the files of a vocabulary and a model's `config.json`, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {name: content for name, content in case.items() if name != "tokens"}
    if "tokens" in case:
        contents["tokenizer"] = huggingface_dirs.tokenizer_json(added_tokens=case["tokens"])
    else:
        huggingface_dirs.write_vocabulary(folder, pair=True)
    contents["config"] = {**huggingface_dirs.CONFIG, "vocab_size": N_PIECES + 16, **case.get("config", {})}
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def texts(case: dict[str, Any], n_texts: int, seed: int = 0) -> list[str]:
    """Return random texts of the case's markers, parts of them, words and white space."""
    markers = sorted(set(json.loads(json.dumps(list(_contents(case))))))
    parts = [*markers * 2, *(marker[:-1] for marker in markers), *(marker[1:] for marker in markers)]
    parts += [" ", "  ", "\n", "\t ", "the", " cat", "a", "b", "_", "9", "é", "\u0301", "\x1c", "\xa0", "."]
    rng = random.Random(seed)
    return ["".join(rng.choice(parts) for _ in range(rng.randint(0, 12))) for _ in range(n_texts)]


def _contents(value: Any) -> Any:
    """Yield all texts of tokens in a case."""
    if isinstance(value, dict):
        for key, each in value.items():
            if isinstance(each, str) and (key == "content" or key.endswith("_token")):
                yield each
            if key == "added_tokens":
                yield from each
            yield from _contents(each)
    elif isinstance(value, list):
        for each in value:
            yield from [each] if isinstance(each, str) else _contents(each)
    yield END_OF_TEXT
