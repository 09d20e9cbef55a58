"""The five numbers that define a GPT-2, what its variants differ in, and the variables that follow from them.

>>> HParams(n_vocab=50257).n_params
124439808
"""

from __future__ import annotations

import dataclasses
import reprlib
from pathlib import Path
from typing import Any

from gpt2 import files
from gpt2.errors import GPT2Error

HPARAMS_FILE = "hparams.json"
LARGEST, MOST_LAYERS = (1 << 31) - 1, 10_000  # ids and sizes have 32 bits; each layer costs time before it is read


GELU_NEW, GELU = "gelu_new", "gelu"  # by tanh, as OpenAI's code has it, and exact; named as transformers names them


@dataclasses.dataclass(frozen=True)
class HParams:
    """Sizes of a GPT-2; the defaults are those of OpenAI's `default_hparams()`, the model called 124M.

    What follows n_layer is GPT-2's unless a variant of it says otherwise; transformers and transformer-lm write such.
    n_inner: width between the two products of an MLP, 4 * n_embd if None. n_token_embd: width of wte and wpe, n_embd if
    None; products stand between them and the layers. tie_word_embeddings: whether wte is the output projection too.
    scale_attn_by_inverse_layer_idx: whether the scores of layer i, counted from 1, are divided by i.

    Raises GPT2Error for anything but values that a model can have, and for heads that do not divide the embedding.
    """

    n_vocab: int
    n_ctx: int = 1024
    n_embd: int = 768
    n_head: int = 12
    n_layer: int = 12
    n_inner: int | None = None
    n_token_embd: int | None = None
    layer_norm_epsilon: float = 1e-5
    activation_function: str = GELU_NEW
    tie_word_embeddings: bool = True
    scale_attn_by_inverse_layer_idx: bool = False

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not _is_size(name) or (value is None and name not in SIZES):
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise GPT2Error(f"{name} must be a whole number of at least 1, not {reprlib.repr(value)}")
            most = MOST_LAYERS if name == "n_layer" else LARGEST
            if value > most:
                raise GPT2Error(f"{name} must be at most {most}, not {reprlib.repr(value)}")
        if self.n_embd % self.n_head:
            raise GPT2Error(f"n_embd ({self.n_embd}) must be a multiple of n_head ({self.n_head})")
        self._check_variant()

    def _check_variant(self) -> None:
        for name in ("tie_word_embeddings", "scale_attn_by_inverse_layer_idx"):
            if not isinstance(getattr(self, name), bool):
                raise GPT2Error(f"{name} must be true or false, not {reprlib.repr(getattr(self, name))}")
        if self.activation_function not in (GELU_NEW, GELU):
            given = reprlib.repr(self.activation_function)
            raise GPT2Error(f"activation_function must be {GELU_NEW} or {GELU}, not {given}")
        epsilon = self.layer_norm_epsilon
        if isinstance(epsilon, bool) or not isinstance(epsilon, (int, float)) or not 0 < epsilon < 1:
            raise GPT2Error(f"layer_norm_epsilon must be a number between 0 and 1, not {reprlib.repr(epsilon)}")

    @property
    def head_size(self) -> int:
        return self.n_embd // self.n_head

    @property
    def mlp_size(self) -> int:
        return 4 * self.n_embd if self.n_inner is None else self.n_inner

    @property
    def token_size(self) -> int:
        """Of a token's embedding."""
        return self.n_embd if self.n_token_embd is None else self.n_token_embd

    @property
    def is_factorized(self) -> bool:
        """Whether products stand between the embeddings and the layers."""
        return self.token_size != self.n_embd

    @property
    def n_params(self) -> int:
        """Number of weights; a float32 checkpoint holds four bytes for each."""
        embd, inner, token = self.n_embd, self.mlp_size, self.token_size
        block = 4 * embd**2 + 2 * embd * inner + 9 * embd + inner
        factors = 2 * token * embd + embd + token if self.is_factorized else 0
        heads = self.n_vocab * token * (2 - self.tie_word_embeddings)
        return heads + self.n_ctx * token + factors + self.n_layer * block + 2 * embd

    def variant(self) -> dict[str, Any]:
        """What of it is not as in GPT-2, by the names of the fields; OpenAI's code and the old tools cannot read it."""
        optional = {field.name: field.default for field in dataclasses.fields(self) if field.name not in SIZES}
        same = {"n_inner": 4 * self.n_embd, "n_token_embd": self.n_embd}
        values = {name: getattr(self, name) for name in optional}
        return {name: value for name, value in values.items() if value not in (optional[name], same.get(name))}

    def as_dict(self) -> dict[str, Any]:
        """What `hparams.json` says: the five numbers, and what is not as in GPT-2."""
        return {name: getattr(self, name) for name in SIZES} | self.variant()

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each weight, as OpenAI's code creates them; matrices are [inputs, outputs].

        A variant's own come last: `model/in_proj` and `model/out_proj` before the layers and after ln_f,
        `model/lm_head` in place of wte as the output projection.
        """
        embd, token = self.n_embd, self.token_size
        shapes: dict[str, tuple[int, ...]] = {"model/wpe": (self.n_ctx, token), "model/wte": (self.n_vocab, token)}

        def norm(name: str) -> None:
            shapes[f"{name}/g"] = shapes[f"{name}/b"] = (embd,)

        def conv1d(name: str, n_in: int, n_out: int) -> None:
            shapes[f"{name}/w"], shapes[f"{name}/b"] = (n_in, n_out), (n_out,)

        for layer in range(self.n_layer):
            block = f"model/h{layer}"
            norm(f"{block}/ln_1")
            conv1d(f"{block}/attn/c_attn", embd, 3 * embd)
            conv1d(f"{block}/attn/c_proj", embd, embd)
            norm(f"{block}/ln_2")
            conv1d(f"{block}/mlp/c_fc", embd, self.mlp_size)
            conv1d(f"{block}/mlp/c_proj", self.mlp_size, embd)
        norm("model/ln_f")
        if self.is_factorized:
            conv1d("model/in_proj", token, embd)
            conv1d("model/out_proj", embd, token)
        if not self.tie_word_embeddings:
            shapes["model/lm_head"] = (self.n_vocab, token)
        return shapes


SIZES = ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")  # that OpenAI's hparams.json has


def _is_size(name: str) -> bool:
    return name.startswith("n_")


def load_hparams(path: Path) -> HParams:
    """Reads `hparams.json`; a key that is missing takes its default, as in OpenAI's code.

    Raises GPT2Error, naming the file, if it is not valid or holds a key that GPT-2 does not have.
    """
    values = files.read_json(path)
    names = [field.name for field in dataclasses.fields(HParams)]
    if not isinstance(values, dict) or "n_vocab" not in values or not set(values) <= set(names):
        found = reprlib.repr(values)
        raise GPT2Error(f"{path} must be a JSON object with the keys {', '.join(SIZES)}; it holds {found}")
    try:
        return HParams(**values)
    except GPT2Error as error:
        raise GPT2Error(f"{path}: {error}") from error
