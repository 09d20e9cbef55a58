"""The five sizes that define a GPT-2 model, optional fields for its variants, and the weights that follow from them.

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
SIZES = ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")  # the keys of OpenAI's hparams.json
MAX_SIZE = (1 << 31) - 1  # ids and sizes are stored in 32 bits
MAX_LAYERS = 10_000  # each layer takes time even before its weights are read
# Names from transformers. GELU_NEW is the tanh approximation of OpenAI's code, GELU is exact.
GELU_NEW = "gelu_new"
GELU = "gelu"


@dataclasses.dataclass(frozen=True)
class HParams:
    """Sizes of a GPT-2 model; the defaults are OpenAI's `default_hparams()`, the model 124M.

    The fields after n_layer have GPT-2's values unless a variant sets them; transformers and transformer-lm write
    such variants.

    Attributes:
        n_vocab: Size of the vocabulary.
        n_ctx: Length of the context window in tokens.
        n_embd: Width of the layers.
        n_head: Number of attention heads.
        n_layer: Number of layers.
        n_inner: Width between the two matrix products of an MLP; None for 4 * n_embd.
        n_token_embd: Width of wte and wpe; None for n_embd. If it differs from n_embd, the model has projections
            between the embeddings and the layers.
        layer_norm_epsilon: Added to the variance in layer normalization.
        activation_function: GELU_NEW or GELU.
        tie_word_embeddings: Whether wte is also the output projection.
        scale_attn_by_inverse_layer_idx: Whether the attention scores of layer i, counted from 1, are divided by i.

    Raises:
        GPT2Error: A value is out of range, or n_head does not divide n_embd.
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
        """Check each value."""
        for name, value in vars(self).items():
            if not name.startswith("n_") or (value is None and name not in SIZES):
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise GPT2Error(f"{name} must be a whole number of at least 1, not {reprlib.repr(value)}")
            maximum = MAX_LAYERS if name == "n_layer" else MAX_SIZE
            if value > maximum:
                raise GPT2Error(f"{name} must be at most {maximum}, not {reprlib.repr(value)}")
        if self.n_embd % self.n_head:
            raise GPT2Error(f"n_embd ({self.n_embd}) must be a multiple of n_head ({self.n_head})")
        self._check_variant()

    def _check_variant(self) -> None:
        for name in ("tie_word_embeddings", "scale_attn_by_inverse_layer_idx"):
            if not isinstance(getattr(self, name), bool):
                raise GPT2Error(f"{name} must be true or false, not {reprlib.repr(getattr(self, name))}")
        if self.activation_function not in (GELU_NEW, GELU):
            shown = reprlib.repr(self.activation_function)
            raise GPT2Error(f"activation_function must be {GELU_NEW} or {GELU}, not {shown}")
        epsilon = self.layer_norm_epsilon
        if isinstance(epsilon, bool) or not isinstance(epsilon, (int, float)) or not 0 < epsilon < 1:
            raise GPT2Error(f"layer_norm_epsilon must be a number between 0 and 1, not {reprlib.repr(epsilon)}")

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_head

    @property
    def mlp_size(self) -> int:
        """Width between the two matrix products of an MLP."""
        return 4 * self.n_embd if self.n_inner is None else self.n_inner

    @property
    def token_size(self) -> int:
        """Width of a token's embedding."""
        return self.n_embd if self.n_token_embd is None else self.n_token_embd

    @property
    def is_factorized(self) -> bool:
        """Return whether the model has projections between the embeddings and the layers."""
        return self.token_size != self.n_embd

    @property
    def n_params(self) -> int:
        """Number of weights; a float32 checkpoint stores four bytes for each."""
        embd = self.n_embd
        inner = self.mlp_size
        token = self.token_size
        block = 4 * embd**2 + 2 * embd * inner + 9 * embd + inner
        factors = 2 * token * embd + embd + token if self.is_factorized else 0
        heads = self.n_vocab * token * (2 - self.tie_word_embeddings)
        return heads + self.n_ctx * token + factors + self.n_layer * block + 2 * embd

    def variant_fields(self) -> dict[str, Any]:
        """Return the fields that differ from GPT-2, which OpenAI's code and the old tools cannot read."""
        defaults = {field.name: field.default for field in dataclasses.fields(self) if field.name not in SIZES}
        equivalents = {"n_inner": 4 * self.n_embd, "n_token_embd": self.n_embd}  # of None
        values = {name: getattr(self, name) for name in defaults}
        return {name: value for name, value in values.items() if value not in (defaults[name], equivalents.get(name))}

    def as_dict(self) -> dict[str, Any]:
        """Return the content of `hparams.json`: the five sizes, and the fields that differ from GPT-2."""
        return {name: getattr(self, name) for name in SIZES} | self.variant_fields()

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the name and shape of each weight, as OpenAI's code creates them; matrices are [inputs, outputs].

        The weights of variants come last: `model/in_proj` is applied before the layers, `model/out_proj` after ln_f,
        and `model/lm_head` is the output projection instead of wte.
        """
        embd = self.n_embd
        token = self.token_size
        shapes: dict[str, tuple[int, ...]] = {"model/wpe": (self.n_ctx, token), "model/wte": (self.n_vocab, token)}

        def norm(name: str) -> None:
            shapes[f"{name}/g"] = shapes[f"{name}/b"] = (embd,)

        def conv1d(name: str, n_in: int, n_out: int) -> None:
            shapes[f"{name}/w"] = (n_in, n_out)
            shapes[f"{name}/b"] = (n_out,)

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


def load_hparams(path: Path) -> HParams:
    """Read `hparams.json`; missing keys have default values, as in OpenAI's code.

    Raises:
        GPT2Error: The file is invalid or has an unknown key. The message names the file.
    """
    values = files.read_json(path)
    names = [field.name for field in dataclasses.fields(HParams)]
    if not isinstance(values, dict) or "n_vocab" not in values or not set(values) <= set(names):
        shown = reprlib.repr(values)
        raise GPT2Error(f"{path} must be a JSON object with the keys {', '.join(SIZES)}; it holds {shown}")
    try:
        return HParams(**values)
    except GPT2Error as error:
        raise GPT2Error(f"{path}: {error}") from error
