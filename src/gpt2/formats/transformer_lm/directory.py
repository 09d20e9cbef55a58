"""Reader of model directories of lopuhin/transformer-lm: `params.json`, `model.pt` and `sp.model`.

The model is a GPT-2 whose layers may be wider or narrower (n_hidden) than its embeddings (n_embed). Its matrices
have PyTorch's layout [O, I]. `model.pt` is a zip file or, if PyTorch before 1.6 wrote it, a stream.
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

PARAMS_FILE = "params.json"
WEIGHTS_FILE = "model.pt"
PICKLED_MODULE_FILE = "model.pkl"  # a whole PyTorch module, which some programs save instead of its weights
HPARAMS = "hparams"  # a key of `params.json`
# Keys of `model.pt`; training progress is SEEN_TOKENS in new files and STEP in older ones.
STATE_DICT = "state_dict"
SEEN_TOKENS = "seen_tokens"
STEP = "step"
# transformer-lm's names of hyperparameters, with the fields of HParams.
SIZES = {"n_vocab": "n_vocab", "n_ctx": "n_ctx", "n_hidden": "n_embd", "n_head": "n_head", "n_layer": "n_layer"}
KNOWN_HPARAMS = (*SIZES, "n_embed", "gradient_checkpointing")
MULTI_GPU_PREFIX = "module."  # the prefix of all names if older versions trained on several GPUs
MIN_WEIGHT_BYTES = 2  # the size of a float16


def is_model(path: Path) -> bool:
    """Return whether the folder looks like a model of this format, complete or not."""
    return files.is_file(path / PARAMS_FILE)


def open_model(path: Path, advice: str = FETCH_AGAIN) -> ModelDir:
    """Check that all files exist with a plausible size, and read the hyperparameters.

    Args:
        path: A folder for which `is_model` is true.
        advice: The remedy for missing or damaged files, which ends the error message.

    Raises:
        GPT2Error: If a file is missing, cut off or unreadable, or if a hyperparameter is unknown.
    """
    weights_path = path / WEIGHTS_FILE
    missing = [name for name in (WEIGHTS_FILE, SP_MODEL_FILE) if not files.is_file(path / name)]
    if WEIGHTS_FILE in missing and files.is_file(path / PICKLED_MODULE_FILE):
        raise GPT2Error(
            f"{path} has {PICKLED_MODULE_FILE}, a pickled module, but no {WEIGHTS_FILE}: only weight files are"
            " supported; save them with transformer-lm:"
            f" torch.save({{'{STATE_DICT}': model.state_dict()}}, '{WEIGHTS_FILE}')"
        )
    if missing:
        raise GPT2Error(f"{path} lacks {', '.join(missing)}; {advice}")
    hparams = _read_hparams(path / PARAMS_FILE)
    with files.reporting_read_errors(weights_path):
        size = weights_path.stat().st_size
    min_size = MIN_WEIGHT_BYTES * hparams.n_params
    if size < min_size:
        raise GPT2Error(
            f"{weights_path} is cut off or belongs to another model: it has {size} bytes, but {PARAMS_FILE} needs at"
            f" least {min_size}; {advice}"
        )
    return ModelDir(path, hparams, weights_path, read_weights, lambda: sp_model.read(path / SP_MODEL_FILE))


def read_params(path: Path) -> dict[str, Any]:
    """Return the content of `params.json`, with the trained tokens or steps if `model.pt` states them.

    Args:
        path: The folder.

    Raises:
        GPT2Error: If one of the two files is damaged or cannot be read.
    """
    params = _read_params_file(path / PARAMS_FILE)
    state = torch_file.read(path / WEIGHTS_FILE)
    progress = {name: state[name] for name in (SEEN_TOKENS, STEP) if isinstance(state, dict) and name in state}
    return {**params, **progress}


def _read_params_file(path: Path) -> dict[str, Any]:
    params = files.read_json(path)
    if not isinstance(params, dict) or not isinstance(params.get(HPARAMS), dict):
        raise DamagedFileError(path, f"it should be a JSON object that contains an object {HPARAMS}", FETCH_AGAIN)
    return params


def _read_hparams(path: Path) -> HParams:
    values = _read_params_file(path)[HPARAMS]
    if unknown := sorted(set(values) - set(KNOWN_HPARAMS)):
        raise GPT2Error(
            f"{path}: transformer-lm's models do not have {summarize_names(unknown)}; its {HPARAMS} may have"
            f" {', '.join(KNOWN_HPARAMS)}"
        )
    values = {"n_hidden": values.get("n_embed")} | values
    if missing := [name for name in (*SIZES, "n_embed") if values.get(name) is None]:
        raise DamagedFileError(path, f"its {HPARAMS} lack {summarize_names(missing)}", FETCH_AGAIN)
    sizes: dict[str, Any] = {field: values[name] for name, field in SIZES.items()}
    if values["n_embed"] != values["n_hidden"]:
        sizes["n_token_embd"] = values["n_embed"]
    try:
        return HParams(**sizes)
    except GPT2Error as error:
        raise GPT2Error(f"{path}: {error}") from error


def read_weights(path: Path, hparams: HParams) -> Weights:
    """Return the weights of `model.pt` by their names in OpenAI's checkpoints; numbers are read on request.

    Args:
        path: The file.
        hparams: The model's hyperparameters.

    Raises:
        GPT2Error: If the file is damaged or does not hold exactly these weights. The message names file and weight.
    """
    state = _read_state_dict(path)
    shapes = hparams.weight_shapes()
    keys = {name: state_dict_key(name) for name in shapes}
    if missing := [key for key in keys.values() if key not in state]:
        raise GPT2Error(f"{path} lacks {len(missing)} of {len(keys)} weights of {hparams}: {summarize_names(missing)}")
    if unknown := sorted(set(state) - set(keys.values())):
        raise GPT2Error(f"{path} has weights that transformer-lm's model does not have: {summarize_names(unknown)}")
    return {name: _make_weight(path, key, state[key], *_stored_form(name, shapes[name])) for name, key in keys.items()}


def _read_state_dict(path: Path) -> dict[str, Any]:
    content = torch_file.read(path)
    state = content.get(STATE_DICT) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise DamagedFileError(
            path, f"it should hold a dictionary with a {STATE_DICT}, as transformer-lm writes it", FETCH_AGAIN
        )
    if all(name.startswith(MULTI_GPU_PREFIX) for name in state):
        return {name.removeprefix(MULTI_GPU_PREFIX): value for name, value in state.items()}
    return state


def state_dict_key(name: str) -> str:
    """Return a weight's name in transformer-lm.

    >>> state_dict_key("model/h0/attn/c_attn/w"), state_dict_key("model/h0/ln_1/g"), state_dict_key("model/wte")
    ('blocks.0.attn.c_attn.weight', 'blocks.0.ln_1.g', 'wte.weight')

    Args:
        name: The weight's name in OpenAI's checkpoints.
    """
    path, _, leaf = name.removeprefix(PREFIX).rpartition("/")
    if not path:
        return f"{leaf}.weight"
    path = re.sub(r"^h(\d+)", r"blocks.\1", path).replace("/", ".")
    is_norm = re.search(r"ln_.$", path)
    return f"{path}.{leaf if is_norm else {'w': 'weight', 'b': 'bias'}[leaf]}"


def _stored_form(name: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], Layout | None]:
    """Return a weight's shape and layout in the file, given its name and shape in OpenAI's checkpoints."""
    layout = checkpoint.layout(name)
    return (shape[::-1], Layout.OUT_IN) if layout is Layout.IN_OUT else (shape, layout)


def _make_weight(path: Path, name: str, tensor: Any, shape: tuple[int, ...], layout: Layout | None) -> Weight:
    if not isinstance(tensor, StoredTensor) or tensor.dtype not in FLOATS:
        raise GPT2Error(f"{path}: {name} is not a tensor of floating-point numbers")
    if tensor.shape != shape:
        raise GPT2Error(f"{path}: {name} has the shape {list(tensor.shape)}, but {PARAMS_FILE} needs {list(shape)}")
    return Weight(shape, layout, tensor.pieces, tensor.identity, path, name, tensor.checksum)
