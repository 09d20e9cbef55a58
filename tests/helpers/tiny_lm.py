"""Tiny models of transformer-lm for tests, with a vocabulary that is trained here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch_files

from gpt2.engine.reference import random_weights
from gpt2.formats.transformer_lm import directory
from gpt2.formats.weights import flatten
from gpt2.hparams import HParams
from lm import data

LINES = [
    "Das blaue Pferd war in der deutschen Reitkunst nicht bekannt.",
    "Wenn der Regen niederbraust, wenn der Sturm das Feld durchsaust,",
    "bleiben Mädchen oder Buben hübsch daheim in ihren Stuben.",
    "Gregor öffnete die Tür und ging hinaus; die Tür fiel zu.",
    "",
    "Der Herr im weißen Hut ging über die große Straße, 12 Schritte weit!",
]
TEXT = "\n".join(LINES) + "\n"
PIECES = 120
HPARAMS = HParams(n_vocab=PIECES, n_ctx=32, n_embd=32, n_head=4, n_layer=2)
WIDER = HParams(n_vocab=PIECES, n_ctx=32, n_embd=48, n_head=4, n_layer=2, n_token_embd=32)


def write_vocabulary(folder: Path) -> Path:
    """Train a vocabulary as sp-train does, and return the path of its `sp.model`; the text lies in the same folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.txt").write_text(TEXT * 20, encoding="utf-8")
    return data.train_vocabulary(folder / "text.txt", str(folder / "sp"), PIECES, 1.0)


def write_model(folder: Path, sp_model: Path, hparams: HParams = HPARAMS, legacy: bool = False, **options: Any) -> Path:
    """Write a model directory with random weights; `options` are those of `write_weights`."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(sp_model, folder / "sp.model")
    sizes = {"n_vocab": hparams.n_vocab, "n_ctx": hparams.n_ctx, "n_embed": hparams.token_size}
    sizes |= {"n_hidden": hparams.n_embd, "n_head": hparams.n_head, "n_layer": hparams.n_layer}
    params = {"argv": "gpt-2", "lr": 1e-3, "hparams": {**sizes, "gradient_checkpointing": False}}
    (folder / "params.json").write_text(json.dumps(params), encoding="utf-8")
    write_weights(folder / "model.pt", to_state_dict(random_weights(hparams, seed=1)), legacy, **options)
    return folder


def to_state_dict(weights: dict[str, Any]) -> dict[str, np.ndarray]:
    """Convert nested weights to transformer-lm's names and layout."""
    return {
        directory.state_dict_key(name): np.ascontiguousarray(value.T if name.endswith("/w") else value)
        for name, value in flatten(weights)
    }


def write_weights(
    path: Path,
    state: dict[str, np.ndarray],
    legacy: bool = False,
    prefix: str = "",
    progress_key: str = "seen_tokens",
) -> None:
    """Write {"state_dict": state, progress_key: 1234} as torch.save does, in the form of 2020 or in the older one."""
    views, storages = torch_files.state_dict({f"{prefix}{name}": value for name, value in state.items()})
    write = torch_files.write_stream if legacy else torch_files.write_zip
    write(path, {"state_dict": views, progress_key: 1234}, storages)
