"""Model directories of lopuhin/transformer-lm: `params.json model.pt sp.model`.

A GPT-2 whose layers may be wider or narrower (n_hidden) than its embeddings (n_embed); its matrices are PyTorch's,
[O, I]. `model.pt` is a zip file or, from a PyTorch before 1.6, a stream.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gpt2 import files
from gpt2.errors import FETCH_AGAIN, DamagedFileError, GPT2Error, summarize_names
from gpt2.formats.directory import ModelDir
from gpt2.formats.openai import checkpoint
from gpt2.formats.pytorch import torch_file
from gpt2.formats.sentencepiece import sp_model
from gpt2.formats.stored_tensor import FLOATS, StoredTensor
from gpt2.formats.weights import PREFIX, Layout, Weight, Weights
from gpt2.hparams import HParams
from gpt2.text.sentencepiece import SP_MODEL_FILE

PARAMS_FILE, WEIGHTS_FILE = "params.json", "model.pt"
PICKLED_MODULE = "model.pkl"  # a whole module, in place of its weights
HPARAMS, STATE_DICT = "hparams", "state_dict"
SEEN_TOKENS, STEP = "seen_tokens", "step"  # how far training had come; the latter in older files
SIZES = {"n_vocab": "n_vocab", "n_ctx": "n_ctx", "n_hidden": "n_embd", "n_head": "n_head", "n_layer": "n_layer"}
KNOWN = (*SIZES, "n_embed", "gradient_checkpointing")
OF_SEVERAL_GPUS = "module."  # before every name, as older files of several GPUs have them
SMALLEST_ITEM = 2  # bytes of a weight


def is_model(path: Path) -> bool:
    """Whether the folder is such a directory, be it whole or not."""
    return files.is_file(path / PARAMS_FILE)


def open_model(path: Path, advice: str = FETCH_AGAIN) -> ModelDir:
    """Checks that all files are there and of a plausible size; reads the hparams.

    Raises GPT2Error naming what is missing, cut off, unreadable or unknown. advice: what to do about that.
    """
    weights = path / WEIGHTS_FILE
    missing = [name for name in (WEIGHTS_FILE, SP_MODEL_FILE) if not files.is_file(path / name)]
    if WEIGHTS_FILE in missing and files.is_file(path / PICKLED_MODULE):
        raise GPT2Error(
            f"{path} has {PICKLED_MODULE}, a pickled program, and no {WEIGHTS_FILE}: only weights are read, as"
            f" torch.save({{'{STATE_DICT}': model.state_dict()}}, '{WEIGHTS_FILE}') writes them with transformer-lm"
        )
    if missing:
        raise GPT2Error(f"{path} lacks {', '.join(missing)}; {advice}")
    hparams = _hparams(path / PARAMS_FILE)
    with files.reporting_read_errors(weights):
        size, least = weights.stat().st_size, SMALLEST_ITEM * hparams.n_params
    if size < least:
        raise GPT2Error(
            f"{weights} is cut off or of another model: {size} bytes, but {PARAMS_FILE} needs at least {least};"
            f" {advice}"
        )
    return ModelDir(path, hparams, weights, read_weights, lambda: sp_model.read(path / SP_MODEL_FILE))


def read_params(path: Path) -> dict[str, Any]:
    """All that `params.json` says, and how many tokens the model has seen, if its file says so. Raises GPT2Error."""
    params, state = _params(path / PARAMS_FILE), torch_file.read(path / WEIGHTS_FILE)
    seen = {name: state[name] for name in (SEEN_TOKENS, STEP) if isinstance(state, dict) and name in state}
    return {**params, **seen}


def _params(path: Path) -> dict[str, Any]:
    params = files.read_json(path)
    if not isinstance(params, dict) or not isinstance(params.get(HPARAMS), dict):
        raise DamagedFileError(path, f"it should be a JSON object with {HPARAMS}, which are another", FETCH_AGAIN)
    return params


def _hparams(path: Path) -> HParams:
    said = _params(path)[HPARAMS]
    if unknown := sorted(set(said) - set(KNOWN)):
        raise GPT2Error(
            f"{path}: transformer-lm's models have no {summarize_names(unknown)}; known are {', '.join(KNOWN)}"
        )
    said = {"n_hidden": said.get("n_embed")} | said
    if missing := [name for name in (*SIZES, "n_embed") if said.get(name) is None]:
        raise DamagedFileError(path, f"its {HPARAMS} lack {summarize_names(missing)}", FETCH_AGAIN)
    sizes: dict[str, Any] = {ours: said[name] for name, ours in SIZES.items()}
    if said["n_embed"] != said["n_hidden"]:
        sizes["n_token_embd"] = said["n_embed"]
    try:
        return HParams(**sizes)
    except GPT2Error as error:
        raise GPT2Error(f"{path}: {error}") from error


def read_weights(path: Path, hparams: HParams) -> Weights:
    """The weights of `model.pt`, all of which are described; their numbers are read when they are asked for.

    Raises GPT2Error, naming the file and the weight, if it is damaged or does not hold exactly these weights.
    """
    state = _state_dict(path)
    shapes = hparams.weight_shapes()
    names = {name: state_dict_key(name) for name in shapes}
    if missing := [their for their in names.values() if their not in state]:
        raise GPT2Error(f"{path} lacks {len(missing)} of {len(names)} weights of {hparams}: {summarize_names(missing)}")
    if surplus := sorted(set(state) - set(names.values())):
        raise GPT2Error(f"{path} has weights that transformer-lm's model has not: {summarize_names(surplus)}")
    return {name: _weight(path, their, state[their], *_as_there(name, shapes[name])) for name, their in names.items()}


def _state_dict(path: Path) -> dict[str, Any]:
    found = torch_file.read(path)
    state = found.get(STATE_DICT) if isinstance(found, dict) else None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise DamagedFileError(
            path, f"it should hold a dictionary with a {STATE_DICT}, as transformer-lm writes it", FETCH_AGAIN
        )
    if all(name.startswith(OF_SEVERAL_GPUS) for name in state):
        return {name.removeprefix(OF_SEVERAL_GPUS): value for name, value in state.items()}
    return state


def state_dict_key(name: str) -> str:
    """What transformer-lm calls a weight.

    >>> key("model/h0/attn/c_attn/w"), key("model/h0/ln_1/g"), key("model/wte")
    ('blocks.0.attn.c_attn.weight', 'blocks.0.ln_1.g', 'wte.weight')
    """
    path, _, leaf = name.removeprefix(PREFIX).rpartition("/")
    if not path:
        return f"{leaf}.weight"
    path = re.sub(r"^h(\d+)", r"blocks.\1", path).replace("/", ".")
    is_norm = re.search(r"ln_.$", path)
    return f"{path}.{leaf if is_norm else {'w': 'weight', 'b': 'bias'}[leaf]}"


def _as_there(name: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], Layout | None]:
    """A weight's shape and layout in the file."""
    ours = checkpoint.layout(name)
    return (shape[::-1], Layout.OUT_IN) if ours is Layout.IN_OUT else (shape, ours)


def _weight(path: Path, name: str, tensor: Any, shape: tuple[int, ...], layout: Layout | None) -> Weight:
    if not isinstance(tensor, StoredTensor) or tensor.dtype not in FLOATS:
        raise GPT2Error(f"{path}: {name} is no tensor of floating-point numbers")
    if tensor.shape != shape:
        raise GPT2Error(
            f"{path}: {name} has the shape {list(tensor.shape)}, but {PARAMS_FILE} beside it needs {list(shape)}"
        )
    return Weight(shape, layout, tensor.pieces, tensor.identity)
